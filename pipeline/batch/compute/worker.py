"""A batch worker: one model, one open bank at a time. Encodes a task's videos, then answers.

Knows neither the job file nor the answer files; emits events. A video or question that fails
becomes a row with the reason, and the next one follows. A problem of the whole run (a locked bank,
a bank made with other settings) is a UserError.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.schema import Evidence, Question
from pipeline.answer.schema import is_local
from pipeline.answer.strategies.segment_slices import frame_tokens
from pipeline.batch.compute.film_subtitles import with_subtitles
from pipeline.batch.compute.moment_retrieval import MomentRetrieval
from pipeline.batch.compute.rows import empty_row, failure
from pipeline.batch.compute.watching import answer_in_time, is_in_time
from pipeline.batch.controls import build_controls
from pipeline.batch.fetch import fetch
from pipeline.batch.option_choice import OptionChoice, OptionResult
from pipeline.batch.schema import (
    LETTERS,
    RETRIEVE,
    EmitEvent,
    Encoded,
    EncodeProgress,
    Job,
    QuestionAnswered,
    Task,
    VideoEncoded,
)
from pipeline.batch.scores.score_rows import question_of
from pipeline.build import build_backbone, build_clip, build_qa, open_video
from pipeline.config.parts import instantiate
from pipeline.config.tasks.evaluation_settings import BatchSettings
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, Reading
from pipeline.scorers.citation_f1 import support
from pipeline.scorers.evidence_recall import coverage
from pipeline.scorers.spans import union
from pipeline.scoring import named_option
from pipeline.videos import every_id, find_video


class Worker:
    """Call `work(task)` for each task, then `close()`."""

    def __init__(self, config: BatchSettings, downloads: Path, emit: EmitEvent) -> None:
        """config: of the batch. downloads: folder of fetched videos. emit: receives all events."""
        self._config, self._downloads, self._emit = config, downloads, emit
        self._choice: OptionChoice = instantiate("option_choice", config.option_choice)
        self._controls = build_controls(config.controls, config.full_tokens)
        self._backbone, self._clip = build_backbone(config), build_clip(config)
        self._qa: VideoQA | None = None
        self._bank = ""
        self._retrieval: MomentRetrieval | None = None  # of the open bank
        self._can_choose = False  # whether the part that chooses options was checked

    def work(self, task: Task) -> None:
        """Encode what is missing of the videos and answer. UserError when the run cannot go on."""
        for event in self.events(task):
            if isinstance(event, QuestionAnswered):
                self._emit(event)
                continue
            for one in event:
                self._emit(one)

    def events(self, task: Task) -> Iterator[Encoded | QuestionAnswered]:
        """Yield the encoded videos, without those that failed, then each question, ordered by
        `asked_at`. A video that fails is an error of every question.

        Encoding progress goes to `emit` only.
        """
        jobs = task.in_order()
        pending = {job.id for job in jobs}
        qa = self._open(task.bank)
        retrieves = self._config.action == RETRIEVE
        if not (self._can_choose or retrieves) and any(job.options for job in jobs):
            self._choice.check(qa.answerer.batched_reader)
            self._can_choose = True
        if not task.finished and not self._config.also_banks:
            qa.bank.begin_writing()
        encoded: list[VideoEncoded] = []
        problem: Exception | None = None
        ids: list[str] = []
        try:
            for video in task.videos:
                encoded.append(self._encode(qa, task, video))
            ids += dict.fromkeys(one.video_id for one in encoded)
            ids = ids or every_id(qa.bank.catalog.videos(), qa.bank.name)
        except Exception as error:
            problem = error
        yield tuple(encoded)
        if problem is not None:
            yield from (failure(task, job, problem) for job in jobs)
            return
        for group in task.groups:
            if not is_local(qa.answerer.reader):
                # each question is a request that is paid for, and depends on no other one
                group = tuple(job for job in group if job.id in pending)
            if any(job.id in pending for job in group):
                rows = self._answer_group(qa, task, group, ids)
                for job, row in zip(group, rows, strict=True):
                    if job.id in pending:
                        yield row

    def claim(self, bank: str) -> None:
        """Lock a bank for writing until another one is opened. BankBusyError when it is locked."""
        self._open(bank).bank.begin_writing()

    def close(self) -> None:
        if self._qa is not None:
            self._qa.bank.close()
            self._qa = None

    def _open(self, bank: str) -> VideoQA:
        if self._qa is None or self._bank != bank:
            self.close()
            self._qa = build_qa(self._config.changed(bank=bank), self._backbone, self._clip)
            self._bank = bank
        return self._qa

    def _encode(self, qa: VideoQA, task: Task, video: str) -> VideoEncoded:
        start = time.perf_counter()
        path = fetch(video, self._downloads)
        source = open_video(self._config, self._backbone, str(path), start=task.start, end=task.end)
        length = min(source.info.duration, math.inf if task.end is None else task.end)
        jobs = [job for group in task.groups for job in group]
        ingester, note = with_subtitles(qa.ingester, jobs, video)
        result = ingester.ingest(
            source, lambda seconds, nbytes: self._emit(EncodeProgress(video, seconds, length))
        )
        return VideoEncoded(
            video=video,
            video_id=result.video_id,
            video_seconds=result.video_seconds,
            frames=result.frames,
            new_segments=result.new_segments,
            nbytes=result.nbytes,
            seconds=time.perf_counter() - start,
            bank=task.bank,
            warning=" ".join(filter(None, [result.warning, note])),
        )

    def _answer_group(
        self, qa: VideoQA, task: Task, group: Sequence[Job], ids: Sequence[str]
    ) -> list[QuestionAnswered]:
        """A row for each question. If the group fails, its questions are asked one by one."""
        try:
            return self._ask_group(qa, task, group, ids)
        except Exception as error:
            if len(group) == 1:
                return [failure(task, group[0], error)]
            return [row for job in group for row in self._answer_group(qa, task, [job], ids)]

    def _ask_group(
        self, qa: VideoQA, task: Task, group: Sequence[Job], ids: Sequence[str]
    ) -> list[QuestionAnswered]:
        """Open questions are asked as `reelbank ask` does, those with options through the choice
        part; both with the strategy of the run, or of the group's control."""
        if self._config.action == RETRIEVE:
            return [self._retrieved(qa, task, job, ids) for job in group]
        if group[0].control:
            return [self._ask_control(qa, task, job, ids) for job in group]
        rows: dict[str, QuestionAnswered] = {}
        for part in (
            [job for job in group if job.options],
            [job for job in group if not job.options and job.watch is None],
            [job for job in group if job.watch is not None],
        ):
            if part:
                answered = self._ask_alike(qa, task, part, ids)
                rows |= {job.id: row for job, row in zip(part, answered, strict=True)}
        return [rows[job.id] for job in group]

    def _ask_control(
        self, qa: VideoQA, task: Task, job: Job, ids: Sequence[str]
    ) -> QuestionAnswered:
        """A question in its control. One about a video that is too long for the control gets a row
        without an answer."""
        control = self._controls[job.control]
        strategy = control.strategy(job.evidence, qa.answerer.strategy)
        assert strategy is not None  # with_controls made no such job
        most, question = control.most_tokens, _question(job, ids)
        if most is not None and frame_tokens(qa.bank, question) > most:
            why = f"the control {job.control} is not asked: the video has more than {most} tokens"
            return QuestionAnswered(empty_row(task, job) | {"warning": why})
        own = replace(qa, answerer=replace(qa.answerer, strategy=strategy))
        (row,) = self._ask_alike(own, task, [job], ids)
        return row

    def _ask_alike(
        self, qa: VideoQA, task: Task, jobs: Sequence[Job], ids: Sequence[str]
    ) -> list[QuestionAnswered]:
        """Rows of questions that all have options, or none of which has any."""
        if jobs[0].watch is not None:
            return [self._ask_in_time(qa, task, job, ids) for job in jobs]
        reader = qa.answerer.batched_reader
        by_id = {job.id: job for job in jobs}
        choices: dict[str, OptionResult] = {}

        def choose(batch: Sequence[Evidence], clock: StageTimer) -> list[Reading | UserError]:
            some = [by_id[evidence.question.id] for evidence in batch]
            readings: list[Reading | UserError] = []
            for job, one in zip(some, self._choice(some, reader, batch, clock), strict=True):
                if isinstance(one, OptionResult):
                    choices[job.id] = one
                readings.append(one.reading if isinstance(one, OptionResult) else one)
            return readings

        questions = [_question(job, ids) for job in jobs]
        answers = qa.ask_all(questions, read=choose if jobs[0].options else None)
        return [
            failure(task, job, answer)
            if isinstance(answer, UserError)
            else self._row(qa, task, job, answer, choices.get(job.id) or _named(job, answer), ids)
            for job, answer in zip(jobs, answers, strict=True)
        ]

    def _ask_in_time(
        self, qa: VideoQA, task: Task, job: Job, ids: Sequence[str]
    ) -> QuestionAnswered:
        """The row of a question that waits for its moment."""
        assert job.watch is not None
        answer, second = answer_in_time(qa, job, ids)
        row = empty_row(task, job) | {"video_id": ids[0], "answer": ""}
        if answer is not None:
            row = self._row(qa, task, job, answer, None, ids).row
        row |= {"answered_at": second, "in_time": is_in_time(second, job.watch)}
        return QuestionAnswered(row | {"right": question_of(row).right})

    def _retrieved(self, qa: VideoQA, task: Task, job: Job, ids: Sequence[str]) -> QuestionAnswered:
        """The row of a query whose moments are ranked, and which is not answered."""
        begun = time.perf_counter()
        if self._retrieval is None or self._retrieval.qa is not qa:
            self._retrieval = MomentRetrieval(qa)
        found = self._retrieval(job, ids)
        spans = {
            each: [[one.start, one.end] for one in found if one.video_id == each]
            for each in dict.fromkeys(one.video_id for one in found)
        }
        best = found[0].video_id if found else ids[0]
        rows = {each: qa.bank.catalog.require_video(each).info for each in ids}
        values: dict[str, Any] = {
            "video_id": best,
            "video_seconds": sum(info.duration for info in rows.values()),
            "answer": "",
            "options": [],  # nothing is chosen, and nothing is right or wrong
            "truth": None,
            "found": [[one.start, one.end, one.score] for one in found],
            "spans": spans.get(best, [])[:1],
            "recalled": [list(span) for span in union((a, b) for a, b in spans.get(best, []))],
            "seconds": {"total": time.perf_counter() - begun},
            "bank_id": bank_id(qa.bank),
        }
        if len(ids) > 1:
            values |= {
                "found_videos": [one.video_id for one in found],
                "videos": [
                    {"video_id": each, "path": rows[each].path, "spans": some}
                    for each, some in spans.items()
                ],
            }
        if job.evidence_video:
            film = find_video(qa.bank, str(fetch(job.evidence_video, self._downloads)))
            values |= {
                "evidence": [list(span) for span in job.evidence],
                "evidence_video": film and film.info.video_id,
            }
        return QuestionAnswered(empty_row(task, job) | values)

    def _row(
        self,
        qa: VideoQA,
        task: Task,
        job: Job,
        answer: Answer,
        choice: OptionResult | None,
        ids: Sequence[str],
    ) -> QuestionAnswered:
        usage = answer.usage
        values = {
            "video_id": answer.video_id,
            "video_seconds": sum(qa.bank.catalog.require_video(each).info.duration for each in ids),
            "answer": answer.text,
            "choice": None if choice is None else choice.letter,
            "scores": [] if choice is None else list(choice.scores),
            **_evidence(answer, job),
            "seconds": answer.seconds,
            "frames_read": answer.frames_read,
            "visual_tokens": answer.visual_tokens,
            "prompt_tokens": None if usage is None else usage.prompt_tokens,
            "answer_tokens": (
                qa.answerer.reader.count_tokens(answer.text)
                if usage is None
                else usage.answer_tokens
            ),
            "cost": None if usage is None else usage.cost,
            "cited_by": answer.cited_by,
            "channel": answer.channel,
            "confidence": answer.confidence,
            "bank_id": bank_id(qa.bank),
            "warning": answer.warning,
        }
        row = empty_row(task, job) | values
        return QuestionAnswered(row | {"right": question_of(row).right})


def _question(job: Job, ids: Sequence[str]) -> Question:
    """The question about these videos, at its moment."""
    moment = math.inf if job.asked_at is None else job.asked_at
    return Question(job.question, ids, moment, job.id, query=job.query)


def _named(job: Job, answer: Answer) -> OptionResult | None:
    """The option that an answer names which came without a choice: one by rule (answer=)."""
    if not job.options:
        return None
    number = named_option(answer.text, job.options, is_quote=answer.cited_by == "quote")
    letter = None if number is None else LETTERS[number]
    return OptionResult(Reading(answer.text, {}), letter)


def bank_id(bank: MemoryBank) -> str:
    """8 hex digits of a hash over the provenance.

    Two banks with equal ids hold the same data of the same video.
    """
    return hashlib.sha256(json.dumps(dict(bank.provenance), sort_keys=True).encode()).hexdigest()[
        :8
    ]


def _evidence(answer: Answer, job: Job) -> dict[str, Any]:
    """The cited spans and frames, and how they overlap the evidence of the right answer."""
    values: dict[str, Any] = {
        "spans": [list(span) for span in answer.spans],
        "recalled": [list(span) for span in answer.recalled],
        # each statement of the answer with the spans that it cites
        "basis": [
            {"text": each.text, "spans": [list(span) for span in each.spans]}
            for each in (answer.trace.basis if answer.trace else ())
        ],
        "cited": [asdict(frame) for frame in answer.cited],
        # the films that the answer cites, of several
        "videos": [
            {
                "video_id": each.video_id,
                "path": each.path,
                "spans": [list(span) for span in each.spans],
            }
            for each in answer.videos
            if each.spans
        ],
    }
    if job.evidence and not job.evidence_video:
        values |= {
            "evidence_cited": any(support(job.evidence, answer.spans)),
            "evidence_seconds_cited": coverage(job.evidence, answer.spans),
        }
    return values
