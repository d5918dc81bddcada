"""Repeated sightings of the same thing -> one line with a start and an end. Knows names, boxes and
times; no pictures.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from encoders.text.lines import TextLine
from encoders.text.sightings.detector import Sighting

Box = tuple[float, float, float, float]


@dataclass
class _OpenLine:
    best: Sighting  # the surest one until the line was known
    box: Box | None  # of the newest sighting
    start: float
    seen_at: float  # second of the newest sighting
    missed_at: float | None = None  # second since which it is not seen
    known_at: float | None = None  # second of the reading from which on it had lasted long enough


class SightingTracker:
    """State of one text span.

    A sighting with `score` or more begins a line; weaker ones can only continue it, as in ByteTrack
    (Zhang et al., arXiv 2110.06864). A sighting lasts until the picture changes before the next
    reading. A thing that is seen again within `gap` seconds continues its line; of several of a
    name, the one whose box is nearest. Lines shorter than `minimum` seconds are left out. A line is
    known from the reading on at which it had lasted that long, and has the score and the box of its
    surest sighting until then.

    kind: of the lines.
    """

    def __init__(self, video_id: str, kind: str, score: float, gap: float, minimum: float) -> None:
        self._video_id, self._kind = video_id, kind
        self._score, self._gap, self._minimum = score, gap, minimum
        self._open: list[_OpenLine] = []
        self._lines: list[TextLine] = []

    def take(self, time: float, reading: Iterable[Sighting], changed_at: float) -> None:
        """Add what is seen at `time`, the surest first. changed_at: since when the picture differs
        from the one read before.
        """
        self._end(
            line
            for line in self._open
            if line.missed_at is not None and time - line.missed_at > self._gap
        )
        for line in self._open:
            if line.missed_at is None:  # unless it is seen once more, below
                line.missed_at = max(changed_at, line.seen_at)
        left = list(self._open)
        for sighting in reading:
            same = [line for line in left if line.best.name == sighting.name]
            if not same and sighting.score < self._score:
                continue
            if not same:
                self._open.append(_OpenLine(sighting, sighting.box, time, time))
                continue
            line = min(same, key=lambda one: _distance(one.box, sighting.box))
            left.remove(line)
            if line.known_at is None and sighting.score > line.best.score:
                line.best = sighting
            line.box, line.seen_at, line.missed_at = sighting.box, time, None
        for line in self._open:
            end = time if line.missed_at is None else line.missed_at
            if line.known_at is None and self._is_long_enough(line, end):
                line.known_at = time

    def finish(self, end: float) -> tuple[TextLine, ...]:
        """All lines of the text span, which ends at `end`, in time order."""
        for line in self._open:
            line.missed_at = end if line.missed_at is None else line.missed_at
            if line.known_at is None and self._is_long_enough(line, line.missed_at):
                line.known_at = end
        self._end(list(self._open))
        return tuple(sorted(self._lines, key=lambda line: (line.start, line.box or (), line.text)))

    def _is_long_enough(self, line: _OpenLine, end: float) -> bool:
        return end - line.start >= self._minimum - 1e-6  # times are rounded

    def _end(self, lines: Iterable[_OpenLine]) -> None:
        for line in list(lines):
            self._open.remove(line)
            if line.known_at is None or line.missed_at is None:
                continue
            self._lines.append(
                TextLine(
                    self._video_id,
                    line.start,
                    max(line.missed_at, line.seen_at + 1e-3),
                    self._kind,
                    line.best.name,
                    line.known_at,
                    line.best.score,
                    line.best.box,
                )
            )


def _distance(a: Box | None, b: Box | None) -> float:
    """Between the middles of two boxes, squared; 0 where there are none."""
    if a is None or b is None:
        return 0.0
    across, down = a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]
    return across**2 + down**2
