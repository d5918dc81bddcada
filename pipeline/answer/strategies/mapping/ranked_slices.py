"""Slices of a video, those whose frames fit a question best first.

For a map that ends early: a frame with its neighbours is one slice, so what the ranking puts last
is never read. Knows the ranking of the frame embedder; no model and no finding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memory.schema import Question
from pipeline.answer.strategies.segment_slices import (
    SegmentSlice,
    frame_cost,
    visible_segments,
)
from pipeline.scorers.spans import Span

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


class RankedSlices:
    """What of one video is not read yet, in the order in which it is worth reading."""

    def __init__(self, answerer: "Answerer", question: Question, video_id: str, text: str) -> None:
        """text: frames are ranked for it, by the scores of `answerer.raw_scores`."""
        self._budget = answerer.read_tokens
        self._places: dict[float, tuple[int, int]] = {}  # second -> its segment, and its place
        self._segments: list[tuple[int, list[float], list[int]]] = []  # number, seconds, tokens
        interval = answerer.bank.catalog.require_video(video_id).interval
        for row in visible_segments(answerer.bank, question, video_id):
            costs = zip(row.times.tolist(), frame_cost(answerer, row), strict=True)
            seen = [each for each in costs if question.sees(video_id, each[0], interval)]
            times, tokens = [time for time, _ in seen], [cost for _, cost in seen]
            at = len(self._segments)
            self._places |= {time: (at, place) for place, time in enumerate(times)}
            self._segments.append((row.number, times, tokens))
        start, end = question.hull(video_id)
        ranked = answerer.bank.rank_frames(
            text,
            video_id,
            during=(max(start, 0.0), end),
            asked_at=question.moment(video_id),
            most=max(len(self._places), 1),
            part=answerer.raw_scores or "",
        )
        best_first = sorted(ranked, key=lambda moment: (-moment.score, moment.start))
        self._order = [moment.start for moment in best_first if moment.start in self._places]
        self._video_id = video_id
        self._read: set[float] = set()

    @property
    def frames(self) -> int:
        """How many frames the question sees."""
        return len(self._places)

    @property
    def frames_read(self) -> int:
        """How many of them were taken, and not given back."""
        return len(self._read)

    def take(self, most: int) -> list[SegmentSlice]:
        """The next slices: an unread frame with its unread neighbours each, within the budget."""
        slices: list[SegmentSlice] = []
        for time in self._order:
            if len(slices) == most:
                break
            if time not in self._read:
                slices.append(self._around(time))
        return slices

    def give_back(self, own: SegmentSlice, spans: Sequence[Span]) -> None:
        """An answer about a slice rests on these spans alone: its other frames may show more.

        Where it rests on none of them, nothing is given back: the slice would come again for ever.
        """
        read = {time for time in self._read if own.start <= time <= own.end}
        rest = {time for time in read if not any(a <= time < b for a, b in spans)}
        if rest != read:
            self._read -= rest

    def _around(self, time: float) -> SegmentSlice:
        at, place = self._places[time]
        number, times, tokens = self._segments[at]
        first = last = place
        left = self._budget - tokens[place]
        for beside in (place - 1, place + 1):
            is_there = 0 <= beside < len(times) and times[beside] not in self._read
            if is_there and tokens[beside] <= left:
                first, last = min(first, beside), max(last, beside)
                left -= tokens[beside]
        self._read |= set(times[first : last + 1])
        return SegmentSlice(self._video_id, number, times[first], times[last])
