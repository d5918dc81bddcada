"""Scores of an answer about needles: right or wrong, and whether its citations hold the needles.

Knows no model and no statistics; intervals are in `pipeline.scoring`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.needle_world.video import PlacedNeedle
from pipeline.scorers.citation_f1 import support


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """The result of one question."""

    video: str
    family: str
    right: bool
    # whether every needle of the question lies in a cited span; None without needles
    cited: bool | None
    # for each cited span, whether it holds one of the question's needles
    spans: tuple[bool, ...] = ()


def cites_all(spans: Sequence[tuple[float, float]], needles: Sequence[PlacedNeedle]) -> bool | None:
    """Whether a cited span overlaps each needle's time; None without needles."""
    if not needles:
        return None
    return all(support([(one.start, one.end) for one in needles], spans))


def on_needles(
    spans: Sequence[tuple[float, float]], needles: Sequence[PlacedNeedle]
) -> tuple[bool, ...]:
    """For each cited span, whether it overlaps one of the needles."""
    return support(spans, [(one.start, one.end) for one in needles])
