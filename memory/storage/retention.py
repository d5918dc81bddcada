"""What a rule deletes: arithmetic over moments and bytes. Knows no files, no rows, no clock of its own.

Within a video only a beginning goes, so what is left is one stretch of it. A segment therefore counts as made no later than
any that comes after it: one that was mended yesterday is as old as its neighbours.
Of a video that is still being written, the segments that its encoder goes on with stay.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain


@dataclass(frozen=True, slots=True)
class Rule:
    """What is to go: whatever one of them names. A video alone: all of it; with another one: only of this video."""

    video_id: str | None = None
    before: float | None = None  # Unix seconds: segments that were over by then
    # segments, oldest first, until the files of all that are left take no more, words included
    max_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment as a rule sees it."""

    number: int
    start: float  # seconds of video time
    end: float
    nbytes: int  # of its file
    moment: float  # Unix seconds: its end by the clock on the wall, or when it was encoded


@dataclass(frozen=True, slots=True)
class Cut:
    """What goes of one video."""

    video_id: str
    # number of the first segment that stays; None: nothing does, and the video goes
    first: int | None
    segments: int
    seconds: float
    nbytes: int  # of segments; of words as well where all of the video goes


def plan(
    rule: Rule,
    videos: Mapping[str, Sequence[Piece]],
    kept: Mapping[str, int],
    words: Mapping[str, int] | None = None,
) -> list[Cut]:
    """The cuts that a rule makes, by video. videos: all segments of all videos, in time order. kept: for videos that are not
    finished, the number from which on segments stay, whatever a rule says. words: bytes of each video's words, which go when
    its last segment goes: a part of a video takes so few of them with it that they are not counted."""
    words = words or {}
    if rule.before is None and rule.max_bytes is None:
        video_id = rule.video_id
        return (
            []
            if video_id is None
            else [_cut(video_id, videos[video_id], len(videos[video_id]), words.get(video_id, 0))]
        )
    chosen = {
        video_id: videos[video_id] for video_id in videos if rule.video_id in (None, video_id)
    }
    free = [
        (moment, video_id, piece.number, piece.nbytes)
        for video_id, pieces in chosen.items()
        for moment, piece in zip(_moments(pieces), pieces, strict=True)
        if piece.number < kept.get(video_id, piece.number + 1)
    ]
    left = sum(piece.nbytes for piece in chain.from_iterable(videos.values())) + sum(words.values())
    going = dict.fromkeys(chosen, 0)
    for moment, video_id, _, nbytes in sorted(free):  # oldest first: of each video, a beginning
        old = rule.before is not None and moment < rule.before
        if not old and (rule.max_bytes is None or left <= rule.max_bytes):
            break
        going[video_id] += 1
        left -= nbytes + (words.get(video_id, 0) if going[video_id] == len(chosen[video_id]) else 0)
    return [
        _cut(video_id, chosen[video_id], count, words.get(video_id, 0))
        for video_id, count in going.items()
        if count
    ]


def window_frames(provenance: Mapping[str, object]) -> int:
    """The frames that an encoder of this bank goes on with, as the bank says how it was made (pipeline/build.py)."""
    found = re.search(r"\bwindow_frames=(\d+)", str(provenance.get("prefill", "")))
    return int(found[1]) if found else 0


def _moments(pieces: Sequence[Piece]) -> Iterable[float]:
    """Of each, the earliest of its own and all later ones' moments."""
    return reversed(list(accumulate((piece.moment for piece in reversed(pieces)), min)))


def _cut(video_id: str, pieces: Sequence[Piece], count: int, words: int) -> Cut:
    gone = pieces[:count]
    first = pieces[count].number if count < len(pieces) else None
    seconds = sum(piece.end - piece.start for piece in gone)
    nbytes = sum(piece.nbytes for piece in gone) + (words if first is None else 0)
    return Cut(video_id, first, count, seconds, nbytes)
