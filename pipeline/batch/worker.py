"""One worker: a model, and one bank at a time. Takes the questions about one video, makes sure that the bank has it, answers.

Knows neither the job file nor the answers' file: what happens is told as events. A video or a question that fails becomes a
row that says why, and the next one is taken; what concerns the whole run (a bank that others write, a bank made with other
settings) is a UserError.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.schema import Evidence, Question
from pipeline.answer.reader import Reading
from pipeline.batch.fetch import fetched
from pipeline.batch.option_choice import Choice, Chosen
from pipeline.batch.schema import Answered, Encoded, Encoding, Job, Task, Tell
from pipeline.build import build_backbone, build_clip, build_qa, build_source
from pipeline.config.parts import part
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import Clock
from pipeline.schema import Answer
from pipeline.scoring import is_right

Span = tuple[float, float]


class Worker:
    """`work(task)` for one task after the other, then `close()`."""

    def __init__(self, config: DictConfig, downloads: Path, tell: Tell) -> None:
        """config: of the batch. downloads: where remote videos are kept."""
        self._config, self._downloads, self._tell = config, downloads, tell
        self._choice: Choice = part(config, "choice")
        self._backbone, self._clip = build_backbone(config), build_clip(config)
        self._qa: VideoQA | None = None
        self._bank = ""

    def work(self, task: Task) -> None:
        """Encode what the bank lacks of the video, and answer. UserError when nothing can go on."""
        for event in self.events(task):
            self._tell(event)

    def events(self, task: Task) -> Iterator[Encoded | Answered]:
        """The same, told to whoever iterates (but not how far encoding is): the video, unless it failed, then a row for each
        question, by the moment that it is asked at."""
        jobs = task.in_order()
        left = {job.id for job in jobs}
        qa = self._opened(task.bank)
        if not task.finished:
            qa.bank.begin_writing()
        try:
            encoded = self._encode(qa, task)
        except Exception as error:
            yield from (failure(task, job, error) for job in jobs)
            return
        yield encoded
        for group in task.groups:
            if any(job.id in left for job in group):
                rows = self._answers(qa, task, group, encoded.video_id)
                yield from (row for job, row in zip(group, rows, strict=True) if job.id in left)

    def claim(self, bank: str) -> None:
        """Become the one who writes to this bank, until another one is opened. BankBusyError when somebody else does."""
        self._opened(bank).bank.begin_writing()

    def close(self) -> None:
        if self._qa is not None:
            self._qa.bank.close()
            self._qa = None

    def _opened(self, bank: str) -> VideoQA:
        if self._qa is None or self._bank != bank:
            self.close()
            self._qa = build_qa(self._with(bank=bank), self._backbone, self._clip)
            self._bank = bank
        return self._qa

    def _with(self, **values: Any) -> DictConfig:
        merged = OmegaConf.merge(self._config, values)
        assert isinstance(merged, DictConfig)
        return merged

    def _encode(self, qa: VideoQA, task: Task) -> Encoded:
        began = time.perf_counter()
        path = fetched(task.video, self._downloads)
        source = build_source(
            self._with(video=str(path), start=task.start, end=task.end), self._backbone
        )
        length = min(source.info.duration, math.inf if task.end is None else task.end)
        done = qa.ingest(
            source, lambda seconds, nbytes: self._tell(Encoding(task.name, seconds, length))
        )
        return Encoded(
            video=task.name,
            video_id=done.video_id,
            video_seconds=done.video_seconds,
            frames=done.frames,
            new_segments=done.new_segments,
            nbytes=done.nbytes,
            seconds=time.perf_counter() - began,
            bank=task.bank,
            warning=done.warning,
        )

    def _answers(
        self, qa: VideoQA, task: Task, group: Sequence[Job], video_id: str
    ) -> list[Answered]:
        """A row for each question. What stops a group is looked for in its questions one by one."""
        try:
            return self._answered(qa, task, group, video_id)
        except Exception as error:
            if len(group) == 1:
                return [failure(task, group[0], error)]
            return [row for job in group for row in self._answers(qa, task, [job], video_id)]

    def _answered(
        self, qa: VideoQA, task: Task, group: Sequence[Job], video_id: str
    ) -> list[Answered]:
        jobs = {job.id: job for job in group}
        chosen: dict[str, Chosen] = {}

        def read(some: Sequence[Evidence], clock: Clock) -> list[Reading]:
            readings: dict[str, Reading] = {}
            to_choose = [evidence for evidence in some if jobs[evidence.question.id].options]
            others = [evidence for evidence in some if not jobs[evidence.question.id].options]
            if to_choose:
                asked = [jobs[evidence.question.id] for evidence in to_choose]
                made = self._choice(asked, qa.answerer.batched_reader, to_choose, clock)
                chosen.update({job.id: one for job, one in zip(asked, made, strict=True)})
                readings = {id: one.reading for id, one in chosen.items()}
            if others:
                said = qa.answerer.batched_reader.read(others, clock)
                readings |= {
                    evidence.question.id: one for evidence, one in zip(others, said, strict=True)
                }
            return [readings[evidence.question.id] for evidence in some]

        questions = [
            Question(
                job.question, video_id, math.inf if job.asked_at is None else job.asked_at, job.id
            )
            for job in group
        ]
        answers = qa.ask_all(questions, read=read)
        return [
            failure(task, job, answer)
            if isinstance(answer, UserError)
            else self._row(qa, task, job, answer, chosen.get(job.id))
            for job, answer in zip(group, answers, strict=True)
        ]

    def _row(
        self, qa: VideoQA, task: Task, job: Job, answer: Answer, chosen: Chosen | None
    ) -> Answered:
        right = None
        if job.options and job.letter is not None:
            right = chosen is not None and chosen.letter == job.letter
        elif not job.options and job.answer is not None:
            right = _is_right(answer.text, job)
        known = qa.bank.catalog.video(answer.video_id)
        told = {
            "video_id": answer.video_id,
            "video_seconds": 0.0 if known is None else known.info.duration,
            "answer": answer.text,
            "choice": None if chosen is None else chosen.letter,
            "right": right,
            "scores": [] if chosen is None else list(chosen.scores),
            **_evidence(answer, job),
            "seconds": answer.seconds,
            "frames_read": answer.frames_read,
            "visual_tokens": answer.visual_tokens,
            "answer_tokens": len(self._backbone.ids(answer.text)),
            "bank_id": bank_id(qa.bank),
            "warning": answer.warning,
        }
        return Answered(blank(task, job) | told)


def failure(task: Task, job: Job, error: Exception | str) -> Answered:
    """The row of a question that got no answer."""
    why = str(error) if isinstance(error, UserError | str) else f"{type(error).__name__}: {error}"
    return Answered(blank(task, job) | {"error": " ".join(why.split())})


def blank(task: Task, job: Job) -> dict[str, Any]:
    """All columns of answers.jsonl, with what is known before there is an answer."""
    return {
        "id": job.id,
        "video": task.name,
        "video_id": None,
        "question": job.question,
        "options": list(job.options),
        "asked_at": job.asked_at,
        "answer": None,
        "choice": None,
        "truth": job.letter if job.options else job.answer,
        "right": None,
        "scores": [],
        "spans": [],
        "cited": [],
        "evidence_cited": None,
        "evidence_seconds_cited": None,
        "seconds": {},
        "video_seconds": None,
        "frames_read": None,
        "visual_tokens": None,
        "answer_tokens": None,
        "task": job.task,
        "duration": job.duration,
        "group": job.group,
        "bank": task.bank,
        "bank_id": None,
        "warning": "",
        "error": None,
        "job": job.digest(),
    }


def bank_id(bank: MemoryBank) -> str:
    """8 hex digits over what the bank was made with: two banks of equal id hold the same of the same video."""
    return hashlib.sha256(json.dumps(dict(bank.provenance), sort_keys=True).encode()).hexdigest()[
        :8
    ]


def _is_right(text: str, job: Job) -> bool:
    """Whether an open answer is the one that was told."""
    if job.rule == "number":
        return "".join(re.findall(r"\d+", text)) == job.answer
    return is_right(text, job.answer or "")


def _evidence(answer: Answer, job: Job) -> dict[str, Any]:
    """What is cited, and how it lies to the seconds that the right answer rests on."""
    told: dict[str, Any] = {
        "spans": [list(span) for span in answer.spans],
        "cited": [asdict(frame) for frame in answer.cited],
    }
    if job.evidence:
        covered, whole = _covered(job.evidence, answer.spans)
        told |= {
            "evidence_cited": covered > 0,
            "evidence_seconds_cited": covered / whole if whole else None,
        }
    return told


def _covered(wanted: Sequence[Span], cited: Sequence[Span]) -> tuple[float, float]:
    """Seconds of `wanted` that lie in `cited` (spans that do not overlap), and all seconds of `wanted`."""
    merged: list[list[float]] = []
    for start, end in sorted(wanted):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    covered = sum(max(0.0, min(b, d) - max(a, c)) for a, b in merged for c, d in cited)
    return covered, sum(b - a for a, b in merged)
