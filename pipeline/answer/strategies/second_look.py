"""Descriptions choose the clips, and the clips are read again at full resolution.

After "Goldfish". The lines of the video that fit the question point to segments, the best first;
where there are no such lines, the frames that rank first do. Each of these segments is decoded from
its film again and read alone, with every visual token of the model, and with more frames a second
than the bank has where that is asked for. Where the film is gone, or was a stream, the frames are
read as they were stored. A model that reads text then answers from these notes; for any other, the
first note that shows something is the answer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import FINDING, TextLine
from memory.schema import Evidence, Question
from memory.storage.catalog import SegmentRow
from pipeline.answer import text_evidence
from pipeline.answer.citations import cite, cited_spans, recalled_spans
from pipeline.answer.film_encoder import NoFilmError
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.composed_answer import composed_answer
from pipeline.answer.strategies.mapping.text_levels import ANSWER, text_context
from pipeline.answer.strategies.schema import Turn
from pipeline.answer.strategies.segment_slices import (
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


@dataclass(slots=True)
class _Origins:
    """Where the frames of the second look came from."""

    rates: set[float] = field(default_factory=set)  # frames per second, decoded from films
    obstacles: dict[str, None] = field(default_factory=dict)  # why stored frames were read

    @property
    def why(self) -> str:
        """For the trace, behind a comma; "" where stored frames were asked for."""
        parts = []
        if self.rates:
            rates = " to ".join(f"{rate:g}" for rate in sorted({min(self.rates), max(self.rates)}))
            parts.append(f"decoded from the film at {rates} frames a second")
        if self.obstacles:
            parts.append(f"from stored frames because {'; '.join(self.obstacles)}")
        return "".join(f", {part}" for part in parts)

    @property
    def warning(self) -> str:
        """One sentence where films could not be decoded again; else ""."""
        if not self.obstacles:
            return ""
        return f"The second look read stored frames, because {'; '.join(self.obstacles)}."


class SecondLook:
    """Reads the segments that descriptions point to, whole."""

    name = "second_look"

    def __init__(
        self,
        *,
        segments: int = 3,
        from_film: bool = True,
        fps: float | None = None,
        most_frames: int = 64,
    ) -> None:
        """segments: that are read again. from_film: decode them again, where the film is there.
        fps: frames per second of that; None: as many as the bank has. most_frames: of one
        segment; a longer one has fewer a second. UserError on values that read nothing.
        """
        if segments < 1:
            raise UserError(f"answer.segments={segments} reads nothing; use 1 or more.")
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise UserError(
                f"answer.fps={fps} is no rate; use frames per second above 0, or leave it out."
            )
        if most_frames < 1:
            raise UserError(f"answer.most_frames={most_frames} reads nothing; use 1 or more.")
        self._segments, self._from_film = segments, from_film
        self._fps, self._most_frames = fps, most_frames

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
        origins = _Origins()
        notes = self._notes(limited, answerer, rows, log, timer, origins)
        text, written = notes[0].text if notes else "", None
        if notes and not answerer.only_cards:
            asked = ANSWER.format(question=limited.search_text)
            chosen = asked if turn.read is None else question.text
            context = text_context(limited, notes, chosen, answerer.titles(limited))
            written = log.read_with(turn.read, "answer", context, timer, turn.emit)
            text = written.text
        answer = composed_answer(
            limited,
            answerer,
            log,
            timer,
            strategy=self.name,
            why=f"answer=second_look reads {len(rows)} segments again, chosen by {by}{origins.why}",
            text=text,
            lines=notes if not answerer.only_cards else notes[:1],
            reading=written,
        )
        if answerer.only_cards or not text.strip():
            turn.emit(answer.text)
        warning = " ".join(filter(None, [answer.warning, origins.warning, timed.note]))
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
            matches = text_evidence.find(
                bank, question, durations, answerer.sentence_encoder, answerer.line_scan
            )
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
        origins: _Origins,
    ) -> list[TextLine]:
        """What the model says of each segment, the best first, without those that show nothing."""
        asked = question.search_text
        if not answerer.only_cards:
            asked = LOOK.format(question=asked)
        asking = replace(question, text=asked, query=question.search_text)
        notes = []
        for row in rows:
            for evidence in self._contexts(asking, answerer, row, timer, origins):
                reading = log.read("look", evidence, timer)
                if not reading.text.strip() or not is_shown(reading.text):
                    continue
                cited = cite(evidence, reading.weights, answerer.cite_share)
                spans = cited_spans(cited, evidence.interval)
                spans = spans or recalled_spans(evidence, row.video_id)
                start, end = spans[0][0], spans[-1][1]
                notes.append(
                    TextLine(row.video_id, start, end, FINDING, reading.text.strip(), end,
                             parents=(row.number,))
                )  # fmt: skip
        return notes

    def _contexts(
        self,
        question: Question,
        answerer: "Answerer",
        row: SegmentRow,
        timer: StageTimer,
        origins: _Origins,
    ) -> Iterator[Evidence]:
        """What the question sees of a segment: from its film where that is possible."""
        if self._from_film and answerer.film_encoder is not None:
            video = answerer.bank.catalog.require_video(row.video_id)
            own = replace(
                question,
                videos=(row.video_id,),
                asked_at=question.moment(row.video_id),
                moments={},
                spans={row.video_id: question.spans_of(row.video_id)},
            )
            try:
                found = answerer.film_encoder.evidence(
                    video,
                    row,
                    own,
                    timer,
                    stop=_stop(answerer.bank.catalog.segments(row.video_id), row),
                    fps=1 / video.interval if self._fps is None else self._fps,
                    most_frames=self._most_frames,
                    read_tokens=answerer.read_tokens,
                )
            except NoFilmError as error:
                origins.obstacles[str(error)] = None
            else:
                origins.rates |= {round(1 / each.interval, 3) for each in found}
                yield from found
                return
        yield from self._stored(question, answerer, row)

    @staticmethod
    def _stored(question: Question, answerer: "Answerer", row: SegmentRow) -> Iterator[Evidence]:
        """What the question sees of a segment, as the bank stores it."""
        interval = answerer.bank.catalog.require_video(row.video_id).interval
        cost = frame_cost(answerer, row)
        slices = slices_of(row, question, interval, cost, answerer.read_tokens)
        asking = [within(question, own, interval) for own in slices]
        for evidence in answerer.recall_all(asking):
            if evidence.frame_count:
                yield evidence


def _row_at(rows: Sequence[SegmentRow], second: float) -> SegmentRow | None:
    """The segment in which a second lies, or the next one before."""
    before = [row for row in rows if row.start <= second]
    return before[-1] if before else None


def _stop(rows: Sequence[SegmentRow], row: SegmentRow) -> float:
    """The second at which the next segment begins: pictures that came late leave an overlap."""
    return min([row.end, *(each.start for each in rows if each.start > row.start)])
