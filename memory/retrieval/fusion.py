"""Rankings of moments by several channels, made one: weighted reciprocal rank fusion over time.

Knows spans of time and ranks; no words, no pictures, no files. Scores of different channels are never compared or averaged:
BM25 and cosines have no common scale. What counts is the rank in each channel, the channel's weight and, where a channel can
tell, how much of what was asked a moment has (`share`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from encoders.text.lines import TextLine

# an ordinal, a name: anything that can be sorted
Item = TypeVar("Item", int, tuple[float, str, str])

K0 = 60.0  # after Cormack et al.: agreement of several channels beats one channel's first place
NEAR_S = 4.0  # moments of one video closer than this are one
_LINES = 4  # of a moment, by one channel
_WIDEST_S = 15.0  # of a moment that two channels make


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a video that was found."""

    video_id: str
    start: float  # seconds
    end: float
    score: float
    channels: tuple[str, ...]  # which found it, the one that says most first
    lines: tuple[TextLine, ...] = ()  # the words that were found there
    at: float = 0.0  # seconds: the frame that shows it best
    share: float = 1.0  # 0..1: how much of what was asked is there, where the channel can tell


def reciprocal_rank(
    rankings: Sequence[Iterable[Item]],
    weights: Sequence[float] | None = None,
    k0: float = K0,
) -> dict[Item, float]:
    """Weighted reciprocal rank fusion (Cormack et al. 2009): score = sum of weight / (k0 + rank), rank from 1.

    rankings: each best first. weights: one for each ranking; None: all 1. Returns item -> score, best first; items with equal
    scores come in rising order.
    """
    scores: defaultdict[Item, float] = defaultdict(float)
    weights = [1.0] * len(rankings) if weights is None else weights
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, item in enumerate(ranking, start=1):
            scores[item] += _term(weight, rank, k0)
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))


def fuse(
    rankings: Mapping[str, Sequence[Moment]],
    weights: Mapping[str, float],
    k0: float = K0,
    near_s: float = NEAR_S,
) -> list[Moment]:
    """One ranking, best first. rankings: channel -> moments, best first. Of moments of one channel that lie closer than near_s
    only the best is kept (non-maximum suppression); those of different channels become one, with the sum of their scores."""
    scored = [
        (_term(weights.get(channel, 1.0) * moment.share, rank, k0), channel, moment)
        for channel, moments in rankings.items()
        for rank, moment in enumerate(_apart(moments, near_s), start=1)
    ]
    scored.sort(key=lambda one: (-one[0], one[2].video_id, one[2].start, one[1]))
    found: defaultdict[str, list[Moment]] = defaultdict(list)
    for score, channel, moment in scored:
        if score <= 0:
            continue
        near = next(
            (i for i, other in enumerate(found[moment.video_id]) if _gap(other, moment) < near_s),
            None,
        )
        if near is None:
            found[moment.video_id].append(replace(moment, score=score, channels=(channel,)))
        elif channel not in found[moment.video_id][near].channels:
            found[moment.video_id][near] = _joined(
                found[moment.video_id][near], moment, score, channel
            )
    return sorted(
        (m for moments in found.values() for m in moments),
        key=lambda m: (-m.score, m.video_id, m.start),
    )


def widened(moment: Moment, seconds: float, duration: float) -> Moment:
    """With its neighbourhood, within the video."""
    return replace(
        moment,
        start=max(moment.start - seconds, 0.0),
        end=min(moment.end + seconds, max(duration, moment.end)),
    )


def _term(weight: float, rank: int, k0: float) -> float:
    return weight / (k0 + rank)


def _apart(moments: Sequence[Moment], near_s: float) -> list[Moment]:
    """Without those that lie near a better one, which gets the words of those that it overlaps."""
    found: list[Moment] = []
    places: defaultdict[str, list[int]] = defaultdict(list)  # in `found`, by video
    for moment in moments:
        near = next(
            (at for at in places[moment.video_id] if _gap(found[at], moment) < near_s), None
        )
        if near is None:
            places[moment.video_id].append(len(found))
            found.append(moment)
        elif _gap(found[near], moment) <= 0 and len(found[near].lines) < _LINES:
            found[near] = replace(found[near], lines=(*found[near].lines, *moment.lines))
    return found


def _gap(a: Moment, b: Moment) -> float:
    """Seconds between two stretches; below 0 where they overlap."""
    return max(a.start, b.start) - min(a.end, b.end)


def _joined(best: Moment, more: Moment, score: float, channel: str) -> Moment:
    """The better one's frame, and both stretches."""
    start, end = min(best.start, more.start), max(best.end, more.end)
    if end - start > max(4 * (best.end - best.start), _WIDEST_S):
        # a slide that stays for minutes does not widen what was said for a second
        start, end = best.start, best.end
    return replace(
        best,
        start=start,
        end=end,
        score=best.score + score,
        channels=(*best.channels, channel),
        lines=tuple(dict.fromkeys((*best.lines, *more.lines))),
    )
