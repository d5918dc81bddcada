"""Jobs -> tasks: the questions about one video together, and which bank has it already. Knows the banks' catalogs and no
model.

Two names of one file are one video. A question that has its answer is not asked again.
"""

import hashlib
import math
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path

from encoders.errors import UserError
from encoders.sources.container import fingerprint
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.batch.fetch import place
from pipeline.batch.schema import Job, Task

Known = dict[str, tuple[str, bool]]  # video id -> bank, and whether all of it is there


def sharded(jobs: Sequence[Job], shard: str) -> list[Job]:
    """The jobs of shard "K/N", K = 0 .. N-1: all questions of a video are in one. "" = all."""
    if not shard:
        return list(jobs)
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if found is None or not int(found[1]) < int(found[2]):
        raise UserError(
            f"shard={shard} is no part of the whole; write K/N with K from 0 to N-1, such as shard=0/4"
        )
    number, parts = int(found[1]), int(found[2])
    return [job for job in jobs if _spread(job.video.rsplit("/", 1)[-1]) % parts == number]


def tasks(
    jobs: Sequence[Job],
    banks: Iterable[str],
    downloads: Path,
    *,
    at_once: int = 1,
    answered: Container[str] = (),
) -> list[Task]:
    """One task for each video (or part of one, where jobs have start or end) with questions left, in the order of the jobs.

    at_once: how many questions are asked together. answered: ids that have their answer."""
    by_video: dict[tuple[str, float, float | None], list[Job]] = {}
    for job in jobs:
        path = place(job.video, downloads)
        key = fingerprint(path) if path.is_file() and path.stat().st_size else job.video
        by_video.setdefault((key, job.start, job.end), []).append(job)
    known = _known(banks)
    found = []
    for (key, start, end), some in by_video.items():
        left = tuple(job for job in some if job.id not in answered)
        if left:
            bank, finished = _held(known, key, start, end)
            found.append(
                Task(
                    some[0].video,
                    some[0].video,
                    start,
                    end,
                    bank,
                    finished,
                    groups(some, at_once),
                    left,
                )
            )
    return found


def groups(jobs: Sequence[Job], at_once: int) -> tuple[tuple[Job, ...], ...]:
    """Questions about one video that are asked together, by the moment that they are asked at, those about the whole video
    last. They are cut from all questions, not from those that are left: a matrix product of several rows rounds by their
    number, and who resumes must get the same answers."""
    ordered = sorted(jobs, key=lambda job: math.inf if job.asked_at is None else job.asked_at)
    return tuple(tuple(ordered[a : a + at_once]) for a in range(0, len(ordered), at_once))


def bank_names(bank: str) -> Iterator[str]:
    """DIR, DIR.1, DIR.2, ... without end: a bank has one writer, so each worker writes to one of its own."""
    yield bank
    yield from (f"{bank}.{number}" for number in count(1))


def banks(bank: str, workers: int) -> list[str]:
    """All banks that there may be: one for each worker, and those of an earlier run that had more."""
    names = enumerate(bank_names(bank))
    return [
        name
        for _, name in takewhile(
            lambda one: one[0] < workers or Path(one[1], "bank.json").is_file(), names
        )
    ]


def _spread(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _known(banks: Iterable[str]) -> Known:
    """Every video of all banks; one that is complete somewhere counts as there."""
    known: Known = {}
    for bank in banks:
        if not Path(bank, "bank.json").is_file():
            continue
        with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0, create=False) as held:
            for video in held.catalog.videos():
                if not known.get(video.info.video_id, ("", False))[1]:
                    known[video.info.video_id] = (
                        bank,
                        video.finished and not held.catalog.gaps(video.info.video_id),
                    )
    return known


def _held(known: Known, key: str, start: float, end: float | None) -> tuple[str, bool]:
    """The bank that has this part of the file with this fingerprint. ("", False): none has."""
    for video_id, where in known.items():
        name, *rest = video_id.split("-")
        bounds = dict(zip(rest[::2], map(float, rest[1::2]), strict=False))
        if name == key and bounds.get("from", 0.0) == start and bounds.get("to") == end:
            return where
    return "", False
