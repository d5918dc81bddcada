"""Descriptions choose the clips, and the clips are read again, every frame of them.

After "Goldfish". The lines of the video that fit the question point to segments, the best first;
where there are no such lines, the frames that rank first do. Each of these segments is read again
alone. A model that reads text then answers from these notes; for any other, the first note that
shows something is the answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import FINDING, TextLine
from memory.schema import Question
from memory.storage.catalog import SegmentRow
from pipeline.answer import text_evidence
from pipeline.answer.citations import cite, cited_spans
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.composed_answer import composed_answer
from pipeline.answer.strategies.mapping.text_levels import ANSWER, text_context
from pipeline.answer.strategies.schema import Turn
from pipeline.answer.strategies.segment_slices import (
    SegmentSlice,
    frame_cost,
    slices_of,
    visible_segments,
    within,
)
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, is_shown

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

LOOK = (
    'Look at this part of a video alone, and answer: "{question}" If it does not show that, say: '
    "not in the video."
)


class SecondLook:
    """Reads the segments that descriptions point to, whole."""

    name = "second_look"

    def __init__(self, *, segments: int = 3) -> None:
        """segments: that are read again. UserError on less than 1."""
        if segments < 1:
            raise UserError(f"answer.segments={segments} reads nothing; use 1 or more.")
        self._segments = segments

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer from the second look."""
        timed = answerer.timed(question)
        limited = timed.question
        if turn.read is None and answerer.needs_words(limited):
            return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        answerer.refuse_unseen(limited)
        timer = StageTimer()
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        rows, by = self._chosen(limited, answerer, timer)
        notes = self._notes(limited, answerer, rows, log, timer)
        text = notes[0].text if notes else ""
        if notes and not answerer.only_cards:
            asked = ANSWER.format(question=limited.search_text)
            chosen = asked if turn.read is None else question.text
            context = text_context(limited, notes, chosen, answerer.titles(limited))
            text = log.read_with(turn.read, "answer", context, timer, turn.emit).text
        answer = composed_answer(
            limited,
            answerer,
            log,
            timer,
            strategy=self.name,
            why=f"answer=second_look reads {len(rows)} segments again, chosen by {by}",
            text=text,
            lines=notes if not answerer.only_cards else notes[:1],
        )
        if answerer.only_cards or not text.strip():
            turn.emit(answer.text)
        warning = " ".join(filter(None, [answer.warning, timed.note]))
        return replace(answer, question=question.text, warning=warning)

    def _chosen(
        self, question: Question, answerer: "Answerer", timer: StageTimer
    ) -> tuple[list[SegmentRow], str]:
        """The best segments first, and what chose them."""
        bank = answerer.bank
        with timer("search_text"):
            durations = {
                each: bank.catalog.duration(bank.catalog.require_video(each))
                for each in question.videos
            }
            matches = text_evidence.find(bank, question, durations, answerer.sentence_encoder)
        evidence = answerer.recall(question, timer, answerer.read_tokens)
        named = dict.fromkeys([*(one.line.video_id for one in matches), *evidence.question.videos])
        rows = {each: visible_segments(bank, question, each) for each in named}
        by_lines = [
            _row_at(rows[one.line.video_id], (one.line.start + one.line.end) / 2) for one in matches
        ]
        by_frames = [
            next((row for row in rows[name.video_id] if row.first <= name.ordinal < row.stop), None)
            for name in evidence.hits.names
        ]
        order = {
            (row.video_id, row.number): row for row in (*by_lines, *by_frames) if row is not None
        }
        chosen = list(order.values())[: self._segments]
        return chosen, "lines, then frames" if any(by_lines) else "frames, as no line fits"

    def _notes(
        self,
        question: Question,
        answerer: "Answerer",
        rows: Sequence[SegmentRow],
        log: CallLog,
        timer: StageTimer,
    ) -> list[TextLine]:
        """What the model says of each segment, the best first, without those that show nothing."""
        videos = (answerer.bank.catalog.require_video(row.video_id) for row in rows)
        interval = {video.info.video_id: video.interval for video in videos}
        slices: list[SegmentSlice] = [
            own
            for row in rows
            for own in slices_of(
                row,
                question,
                interval[row.video_id],
                frame_cost(answerer, row),
                answerer.read_tokens,
            )
        ]
        asked = question.search_text
        if not answerer.only_cards:
            asked = LOOK.format(question=asked)
        asking = [
            replace(
                within(question, own, interval[own.video_id]),
                text=asked,
                query=question.search_text,
            )
            for own in slices
        ]
        notes = []
        for own, evidence in zip(slices, answerer.recall_all(asking), strict=True):
            if not evidence.frame_count:
                continue
            reading = log.read("look", evidence, timer)
            if not reading.text.strip() or not is_shown(reading.text):
                continue
            step = interval[own.video_id]
            spans = cited_spans(cite(evidence, reading.weights, answerer.cite_share), step)
            start, end = (spans[0][0], spans[-1][1]) if spans else (own.start, own.end + step)
            notes.append(
                TextLine(own.video_id, start, end, FINDING, reading.text.strip(), end,
                         parents=(own.segment,))
            )  # fmt: skip
        return notes


def _row_at(rows: Sequence[SegmentRow], second: float) -> SegmentRow | None:
    """The segment in which a second lies, or the next one before."""
    before = [row for row in rows if row.start <= second]
    return before[-1] if before else None
