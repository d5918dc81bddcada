"""Select the frames worth reading: where text appears or changes, as rarely as allowed. Knows
pixels and times; no OCR.

Text is many sharp edges close together. A frame is divided into tiles. A tile with enough detail is
new if nothing similar (normalized correlation) is near its place in the frame that was read last;
so a camera that drifts or zooms a little makes no new tiles. A frame with new tiles is read once it
is still (no new tiles against the frame before it) or after a limit. Readings are paid from a
credit that grows with time. Unused credit goes to pictures that changed without such tiles, because
text can also be large and soft.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

POLICIES = ("change", "steady", "scene")
_WIDE = 640  # width in pixels of the reduced picture
_TILE = (40, 80)  # rows, columns
_REACH = 14  # pixels that a tile may have moved
_STROKE = 40  # levels between neighboring pixels that make an edge
_MIN_EDGE_SHARE = 0.07  # minimum share of edge pixels in a tile of text
_MIN_CORRELATION = 0.6  # correlation from which on a tile counts as the same
_SCENE = 12.0  # mean change in levels of a whole picture that makes a new scene
_SMALL_CHANGE = 3.0  # mean change in levels that spends unused credit


@dataclass(frozen=True)
class _FrameSketch:
    light: np.ndarray  # [rows, columns] uint8
    busy: list[tuple[int, int]]  # tiles with the detail of text: first row, first column
    coarse: np.ndarray  # [9, 16] float32


@dataclass
class KeyframeSelector:
    """State of one text span of a video.

    rate: credit per second; credit: readings allowed at once, at first and at most.
    policy: change (text appears or changes), steady (whenever there is credit), scene (the whole
    picture changes).
    new: number of new tiles that make a change. patience: seconds to wait for a changing picture to
    become still.
    refresh: seconds after which an apparently unchanged picture is read again; 0 = never.
    """

    rate: float
    credit: float = 4.0
    policy: str = "change"
    new: int = 1
    patience: float = 1.0
    refresh: float = 0.0
    # seconds: since when the picture differs from the one read last
    changed_at: float | None = None
    _most: float = field(default=0.0, repr=False)
    _read: _FrameSketch | None = field(default=None, repr=False)
    _before: _FrameSketch | None = field(default=None, repr=False)
    _read_at: float = 0.0
    _at: float | None = None

    def __post_init__(self) -> None:
        self._most = self.credit

    def wants(self, picture: np.ndarray, time: float) -> bool:
        """True if this frame is to be read. picture: [height, width, 3] uint8; time: seconds,
        rising.
        """
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
    """Correlation of the tile with the most similar place around (row, column) of the other
    picture: -1..1.
    """
    top, left = max(row - _REACH, 0), max(column - _REACH, 0)
    around = light[top : row + tile.shape[0] + _REACH, left : column + tile.shape[1] + _REACH]
    if around.shape[0] < tile.shape[0] or around.shape[1] < tile.shape[1]:
        return 0.0
    return float(cv2.matchTemplate(around, tile, cv2.TM_CCOEFF_NORMED).max())
