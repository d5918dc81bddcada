"""The sound of a video in stretches that are recognized one by one. Knows sound; no recognizer.

Each stretch of about SPAN_S seconds ends at the quietest moment of its last PAUSE_S seconds; speech
without a pause for that long may lose a word there. From any border, the same borders follow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encoders.sources.container import Container
from encoders.text.speech import sound

SPAN_S = 120.0
PAUSE_S = 12.0  # people pause for breath several times within it


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some sound between two seconds of video time."""

    start: float  # seconds: where the stretch before ends
    begin: float  # seconds: of the first sample
    end: float  # seconds
    samples: np.ndarray  # [n] int16 at 16 kHz; shorter where the track ends
    is_last: bool

    @property
    def is_loud(self) -> bool:
        """False for silence."""
        return sound.loudness(self.samples) > sound.SILENT


def stretches(facts: Container, begin: float, end: float, after: float) -> Iterator[Stretch]:
    """From `after` to `end`, without gaps; sound counts from `begin` on. Seconds of video time."""
    at, is_last = after, False
    while not is_last:
        first = max(at, begin)
        stop = min(((at + PAUSE_S) // SPAN_S + 1) * SPAN_S, end)
        is_last = stop >= end
        samples = sound.interval(facts, first, stop)
        quiet_from = stop - PAUSE_S
        if not is_last and quiet_from > first:
            stop = quiet_from + sound.pause(samples[round((quiet_from - first) * sound.RATE) :])
            samples = samples[: round((stop - first) * sound.RATE)]
        yield Stretch(at, first, stop, samples, is_last)
        at = stop
