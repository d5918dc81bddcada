"""Weighted reciprocal rank fusion (Cormack et al. 2009): the one way in which rankings are joined.

    score of an item = sum over rankings of weight / (k0 + rank), rank from 1

`reciprocal_rank` fuses names, `fuse_frames` frames of a search with frames that words point to,
`fuse_ranked` any records that have a name, such as lines, and `fuse` moments of several channels
over time. The first three give the same order for the same rankings. `fuse` also merges moments
that are close, and counts each by its `share`: how much of the question it covers, where a channel
can tell.

Knows ranks and spans of time; no words, no pictures, no files. Scores of different rankings are
never compared or averaged: BM25 and cosines have no common scale.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from encoders.text.lines import TextLine
from memory.retrieval.common import hits
from memory.schema import Hits

# anything that can be sorted: a place, a name
Item = TypeVar("Item", int, tuple[float, str, str, str])
One = TypeVar("One")

# after Cormack et al. 2009: agreement of several channels beats one channel's first place
K0 = 60.0
NEAR_S = 4.0  # moments of one video that are closer than this are merged
_MAX_LINES = 4  # of text for one moment, by one channel
_MAX_MERGED_S = 15.0  # length of a moment that two channels share


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a video that matches a query."""

    video_id: str
    start: float  # seconds
    end: float
    score: float
    channels: tuple[str, ...]  # that found it, the highest score first
    lines: tuple[TextLine, ...] = ()  # the matching text
    at: float = 0.0  # seconds: the frame that matches best
    share: float = 1.0  # 0..1: how much of the question it covers, where the channel can tell


def reciprocal_rank(
    rankings: Sequence[Iterable[Item]],
    weights: Sequence[float] | None = None,
    k0: float = K0,
) -> dict[Item, float]:
    """The scores of all items.

    rankings: each best first. weights: one for each ranking; None: all 1. Returns item -> score,
    best first; items with equal scores come in rising order.
    """
    scores: defaultdict[Item, float] = defaultdict(float)
    weights = [1.0] * len(rankings) if weights is None else weights
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, item in enumerate(ranking, start=1):
            scores[item] += _term(weight, rank, k0)
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))


def fuse_ranked(rankings: Sequence[Sequence[One]], name: Callable[[One], Item]) -> list[One]:
    """Each record once, best first. name: of a record; of equal names, the first record stays."""
    first: dict[Item, One] = {}
    for one in chain.from_iterable(rankings):
        first.setdefault(name(one), one)
    return [first[each] for each in reciprocal_rank([map(name, one) for one in rankings])]


def fuse_frames(ranked: Hits, near: Sequence[int]) -> Hits:
    """Fuse a ranking with frames from another source. near: places in the stretches of `ranked`,
    best first; repeats are ignored."""
    fused = reciprocal_rank([ranked.places.tolist(), list(dict.fromkeys(near))])
    return hits(list(fused), list(fused.values()), ranked.stretches)


def fuse(
    rankings: Mapping[str, Sequence[Moment]],
    weights: Mapping[str, float],
    k0: float = K0,
    near_s: float = NEAR_S,
) -> list[Moment]:
    """One ranking of moments, best first, from one ranking per channel.

    Of moments of one channel that are closer than near_s, only the best stays (non-maximum
    suppression). Close moments of different channels are merged, and their scores added. rankings:
    channel -> moments, best first.
    """
    scored = [
        (_term(weights.get(channel, 1.0) * moment.share, rank, k0), channel, moment)
        for channel, moments in rankings.items()
        for rank, moment in enumerate(_suppress(moments, near_s), start=1)
    ]
    scored.sort(key=lambda one: (-one[0], one[2].video_id, one[2].start, one[1]))
    merged: defaultdict[str, list[Moment]] = defaultdict(list)  # by video
    for score, channel, moment in scored:
        if score <= 0:
            continue
        near = next(
            (i for i, other in enumerate(merged[moment.video_id]) if _gap(other, moment) < near_s),
            None,
        )
        if near is None:
            merged[moment.video_id].append(replace(moment, score=score, channels=(channel,)))
        elif channel not in merged[moment.video_id][near].channels:
            merged[moment.video_id][near] = _merge(
                merged[moment.video_id][near], moment, score, channel
            )
    return sorted(
        (m for moments in merged.values() for m in moments),
        key=lambda m: (-m.score, m.video_id, m.start),
    )


def widen(moment: Moment, seconds: float, duration: float) -> Moment:
    """The moment with so many seconds more on both sides, within the video."""
    return replace(
        moment,
        start=max(moment.start - seconds, 0.0),
        end=min(moment.end + seconds, max(duration, moment.end)),
    )


def _term(weight: float, rank: int, k0: float) -> float:
    return weight / (k0 + rank)


def _suppress(moments: Sequence[Moment], near_s: float) -> list[Moment]:
    """Drop moments near a better one; the better one takes the text of those that it overlaps."""
    best: list[Moment] = []
    places: defaultdict[str, list[int]] = defaultdict(list)  # indices into `best`, by video
    for moment in moments:
        near = next((at for at in places[moment.video_id] if _gap(best[at], moment) < near_s), None)
        if near is None:
            places[moment.video_id].append(len(best))
            best.append(moment)
        elif _gap(best[near], moment) <= 0 and len(best[near].lines) < _MAX_LINES:
            best[near] = replace(best[near], lines=(*best[near].lines, *moment.lines))
    return best


def _gap(a: Moment, b: Moment) -> float:
    """Seconds between two moments; negative if they overlap."""
    return max(a.start, b.start) - min(a.end, b.end)


def _merge(best: Moment, more: Moment, score: float, channel: str) -> Moment:
    """The best frame of the better moment, and the time span of both."""
    start, end = min(best.start, more.start), max(best.end, more.end)
    if end - start > max(4 * (best.end - best.start), _MAX_MERGED_S):
        # a slide that stays for minutes does not widen a sentence of one second
        start, end = best.start, best.end
    return replace(
        best,
        start=start,
        end=end,
        score=best.score + score,
        channels=(*best.channels, channel),
        lines=tuple(dict.fromkeys((*best.lines, *more.lines))),
    )
