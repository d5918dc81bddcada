"""A live source whose clock on the wall is simulated, so that a week of streams takes minutes."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from encoders.schema import Frames, VideoInfo

BATCH = 8  # frames


class DatedStream:
    """One run of a camera: a frame each second, as fast as they are taken.

    It goes on behind what the bank has of the stream, as a camera does that is started again.
    """

    is_replayable, is_idle = False, False

    def __init__(
        self,
        name: str,
        paint: Callable[[float], np.ndarray],
        seconds: int,
        wall: float,
        size: tuple[int, int],
    ) -> None:
        """paint: seconds since the run began -> [height, width, 3] uint8. wall: Unix seconds at
        which it begins. size: (width, height) of the frames."""
        self.info = VideoInfo(name, f"{name}.stream", 0.0, "simulated")
        self._paint, self._seconds, self._wall, self._size = paint, seconds, wall, size
        self.now = 0.0

    def start_clock(self, start: float) -> float:
        """As PushSource does, with the simulated clock."""
        self.now = start + 1.0 if start > 0 else 0.0
        return round(self._wall - self.now, 3)

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """All frames of the run."""
        base = self.now
        for first in range(0, self._seconds, BATCH):
            times = np.arange(first, min(first + BATCH, self._seconds), dtype=np.float64)
            pixels = np.stack([self._picture(float(at)) for at in times])
            yield Frames(self.info.video_id, pixels, times + base)
            self.now = float(times[-1]) + base

    def _picture(self, at: float) -> np.ndarray:
        return np.asarray(Image.fromarray(self._paint(at)).resize(self._size))

    def close(self) -> None:
        """Nothing to end."""
