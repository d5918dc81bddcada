"""One clock for all videos of a question, so that "newest" means something.

Of one video it is the video's own time, which goes on from session to session. Of several it is the
clock on the wall; a video that does not know when it was has no place on it. Knows the catalog; no
model.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memory.bank import MemoryBank
from memory.schema import Question
from memory.timeline import Span

SHORTEST_S = 600.0  # of the newest window
GROWTH = 6  # each older window is so many times as long


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a video in which its clock does not jump."""

    start: float  # seconds of video time
    end: float  # infinite for a video that goes on
    offset: float  # seconds on the clock less seconds of video time


@dataclass(frozen=True)
class StreamClock:
    """What a question sees of its videos, on one clock."""

    pieces: Mapping[str, tuple[Piece, ...]]  # by video, in time order
    newest: float  # seconds on the clock: where what is stored ends
    unknown: int  # videos that do not know when they were

    @classmethod
    def of(cls, question: Question, bank: MemoryBank) -> "StreamClock | None":
        """None where no video has a place on the clock."""
        alone = len(question.videos) == 1
        pieces, newest, unknown = {}, -math.inf, 0
        for video_id in question.videos:
            running = _running(bank, video_id, alone=alone)
            unknown += not running
            seen, moment = [], question.moment(video_id)
            for piece in running:
                for low, high in question.spans_of(video_id):
                    start, end = max(piece.start, low), min(piece.end, high)
                    if start < end and start <= moment:
                        seen.append(replace(piece, start=start, end=end))
            if seen:
                pieces[video_id] = tuple(seen)
                stored = bank.catalog.next(video_id)[1]
                last = min(seen[-1].end, moment, max(stored, seen[-1].start))
                newest = max(newest, last + seen[-1].offset)
        return cls(pieces, newest, unknown) if pieces else None

    def windows(self) -> Iterator[Span]:
        """Stretches of the clock, the newest first, each longer than the one before: together all
        that the question sees."""
        oldest = min(own[0].start + own[0].offset for own in self.pieces.values())
        high, low, length = math.inf, self.newest, SHORTEST_S
        while high > oldest:
            low -= length
            yield (low if low > oldest else -math.inf), high
            high, length = low, length * GROWTH

    def limited(self, question: Question, window: Span) -> Question | None:
        """The question about a window alone; None where it sees nothing of it."""
        low, high = window
        spans = {}
        for video_id, own in self.pieces.items():
            cut = (
                (max(each.start, low - each.offset), min(each.end, high - each.offset))
                for each in own
            )
            spans[video_id] = tuple((start, end) for start, end in cut if start < end)
        videos = tuple(each for each in question.videos if spans.get(each))
        if not videos:
            return None
        return replace(question, videos=videos, spans={each: spans[each] for each in videos})

    def at(self, video_id: str, seconds: float) -> float:
        """The clock at a second of a video."""
        own = self.pieces[video_id]
        before = [each for each in own if each.start <= seconds]
        return seconds + (before or own)[-1].offset


def _running(bank: MemoryBank, video_id: str, *, alone: bool) -> list[Piece]:
    """When a video was running; one that is alone needs no clock on the wall."""
    if alone:
        return [Piece(0.0, math.inf, 0.0)]
    sessions = bank.catalog.sessions(video_id)
    pieces = [Piece(each.start, each.end, each.began) for each in sessions]
    if pieces and not bank.catalog.require_video(video_id).finished:
        pieces[-1] = replace(pieces[-1], end=math.inf)
    return pieces
