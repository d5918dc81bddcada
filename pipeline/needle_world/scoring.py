"""Was the answer right, did the citation hold the needle, and how sure is the number. Knows no model.

Intervals are bootstrapped over videos (questions of one video are not independent), 95 %, seeded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.needle_world.video import Shown


@dataclass(frozen=True, slots=True)
class Scored:
    """One question's result."""

    video: str
    family: str
    right: bool
    # every needle of the question lies in a cited span; None when the question has no needle
    cited: bool | None
    # of each cited span: whether it holds one of the question's needles
    spans: tuple[bool, ...] = ()


def holds(spans: Sequence[tuple[float, float]], needles: Sequence[Shown]) -> bool | None:
    """Whether each needle's time overlaps a cited span; None without needles."""
    if not needles:
        return None
    return all(any(a < n.end and n.start < b for a, b in spans) for n in needles)


def touching(spans: Sequence[tuple[float, float]], needles: Sequence[Shown]) -> tuple[bool, ...]:
    """Of each span, whether one of the needles overlaps it."""
    return tuple(any(a < n.end and n.start < b for n in needles) for a, b in spans)
