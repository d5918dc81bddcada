"""Plans what a rule deletes: arithmetic on times and bytes. Knows no files, no rows and no clock.

Only the beginning of a video is deleted, so that the rest is one contiguous span. A segment
therefore counts as no newer than any later one: if it was repaired yesterday, it is as old as its
neighbors. Segments that the encoder of an unfinished video needs stay.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain


@dataclass(frozen=True, slots=True)
class Rule:
    """What to delete: every segment that one of the limits selects. A video without a limit is
    deleted whole; with one, the limit applies to this video only."""

    video_id: str | None = None
    before: float | None = None  # Unix seconds: segments that ended by then
    # the oldest segments, until the remaining files fit, text included
    max_bytes: float | None = None
    # False: all files of the bank have to fit; True: those of this video
    counts_alone: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What a rule needs to know of a segment."""

    number: int
    start: float  # seconds of video time
    end: float
    nbytes: int  # of its file, and of rows of further frame embedders
    moment: float  # Unix seconds: its end by the wall clock, or when it was encoded


@dataclass(frozen=True, slots=True)
class Cut:
    """What is deleted of one video."""

    video_id: str
    # number of the first remaining segment; None: the whole video is deleted
    first: int | None
    segments: int
    seconds: float
    nbytes: int  # of segments, plus text if the whole video is deleted


def plan(
    rule: Rule,
    videos: Mapping[str, Sequence[Piece]],
    first_needed: Mapping[str, int],
    text_bytes: Mapping[str, int] | None = None,
) -> list[Cut]:
    """The cuts that a rule makes, one per video.

    videos: all segments of all videos, in time order.
    first_needed: for unfinished videos, the number of the first segment that must stay.
    text_bytes: bytes of each video's text. They count only if the whole video is deleted: a part of
    a video frees too few of them.
    """
    text_bytes = text_bytes or {}
    if rule.before is None and rule.max_bytes is None:
        video_id = rule.video_id
        return (
            []
            if video_id is None
            else [
                _cut(video_id, videos[video_id], len(videos[video_id]), text_bytes.get(video_id, 0))
            ]
        )
    chosen = {
        video_id: videos[video_id] for video_id in videos if rule.video_id in (None, video_id)
    }
    free = [
        (moment, video_id, piece.number, piece.nbytes)
        for video_id, pieces in chosen.items()
        for moment, piece in zip(_moments(pieces), pieces, strict=True)
        if piece.number < first_needed.get(video_id, piece.number + 1)
    ]
    counted = chosen if rule.counts_alone else videos
    left = sum(piece.nbytes for piece in chain.from_iterable(counted.values())) + sum(
        text_bytes.get(video_id, 0) for video_id in counted
    )
    counts = dict.fromkeys(chosen, 0)
    for moment, video_id, _, nbytes in sorted(free):  # oldest first: a beginning of each video
        is_old = rule.before is not None and moment < rule.before
        if not is_old and (rule.max_bytes is None or left <= rule.max_bytes):
            break
        counts[video_id] += 1
        left -= nbytes + (
            text_bytes.get(video_id, 0) if counts[video_id] == len(chosen[video_id]) else 0
        )
    return [
        _cut(video_id, chosen[video_id], count, text_bytes.get(video_id, 0))
        for video_id, count in counts.items()
        if count
    ]


def window_frames(provenance: Mapping[str, object]) -> int:
    """Frames in the window of this bank's encoder, from its provenance (pipeline/build.py)."""
    match = re.search(r"\bwindow_frames=(\d+)", str(provenance.get("prefill", "")))
    return int(match[1]) if match else 0


def carries_frames(provenance: Mapping[str, object]) -> bool:
    """Whether frames of this bank lean on whole ones in segments before (compressor=carry)."""
    return str(provenance.get("compressor", "")).startswith("CarriedMerge(")


def _moments(pieces: Sequence[Piece]) -> Iterable[float]:
    """For each piece, the earliest of its own moment and those of all later pieces."""
    return reversed(list(accumulate((piece.moment for piece in reversed(pieces)), min)))


def _cut(video_id: str, pieces: Sequence[Piece], count: int, text_bytes: int) -> Cut:
    deleted = pieces[:count]
    first = pieces[count].number if count < len(pieces) else None
    seconds = sum(piece.end - piece.start for piece in deleted)
    nbytes = sum(piece.nbytes for piece in deleted) + (text_bytes if first is None else 0)
    return Cut(video_id, first, count, seconds, nbytes)
