"""Plans a batch: the questions about one video form a task, with the bank that has the video.

So do the questions about the same several videos, which one bank must hold together, and those
about the whole bank, which come last. Knows the banks' catalogs; no model. Two names of the same
file are one video. Answered questions are not asked again.
"""

import hashlib
import math
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path

from encoders.errors import UserError
from encoders.schema import VideoPart
from encoders.sources.container import fingerprint
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.batch.fetch import local_path
from pipeline.batch.schema import Job, Task

BankIndex = dict[str, dict[str, bool]]  # video id -> bank -> whether it has the whole video


def select_shard(jobs: Sequence[Job], shard: str) -> list[Job]:
    """The jobs of shard "K/N", K = 0 .. N-1; "" = all. A video's questions share one shard."""
    if not shard:
        return list(jobs)
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(
            f"shard={shard} is no part of the whole; write K/N with K from 0 to N-1, "
            "such as shard=0/4"
        )
    number, parts = int(match[1]), int(match[2])
    if any(not job.videos for job in jobs):
        raise UserError(
            f"shard={shard} encodes only a part of the videos; ask the rows with video=* in a run "
            "without shard="
        )
    return [job for job in jobs if _hash(job.video.rsplit("/", 1)[-1]) % parts == number]


def plan_tasks(
    jobs: Sequence[Job],
    banks: Iterable[str],
    downloads: Path,
    *,
    batch_size: int = 1,
    answered: Container[str] = (),
) -> list[Task]:
    """One task for each video, part of a video, or set of videos, with unanswered questions, in job
    order; the whole bank is last, so that it holds what the other tasks encode.

    batch_size: questions read in one batch. answered: ids of answered questions.
    """
    by_video: dict[tuple[tuple[str, ...], float, float | None], list[Job]] = {}
    for job in jobs:
        keys = tuple(dict.fromkeys(_key(video, downloads) for video in job.videos))
        by_video.setdefault((keys, job.start, job.end), []).append(job)
    names = list(banks)
    index = _index_banks(names)
    tasks = []
    for (keys, start, end), video_jobs in by_video.items():
        pending = tuple(job for job in video_jobs if job.id not in answered)
        if pending:
            if keys:
                bank, finished = _find_bank(index, keys, start, end)
            else:
                bank, finished = names[0], True
            first, groups = video_jobs[0], group_jobs(video_jobs, batch_size)
            tasks.append(
                Task(first.name, first.videos, start, end, bank, finished, groups, pending)
            )
    return sorted(tasks, key=lambda task: not task.videos)


def group_jobs(jobs: Sequence[Job], batch_size: int) -> tuple[tuple[Job, ...], ...]:
    """Groups of questions that are read in one batch, ordered by `asked_at`; those of each control
    come after the run's own.

    The groups are cut from all questions, not only from unanswered ones: a matrix product rounds
    differently for another number of rows, and a resumed run must give the same answers.
    """
    groups: list[tuple[Job, ...]] = []
    for control in dict.fromkeys(job.control for job in jobs):
        own = [job for job in jobs if job.control == control]
        own.sort(key=lambda job: math.inf if job.asked_at is None else job.asked_at)
        groups += [tuple(own[a : a + batch_size]) for a in range(0, len(own), batch_size)]
    return tuple(groups)


def bank_names(bank: str) -> Iterator[str]:
    """DIR, DIR.1, DIR.2, ... without end. A bank has one writer, so each worker has its own."""
    yield bank
    yield from (f"{bank}.{number}" for number in count(1))


def worker_banks(bank: str, workers: int) -> list[str]:
    """The banks of all workers, and existing ones of an earlier run with more workers."""
    names = enumerate(bank_names(bank))
    return [
        name
        for _, name in takewhile(
            lambda pair: pair[0] < workers or Path(pair[1], "bank.json").is_file(), names
        )
    ]


def _key(video: str, downloads: Path) -> str:
    """What two names of the same file share."""
    path = local_path(video, downloads)
    return fingerprint(path) if path.is_file() and path.stat().st_size else video


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _index_banks(names: Iterable[str]) -> BankIndex:
    """Every video of all banks."""
    index: BankIndex = {}
    for name in names:
        if not Path(name, "bank.json").is_file():
            continue
        with MemoryBank.open(name, None, UniformRetriever(), recent_frames=0, create=False) as bank:
            for video in bank.catalog.videos():
                video_id = video.info.video_id
                is_whole = video.finished and not bank.catalog.gaps(video_id)
                index.setdefault(video_id, {})[name] = is_whole
    return index


def _find_bank(
    index: BankIndex, keys: Sequence[str], start: float, end: float | None
) -> tuple[str, bool]:
    """The bank that has most of these files whole, by their fingerprints, else a part of one; and
    whether it has all. ("", False) if no bank has any."""
    stored = [index.get(str(VideoPart(key, start, end)), {}) for key in keys]
    banks = dict.fromkeys(bank for each in stored for bank in each)
    whole = {bank: sum(each.get(bank, False) for each in stored) for bank in banks}
    best = max(whole, key=lambda bank: whole[bank], default="")
    return best, bool(best) and whole[best] == len(keys)
