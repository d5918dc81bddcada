"""Dials: settings that are tuned until the bank of an arm takes the wanted bytes an hour.

Methods that keep a quarter of the bytes each in their own way can be compared; methods at their
defaults cannot. A dial is one setting of an arm and the range in which it may be moved. It is tuned
on a film of another seed, whose questions nobody asks. Knows no answer and no score.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from encoders.errors import UserError

STEPS = 6  # encodings of the tuning film for a dial with any value
CLOSE = 0.03  # relative difference of bytes that ends the search
_FORM = re.compile(r"(?P<key>[\w.]+)=(?P<low>[\d.]+)\.\.(?P<high>[\d.]+)")

Measure = Callable[[str], float]  # an override -> bytes an hour


@dataclass(frozen=True, slots=True)
class Dial:
    """A setting, and the range in which it may be moved."""

    key: str
    low: float
    high: float
    whole: bool  # whole numbers alone

    @classmethod
    def parse(cls, text: str) -> "Dial":
        """ "compressor.threshold=0.05..0.9"; ends without a point are whole numbers. UserError on
        another form."""
        match = _FORM.fullmatch(text)
        if match is None or not float(match["low"]) < float(match["high"]):
            raise UserError(
                f"the dial {text!r} is no range of a setting; write one such as fps=0.1..1.0."
            )
        whole = "." not in match["low"] and "." not in match["high"]
        return cls(match["key"], float(match["low"]), float(match["high"]), whole)

    def override(self, value: float) -> str:
        """The override that sets it."""
        return f"{self.key}={int(value)}" if self.whole else f"{self.key}={value:.4g}"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a dial was left."""

    override: str
    bytes_per_hour: float  # of the tuning film


def tune(dial: Dial, target: float, measure: Measure) -> Setting:
    """The value whose bytes an hour come closest to the target; an end of the range where the
    target lies outside. Bytes must rise or fall with the value."""
    if dial.whole:
        values: Sequence[float] = range(int(dial.low), int(dial.high) + 1)
        every = [Setting(dial.override(value), measure(dial.override(value))) for value in values]
        return min(every, key=lambda one: abs(one.bytes_per_hour - target))
    low, high = dial.low, dial.high
    tried = {value: measure(dial.override(value)) for value in (low, high)}
    rises = tried[high] > tried[low]
    for _ in range(STEPS - 2):
        if min(abs(each - target) for each in tried.values()) <= CLOSE * target:
            break
        if not min(tried.values()) < target < max(tried.values()):
            break
        value = _between(low, high, tried[low], tried[high], target)
        tried[value] = measure(dial.override(value))
        if (tried[value] < target) == rises:
            low = value
        else:
            high = value
    best = min(tried, key=lambda value: abs(tried[value] - target))
    return Setting(dial.override(best), tried[best])


def _between(low: float, high: float, below: float, above: float, target: float) -> float:
    """Where a straight line meets the target, but not closer to an end than a tenth."""
    share = (target - below) / (above - below) if above != below else 0.5
    return low + min(max(share, 0.1), 0.9) * (high - low)
