"""Pictures that a caller hands in while they happen; the base of other live sources.

Knows clocks, threads and pixels; nothing of segments, models or banks. A picture is sampled if it
is the first at or after a point of the sampling grid. Sampled frames wait in a short queue. A new
frame pushes the oldest one out of a full queue, and the loss is counted. So an encoded frame is
never older than the queue is long.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from encoders.detail import needed_detail
from encoders.errors import UserError
from encoders.schema import Frames, VideoInfo
from encoders.sources import orientation
from encoders.sources.pictures import scaled_down
from encoders.sources.sampling import sampling_mask
from encoders.sources.thumbnail_maker import ThumbnailMaker


class PushSource:
    """Pictures that the caller hands in: `push` from any thread, `frames` in another. The base of
    other live sources.
    """

    is_replayable = False

    def __init__(
        self,
        name: str,
        fps: float = 1.0,
        *,
        width: int,
        height: int,
        queue_frames: int = 8,
        path: str | None = None,
    ) -> None:
        """name: of the stream; the same name in the same bank continues it. queue_frames: sampled
        frames that may wait. UserError on bad values.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise UserError(
                f"{name!r} cannot name a stream; use up to 64 letters, digits, dots, dashes and "
                "underscores"
            )
        if not (fps > 0 and fps < float("inf")):
            raise UserError(
                f"fps={fps} for {path or name}: frames per second must be above 0; 1 is usual"
            )
        self._name, self._path = name, path or name
        self._fps, self._size, self._depth = fps, (width, height), max(1, queue_frames)
        # width over height of the first picture -> (width, height) of all frames; None: as given
        self.fit: Callable[[float], tuple[int, int]] | None = None
        self.thumbnail: ThumbnailMaker | None = None  # None: frames come without thumbnails
        self._detail: tuple[int, int] | None = None
        # one for each size
        self._scaler, self._thumbnail_scaler = VideoReformatter(), VideoReformatter()
        self._detail_scaler = VideoReformatter()
        self._waiting: deque[Frames] = deque()
        self._news = threading.Condition()
        self._closed = threading.Event()
        self._error: Exception | None = None
        self._has_started = False
        # video time `base` was at the monotonic second `zero`
        self._base, self._zero = 0.0, time.monotonic()
        self._before = -np.inf  # time of the last picture
        self.frames_sampled = 0  # sampled so far
        self.dropped = 0  # of them, pushed out of the queue
        # of the points of the sampling grid, one in so many has a frame: for an encoder that cannot
        # keep up
        self.thinning = 1
        self.left_out = 0  # frames that were not sampled for it
        self._chosen = 0
        self.reconnects = 0

    @property
    def info(self) -> VideoInfo:
        return VideoInfo(self._name, self._path, 0.0, "pyav")

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    @property
    def urgency(self) -> tuple[float, float]:
        """The share of the queue that is full, and seconds that the oldest frame in it has waited:
        how soon frames are lost."""
        with self._news:
            oldest = self._waiting[0] if self._waiting else None
            share = len(self._waiting) / self._depth
        return share, 0.0 if oldest is None else self.now - float(oldest.times[0])

    @property
    def now(self) -> float:
        return max(self._base + time.monotonic() - self._zero, float(self._before))

    def start_clock(self, start: float) -> float:
        """`start` is this moment; or one sampling interval ago, if it is the last frame of an
        earlier session.
        """
        self._base = start + 1 / self._fps if start > 0 else 0.0
        self._zero = time.monotonic()
        self._has_started = True
        return round(time.time() - self._base, 3)

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """One frame at a time until the source is closed; any other end raises its error."""
        while True:
            with self._news:
                while not self._waiting and not self._closed.is_set() and self._error is None:
                    self._news.wait(0.5)
                if not self._waiting:
                    if self._error is not None and not self._closed.is_set():
                        raise self._error
                    return
                frames = self._waiting.popleft()
            yield frames

    def push(self, picture: "av.VideoFrame | np.ndarray", at: float | None = None) -> bool:
        """Hand in a picture: [height, width, 3] uint8 RGB, or a decoded frame. at: seconds of video
        time; None = now. Returns True if it was sampled. Ignores pictures before `start_clock`, and
        pictures that are not later than the last one.
        """
        at = self.now if at is None else at
        with self._news:
            if not self._has_started or at <= self._before or self._closed.is_set():
                return False
            chosen = bool(sampling_mask(np.array([at]), self._fps, self._before)[0])
            self._before = at
        if not chosen:
            return False
        self._chosen += 1
        if self._chosen % self.thinning:
            self.left_out += 1
            return False
        frame = self._frames(picture, at)
        with self._news:
            self.frames_sampled += 1
            if len(self._waiting) == self._depth:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(frame)
            self._news.notify_all()
        return True

    def close(self) -> None:
        self._closed.set()
        with self._news:
            self._news.notify_all()

    def add_detail(self, size: tuple[int, int]) -> None:
        """Scale later pictures to this (width, height) as well."""
        self._detail = size

    def _frames(self, picture: "av.VideoFrame | np.ndarray", at: float) -> Frames:
        """The picture as one frame, turned and mirrored as the stream says."""
        frame = (
            picture
            if isinstance(picture, av.VideoFrame)
            else av.VideoFrame.from_ndarray(picture, format="rgb24")
        )
        is_lying = orientation.is_lying(orientation.matrix(frame))
        width, height = (frame.width, frame.height)[:: -1 if is_lying else 1]
        if self.fit is not None:
            self._size = self.fit(width / height)
            self.fit = None  # frames of one stream have one size
        pixels, jpegs, large = _upright(frame, self._scaler, self._size), None, None
        if self.thumbnail is not None:
            size = scaled_down(width, height, self.thumbnail.size)
            jpegs = (self.thumbnail(_upright(frame, self._thumbnail_scaler, size)),)
        detail = self._detail and needed_detail(self._size, self._detail)
        if detail is not None:
            large = _upright(frame, self._detail_scaler, detail)[None]
        return Frames(self._name, pixels[None], np.array([at]), jpegs, large)

    def _fail(self, error: Exception) -> None:
        """End the stream with an error, after the waiting frames are delivered."""
        with self._news:
            self._error = error
            self._news.notify_all()


def _upright(frame: av.VideoFrame, scaler: VideoReformatter, size: tuple[int, int]) -> np.ndarray:
    """[height, width, 3] uint8, turned and mirrored as the stream says. size: (width, height)."""
    signs = orientation.matrix(frame)
    width, height = size[:: -1 if orientation.is_lying(signs) else 1]
    scaled = scaler.reformat(frame, width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
    return orientation.upright(scaled, signs)
