"""Findings: what the model says of each segment of a video, several segments in one pass.

Each segment is read alone, within `read_tokens`, so a finding depends on its segment and on what
was asked, not on the question's moment or on other findings. Whole blocks of segments are kept in
the bank (memory/text/findings.py), and a later question of the same form reads them there.

With `patience` the map ends early: frames that the frame embedder ranks first are read first, and
what comes after `patience` slices in a row that show nothing is not read (a coarse pass before the
fine one, as in "MR. Video" and "LaRA"). Knows what is asked as text; no aim and no reduction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from encoders.text.lines import FINDING, TextLine, split_line
from memory.schema import Evidence, Question
from memory.storage.catalog import SegmentRow
from memory.text.findings import BLOCK_SEGMENTS
from pipeline.answer.citations import cite, cited_spans
from pipeline.answer.schema import is_local
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.finding_key import finding_key
from pipeline.answer.strategies.mapping.ranked_slices import RankedSlices
from pipeline.answer.strategies.segment_slices import (
    SegmentSlice,
    frame_cost,
    is_whole,
    open_end,
    slices_of,
    visible_segments,
    within,
)
from pipeline.needle_world.segment_questions import SegmentQuestion
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading, is_shown
from pipeline.scorers.spans import Span

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

MAX_DEPTH = 4  # how often a slice is divided


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of one question about all segments, in time order."""

    lines: tuple[TextLine, ...]  # kind FINDING; `parents` names the segments
    segments: int  # that were read or taken from the bank
    reused: int  # of them taken from the bank
    note: str = ""  # what was not read, where the map ended early


@dataclass(frozen=True)
class SegmentMapper:
    """Asks every segment of a video the same."""

    answerer: "Answerer"
    log: CallLog
    timer: StageTimer
    contexts: int  # segments in one pass of the model
    # True: an answer names one thing, so where it rests on two moments, both are read again alone
    divides: bool
    keeps_findings: bool = True  # False: findings are neither taken from the bank nor kept there
    # slices in a row without a finding, best first, after which the rest is not read; 0: all is
    patience: int = 0

    def find(self, question: Question, asked: SegmentQuestion) -> Findings:
        """What the model says about each segment that the question sees."""
        lines: list[TextLine] = []
        segments = reused = 0
        notes = []
        for video_id in question.videos:
            ends_early = self.patience > 0 and self.answerer.raw_scores is not None
            find = self._find_early if ends_early else self._find
            found = find(question, video_id, asked)
            lines += found.lines
            segments, reused = segments + found.segments, reused + found.reused
            notes.append(found.note)
        return Findings(tuple(lines), segments, reused, "; ".join(filter(None, notes)))

    def _find(self, question: Question, video_id: str, asked: SegmentQuestion) -> Findings:
        """The same of one video, of which every segment is read."""
        bank, made_with = self.answerer.bank, self._made_with(asked)
        interval = bank.catalog.require_video(video_id).interval
        lines: list[TextLine] = []
        segments = reused = 0
        for number, block in self._blocks(question, video_id).items():
            segments += len(block)
            keeps = self._keeps(question, video_id, number, block)
            findings = bank.findings.read(video_id, made_with, number, block) if keeps else None
            if findings is not None:
                lines += findings
                reused += len(block)
                continue
            budget = self.answerer.read_tokens
            slices = [
                own
                for row in block
                for own in slices_of(
                    row, question, interval, frame_cost(self.answerer, row), budget
                )
            ]
            fresh = self._read(question, asked, slices)
            lines += fresh
            if keeps:
                bank.findings.write(video_id, made_with, number, block, fresh)
        end = open_end(bank, question, video_id)
        if end is not None:
            lines += self._read(question, asked, [end])
        return Findings(tuple(lines), segments + (end is not None), reused)

    def _find_early(self, question: Question, video_id: str, asked: SegmentQuestion) -> Findings:
        """The same of one video, of which the slices that rank last are not read. Findings of a map
        that read every segment count as well."""
        bank = self.answerer.bank
        blocks = self._blocks(question, video_id)
        segments = sum(map(len, blocks.values()))
        own = (
            f"{self._made_with(asked)} patience={self.patience} {self.answerer.raw_scores} "
            f"{self.answerer.ranked_by}"
        )
        keeps = bank.catalog.require_video(video_id).finished and all(
            self._keeps(question, video_id, number, block) for number, block in blocks.items()
        )
        for made_with in (self._made_with(asked), own) if keeps else ():
            stored = [bank.findings.read(video_id, made_with, *block) for block in blocks.items()]
            if None not in stored:
                lines = tuple(line for block_lines in stored for line in block_lines or ())
                return Findings(lines, segments, segments)
        slices = RankedSlices(self.answerer, question, video_id, asked.text)
        fresh = self._read_best(question, asked, slices)
        for number, block in blocks.items() if keeps else ():
            numbers = {row.number for row in block}
            of_block = [line for line in fresh if numbers.issuperset(line.parents)]
            bank.findings.write(video_id, own, number, block, of_block)
        end = open_end(bank, question, video_id)
        if end is not None:
            fresh += self._read(question, asked, [end])
        note = (
            f"{slices.frames_read} of {slices.frames} frames were read, best first: then "
            f"{self.patience} slices in a row showed nothing"
        )
        return Findings(tuple(fresh), segments, 0, note if slices.take(1) else "")

    # ---- the bank

    def _blocks(self, question: Question, video_id: str) -> dict[int, list[SegmentRow]]:
        """The segments that the question sees, by the number of their block."""
        rows = visible_segments(self.answerer.bank, question, video_id)
        groups = groupby(rows, key=lambda row: row.number // BLOCK_SEGMENTS)
        return {number: list(group) for number, group in groups}

    def _keeps(
        self, question: Question, video_id: str, number: int, block: Sequence[SegmentRow]
    ) -> bool:
        """Whether the findings of a block are the same for every later question: it is complete,
        and all of it was seen."""
        catalog = self.answerer.bank.catalog
        video = catalog.require_video(video_id)
        stop = catalog.next(video_id)[0]
        is_last = stop <= (number + 1) * BLOCK_SEGMENTS
        begin = 0 if video.pruned is None else video.pruned.first
        first, last = max(number * BLOCK_SEGMENTS, begin), min((number + 1) * BLOCK_SEGMENTS, stop)
        # else an early question would take the place of the findings of the whole block
        is_all = (block[0].number, block[-1].number) == (first, last - 1)
        is_seen = (is_whole(row, question, video.interval) for row in block)
        return self.keeps_findings and (not is_last or video.finished) and is_all and all(is_seen)

    def _made_with(self, asked: SegmentQuestion) -> str:
        """All that a finding depends on beside its segment."""
        reader = self.answerer.reader
        heads = reader.retrieval_heads if is_local(reader) else None
        return finding_key(
            self.answerer,
            "SegmentMapper 5",
            f"cite_share={self.answerer.cite_share}",
            f"divides={self.divides}",
            f"retrieval_heads={heads}",
            f"{asked}",
        )

    # ---- the model

    def _read(
        self, question: Question, asked: SegmentQuestion, slices: Sequence[SegmentSlice]
    ) -> list[TextLine]:
        """The findings of these slices, in time order."""
        slice_question = replace(question, text=asked.text, query="", keep=(), context="")
        shown = [
            said
            for read in self._readings("map", slice_question, slices)
            for said in self._undivided(slice_question, read, 0)
        ]
        return [line for said in self._confirmed(asked, shown) for line in self._lines(said)]

    def _read_best(
        self, question: Question, asked: SegmentQuestion, slices: RankedSlices
    ) -> list[TextLine]:
        """The findings of the slices that rank first, in time order."""
        slice_question = replace(question, text=asked.text, query="", keep=(), context="")
        lines: list[TextLine] = []
        empty = 0  # slices in a row
        while empty < self.patience:
            batch = slices.take(min(self.contexts, self.patience))
            if not batch:
                break
            showing: set[tuple[int, float]] = set()
            for read in list(self._readings("map", slice_question, batch)):
                spans = self._spans(read)
                said = self._undivided(slice_question, read, 0, rest=False)
                confirmed = self._confirmed(asked, said)
                lines += [line for each in confirmed for line in self._lines(each)]
                if said:
                    slices.give_back(read.slice, spans)
                if confirmed:
                    showing.add((read.slice.segment, read.slice.start))
            for own in batch:
                empty = 0 if (own.segment, own.start) in showing else empty + 1
        return sorted(lines, key=lambda line: (line.start, line.end, line.text))

    def _readings(
        self, step: str, question: Question, slices: Sequence[SegmentSlice]
    ) -> Iterator["_SliceReading"]:
        """What the model says of each slice that has frames."""
        for first in range(0, len(slices), self.contexts):
            group = slices[first : first + self.contexts]
            interval = self._interval(group[0].video_id)
            asking = [within(question, own, interval) for own in group]
            evidences = self.answerer.recall_all(asking)
            pairs = [
                (own, evidence)
                for own, evidence in zip(group, evidences, strict=True)
                if evidence.frame_count
            ]
            if not pairs:
                continue
            readings = self.log.read_all(step, [evidence for _, evidence in pairs], self.timer)
            for (own, evidence), reading in zip(pairs, readings, strict=True):
                yield _SliceReading(own, evidence, reading)

    def _undivided(
        self, question: Question, said: "_SliceReading", depth: int, rest: bool = True
    ) -> list["_SliceReading"]:
        """The slice, or smaller ones, without those that show nothing.

        An answer that rests on several moments may mix two things: each moment is read again alone.
        An answer that rests on one moment may hide another thing: what lies before and behind is
        read again, with `rest`.
        """
        if not said.reading.text.strip() or not is_shown(said.reading.text):
            return []
        spans = self._spans(said)
        if not self.divides or not spans or depth >= MAX_DEPTH:
            return [said]
        if len(spans) > 1:
            own, smaller = [], _divided(said.evidence, said.slice, spans)
        else:
            own, smaller = [said], _rest(said.evidence, said.slice, spans[0]) if rest else []
        more = [
            each
            for read in self._readings("divide", question, smaller)
            for each in self._undivided(question, read, depth + 1, rest)
        ]
        return sorted([*own, *more], key=lambda each: each.slice.start)

    def _confirmed(
        self, asked: SegmentQuestion, shown: Sequence["_SliceReading"]
    ) -> list["_SliceReading"]:
        """The slices whose answer the model confirms when it is asked the other way round."""
        if not asked.check:
            return list(shown)
        confirmed = []
        for first in range(0, len(shown), self.contexts):
            group = shown[first : first + self.contexts]
            checks = [
                replace(
                    said.evidence,
                    question=replace(
                        said.evidence.question,
                        text=asked.check.format(answer=said.reading.text.strip()),
                    ),
                )
                for said in group
            ]
            readings = self.log.read_all("confirm", checks, self.timer)
            confirmed += [
                said
                for said, reading in zip(group, readings, strict=True)
                if reading.text.strip().casefold() == asked.expected.casefold()
            ]
        return confirmed

    def _lines(self, said: "_SliceReading") -> list[TextLine]:
        """The finding of a slice; in pieces where it is long."""
        spans, evidence = self._spans(said), said.evidence
        start, end = (spans[0][0], spans[-1][1]) if spans else _frames(evidence)
        line = TextLine(
            said.slice.video_id,
            start,
            end,
            FINDING,
            said.reading.text,
            end,
            parents=(said.slice.segment,),
        )
        return list(split_line(line))

    def _interval(self, video_id: str) -> float:
        """Seconds between frames."""
        return self.answerer.bank.catalog.require_video(video_id).interval

    def _spans(self, said: "_SliceReading") -> tuple[Span, ...]:
        cited = cite(said.evidence, said.reading.weights, self.answerer.cite_share)
        return cited_spans(cited, said.evidence.interval)


@dataclass(frozen=True, slots=True)
class _SliceReading:
    """What the model says of one slice."""

    slice: SegmentSlice
    evidence: Evidence
    reading: Reading


def _frames(evidence: Evidence) -> Span:
    """From the first frame to the end of the last one."""
    first, last = evidence.runs[0], evidence.runs[-1]
    return float(first.tokens.starts[0]), float(last.tokens.times[-1]) + evidence.interval


def _divided(evidence: Evidence, own: SegmentSlice, spans: Sequence[Span]) -> list[SegmentSlice]:
    """The slice in smaller ones, each with one of the spans: cut in the middle between two."""
    times = _times(evidence)
    cuts = [(before[1] + after[0]) / 2 for before, after in pairwise(spans)]
    edges = [float("-inf"), *cuts, float("inf")]
    groups = [[time for time in times if low <= time < high] for low, high in pairwise(edges)]
    return [replace(own, start=times[0], end=times[-1]) for times in groups if times]


def _rest(evidence: Evidence, own: SegmentSlice, span: Span) -> list[SegmentSlice]:
    """What lies before a span, and what lies behind it."""
    times = _times(evidence)
    groups = [time for time in times if time < span[0]], [time for time in times if time >= span[1]]
    return [replace(own, start=times[0], end=times[-1]) for times in groups if times]


def _times(evidence: Evidence) -> list[float]:
    """Seconds of each frame."""
    return [float(time) for run in evidence.runs for time in run.tokens.times]
