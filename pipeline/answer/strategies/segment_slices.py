"""Slices of segments, and questions about one of them. Knows the catalog; no model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memory.bank import MemoryBank
from memory.schema import GREEDY, Question
from memory.storage.catalog import SegmentRow
from pipeline.answer.schema import is_local

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


@dataclass(frozen=True, slots=True)
class SegmentSlice:
    """Consecutive frames of one segment, or of the open end of a stream."""

    video_id: str
    segment: int  # number
    start: float  # seconds of the first frame
    end: float  # seconds of the last frame, inclusive; infinite for the open end


def within(question: Question, own: SegmentSlice, interval: float) -> Question:
    """The same question about the frames of a slice alone. What is said of it is written greedily
    and whole, as the bank may keep it; only the answer is written as the question asks.

    interval: seconds between frames. A span holds what is shown in it, so it begins and ends half
    an interval after the first and the last frame.
    """
    span = (own.start + 0.5 * interval, own.end + 0.6 * interval)
    return replace(
        question,
        videos=(own.video_id,),
        asked_at=question.moment(own.video_id),
        moments={},
        spans={own.video_id: (span,)},
        generation=GREEDY,
    )


def visible_segments(bank: MemoryBank, question: Question, video_id: str) -> list[SegmentRow]:
    """The segments of a video of which the question sees a frame, in time order."""
    interval = bank.catalog.require_video(video_id).interval
    rows = bank.catalog.segments(video_id)
    return [row for row in rows if any(_visibility(row, question, interval))]


def is_whole(row: SegmentRow, question: Question, interval: float) -> bool:
    """Whether the question sees all frames of a segment."""
    return all(_visibility(row, question, interval))


def slices_of(
    row: SegmentRow, question: Question, interval: float, cost: Sequence[int], budget: int
) -> list[SegmentSlice]:
    """What the question sees of a segment: slices that fit the budget, so that every frame is read.

    cost: of each frame of the segment. A frame above the budget is a slice of its own.
    """
    slices: list[list[float]] = []
    left, was_seen = 0, False
    times = row.times.tolist()
    for time, own, seen in zip(times, cost, _visibility(row, question, interval), strict=True):
        if seen:
            if not was_seen or own > left:
                slices.append([])
                left = budget
            slices[-1].append(time)
            left -= own
        was_seen = seen
    return [SegmentSlice(row.video_id, row.number, own[0], own[-1]) for own in slices]


def frame_cost(answerer: "Answerer", row: SegmentRow) -> list[int]:
    """What each frame of a segment takes of `read_tokens`: visual tokens, or 1 where the reader
    sends pictures."""
    return row.tokens.tolist() if is_local(answerer.reader) else [1] * row.frames


def seen_slices(answerer: "Answerer", question: Question) -> Iterator[SegmentSlice]:
    """Everything that the question sees, in slices that fit `read_tokens`, video by video."""
    bank = answerer.bank
    for video_id in question.videos:
        interval = bank.catalog.require_video(video_id).interval
        for row in visible_segments(bank, question, video_id):
            cost = frame_cost(answerer, row)
            yield from slices_of(row, question, interval, cost, answerer.read_tokens)
        end = open_end(bank, question, video_id)
        if end is not None:
            yield end


def open_end(bank: MemoryBank, question: Question, video_id: str) -> SegmentSlice | None:
    """What comes after the last segment of a video that goes on; None where nothing can come, or
    where the question does not see it."""
    video = bank.catalog.require_video(video_id)
    if video.finished:
        return None
    rows = bank.catalog.segments(video_id)
    after = float(rows[-1].times[-1]) + 0.5 * video.interval if rows else 0.0
    number, _ = bank.catalog.next(video_id)
    start, end = max(after, question.hull(video_id)[0]), question.hull(video_id)[1]
    is_seen = start < end and after <= question.moment(video_id)
    return SegmentSlice(video_id, number, start, end) if is_seen else None


def frame_tokens(bank: MemoryBank, question: Question) -> int:
    """Visual tokens of all stored frames that the question sees."""
    return sum(
        int(tokens)
        for video_id in question.videos
        for row in visible_segments(bank, question, video_id)
        for tokens, seen in zip(
            row.tokens,
            _visibility(row, question, bank.catalog.require_video(video_id).interval),
            strict=True,
        )
        if seen
    )


def _visibility(row: SegmentRow, question: Question, interval: float) -> Iterator[bool]:
    """Of each frame, whether the question sees it."""
    if math.isinf(question.moment(row.video_id)) and row.video_id not in question.spans:
        return iter([True] * row.frames)
    return (question.sees(row.video_id, time, interval) for time in row.times.tolist())
