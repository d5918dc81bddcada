"""Arithmetic of spans: stretches of video time in seconds, half open.

Knows nothing of what they are of.
"""

from collections.abc import Iterable

Span = tuple[float, float]  # seconds: start, and the end that is not part of it


def union(spans: Iterable[Span], gap: float = 0.0) -> list[Span]:
    """Spans in time order, those that overlap or are at most `gap` seconds apart as one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def length(spans: Iterable[Span]) -> float:
    """Seconds that the spans cover; a second that several cover counts once."""
    return sum(end - start for start, end in union(spans))


def common(one: Iterable[Span], other: Iterable[Span]) -> float:
    """Seconds that both sides cover."""
    theirs = union(other)
    return sum(max(0.0, min(b, d) - max(a, c)) for a, b in union(one) for c, d in theirs)


def iou(one: Iterable[Span], other: Iterable[Span]) -> float:
    """Intersection over union: seconds that both sides cover over those that either covers.

    0 where neither covers any. Also of several spans a side, as in CG-Bench (arXiv 2412.12075).
    """
    own, theirs = union(one), union(other)
    both = common(own, theirs)
    either = length(own) + length(theirs) - both
    return both / either if either > 0 else 0.0


def overlap(one: Span, other: Span) -> bool:
    """Whether two spans share time. A span without length, a moment, lies within the other."""
    return one[0] < other[1] and other[0] < one[1]
