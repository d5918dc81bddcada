"""Which frames are worth reading: where print comes or changes, as seldom as is allowed. Knows pixels and times; no OCR.

Print is many sharp edges close together. A frame is cut into tiles; a tile with that much detail is new when nothing like it
(normalised correlation) lies around its place in the frame that was read last: a camera that wanders or zooms a little makes
nothing new. A frame with new tiles is read when it has come to rest (the same against the frame before it) or has been waited
for. Readings are paid from a credit that grows with time; what is left over goes to pictures that changed without such tiles,
as print can also be large and soft.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

POLICIES = ("change", "steady", "scene")
_WIDE = 640  # pixels of the reduced picture
_TILE = (40, 80)  # rows, columns
_REACH = 14  # pixels that a tile may have moved
_STROKE = 40  # levels between neighbouring pixels that count as an edge
_MIN_EDGE_SHARE = 0.07  # share of edges that print has at least
_MIN_CORRELATION = 0.6  # correlation from which on a tile is the same
_SCENE = 12.0  # levels by which a picture as a whole changes, in the mean
_SMALL_CHANGE = 3.0  # the same, for reading what credit is left for


@dataclass(frozen=True)
class _FrameSketch:
    light: np.ndarray  # [rows, columns] uint8
    busy: list[tuple[int, int]]  # tiles with as much detail as print has: first row, first column
    coarse: np.ndarray  # [9, 16] float32


@dataclass
class KeyframeSelector:
    """State of one stretch of a video.

    rate: readings that are earned a second; credit: those that may be made at once, at first and at most.
    policy: change (print comes or changes), steady (whenever there is credit), scene (the whole picture changes).
    new: tiles that make a change. patience: seconds that a changing picture is waited for.
    refresh: seconds after which a picture is read again though nothing seems to have changed; 0 = never.
    """

    rate: float
    credit: float = 4.0
    policy: str = "change"
    new: int = 1
    patience: float = 1.0
    refresh: float = 0.0
    # seconds: since when the picture is not the one that was read last
    changed_at: float | None = None
    _most: float = field(default=0.0, repr=False)
    _read: _FrameSketch | None = field(default=None, repr=False)
    _before: _FrameSketch | None = field(default=None, repr=False)
    _read_at: float = 0.0
    _at: float | None = None

    def __post_init__(self) -> None:
        self._most = self.credit

    def wants(self, picture: np.ndarray, time: float) -> bool:
        """Whether this frame is to be read. picture: [height, width, 3] uint8; time: seconds, rising."""
        sketch = _sketch(picture)
        self.credit = min(
            self._most, self.credit + (0.0 if self._at is None else (time - self._at) * self.rate)
        )
        before, self._before, self._at = self._before, sketch, time
        if not self._due(sketch, before, time) or self.credit < 1 - 1e-9:
            return False
        self.credit -= 1
        self._read, self._read_at = sketch, time
        return True

    def _due(self, sketch: _FrameSketch, before: _FrameSketch | None, time: float) -> bool:
        last = self._read
        if last is None or self.policy == "steady":
            return True
        if self.policy == "scene":
            changed = _change(sketch, last) > _SCENE
            self.changed_at = (
                None if not changed else self.changed_at if self.changed_at is not None else time
            )
            return changed
        changed = self._has_new_tiles(sketch, last)
        self.changed_at = (
            None if not changed else self.changed_at if self.changed_at is not None else time
        )
        if changed and self.changed_at is not None:
            return (
                before is None
                or time - self.changed_at >= self.patience
                or not self._has_new_tiles(sketch, before)
            )
        left_over = self.credit >= 2 and _change(sketch, last) > _SMALL_CHANGE
        return left_over or (self.refresh > 0 and time - self._read_at >= self.refresh)

    def _has_new_tiles(self, sketch: _FrameSketch, last: _FrameSketch) -> bool:
        new_tiles = 0
        for row, column in sketch.busy:
            new_tiles += (
                _best_match(
                    sketch.light[row : row + _TILE[0], column : column + _TILE[1]],
                    last.light,
                    row,
                    column,
                )
                < _MIN_CORRELATION
            )
            if new_tiles >= self.new:
                return True
        return False


def _sketch(picture: np.ndarray) -> _FrameSketch:
    width = min(_WIDE, picture.shape[1])
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    light = cv2.resize(
        cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (width, height), interpolation=cv2.INTER_AREA
    )
    signed = light.astype(np.int16)
    edges = np.zeros(light.shape, np.float32)
    edges[:, 1:] = np.abs(np.diff(signed, axis=1)) > _STROKE
    sums = cv2.integral(edges)
    busy = []
    for row in range(0, max(height - _TILE[0], 0) + 1, _TILE[0] // 2):
        for column in range(0, max(width - _TILE[1], 0) + 1, _TILE[1]):
            bottom, right = min(row + _TILE[0], height), min(column + _TILE[1], width)
            count = (
                sums[bottom, right] - sums[row, right] - sums[bottom, column] + sums[row, column]
            )
            if count >= _MIN_EDGE_SHARE * (bottom - row) * (right - column):
                busy.append((row, column))
    coarse = cv2.resize(light, (16, 9), interpolation=cv2.INTER_AREA).astype(np.float32)
    return _FrameSketch(light, busy, coarse)


def _change(sketch: _FrameSketch, last: _FrameSketch) -> float:
    return float(np.abs(sketch.coarse - last.coarse).mean())


def _best_match(tile: np.ndarray, light: np.ndarray, row: int, column: int) -> float:
    """How much the likest place around (row, column) of the other picture is like this tile: -1..1."""
    top, left = max(row - _REACH, 0), max(column - _REACH, 0)
    around = light[top : row + tile.shape[0] + _REACH, left : column + tile.shape[1] + _REACH]
    if around.shape[0] < tile.shape[0] or around.shape[1] < tile.shape[1]:
        return 0.0
    return float(cv2.matchTemplate(around, tile, cv2.TM_CCOEFF_NORMED).max())
