"""Frames of a video file at a steady rate, by time stamp: decord first, PyAV where decord cannot.

Knows files, times and pixels; nothing of segments, models or banks.

A frame is sampled if it is the first at or after some k / fps, k = 0, 1, 2, ...; its true time is
reported. A gap in the file (variable frame rate) never repeats a frame. Whether a frame is sampled
depends only on it and the frame before it. So a pass from the middle meets the same frames at the
same times as a whole pass. In a damaged file, pixels may differ by rounding between two passes if
one of them saw decord fail earlier.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.schema import Frames, VideoInfo, VideoPart, ticks
from encoders.sources.container import fingerprint, inspect
from encoders.sources.decoders import DecordError, DecordReader, PyAvReader, why_not_decord


def sampling_mask(times: np.ndarray, fps: float, before: float = -math.inf) -> np.ndarray:
    """[T] bool: True for frames that are the first at or after a point of the sampling grid.
    before: time of the frame before them.
    """
    points = ticks(np.concatenate([[before], times]), fps)  # [T + 1]
    points[0] = max(points[0], -1.0)
    mask: np.ndarray = np.diff(points) > 0
    return mask


class FileSource:
    """A `FrameSource` over one file. start and end limit the pass: seconds of video time, end
    exclusive. UserError if the file cannot be used, or has no frame in that range.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float = 1.0,
        *,
        width: int,
        height: int,
        batch: int = 16,
        start: float = 0.0,
        end: float | None = None,
    ) -> None:
        self._path = Path(path)
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(f"fps={fps} for {path}: frames per second must be above 0; 1 is usual")
        if not (math.isfinite(start) and start >= 0):
            raise UserError(f"start={start} for {path}: give the start in seconds, 0 or more")
        if end is not None and not end > start:
            raise UserError(
                f"start={start} is not before end={end} for {path}; give a start below the end, in "
                "seconds"
            )
        if min(width, height, batch) < 1:
            raise ValueError(
                f"width={width}, height={height}, batch={batch}: all must be at least 1"
            )
        self._facts = inspect(self._path)
        self._fps, self._size, self._batch = fps, (width, height), batch
        self._start, self._end = start, math.inf if end is None else end
        self._id = str(VideoPart(fingerprint(self._path), start, end))
        self._why = why_not_decord(self._facts)  # reason not to use decord; empty if it is used
        self._decord_until = (
            math.inf
        )  # seconds up to which decord's pictures are used; PyAV's after that
        self._broke_at: float | None = None
        self._decoders: set[str] = set()
        self._damage: list[str] = []
        if self._why:
            self._decord_until = -math.inf
        if len(self._facts.times):
            times = self._facts.times[sampling_mask(self._facts.times, fps)]
            if not ((times >= self._start) & (times < self._end)).any():
                raise self._no_frames_error()

    @property
    def info(self) -> VideoInfo:
        """The facts so far; decoder, broke_at and note are final once iteration has ended."""
        guess = {"pyav"} if self._why else {"decord"}
        notes = [f"PyAV was used as {self._why}"] if self._why else []
        return VideoInfo(
            video_id=self._id,
            path=str(self._path),
            duration=self._facts.duration,
            decoder="+".join(sorted(self._decoders or guess)),
            broke_at=self._broke_at,
            note="; ".join(notes + self._damage),
        )

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Batches of sampled frames from `start` seconds on, `batch` frames each except
        the last.
        """
        begin = max(start, self._start)
        last = -math.inf
        if begin <= self._decord_until:
            try:
                for run in self._by_decord(begin):
                    last = float(run.times[-1])
                    yield run
            except DecordError as error:
                self._decord_until = last
                self._why = self._why or str(error) + (f" after {last:.2f} s" if last >= 0 else "")
        if self._decord_until < math.inf:
            for run in self._by_pyav(begin, last):
                last = float(run.times[-1])
                yield run
        if last < 0 and begin == self._start:
            raise self._no_frames_error()

    def _by_decord(self, begin: float) -> Iterator[Frames]:
        times = self._facts.times
        stop = min(self._end, np.nextafter(self._decord_until, math.inf))
        numbers = np.flatnonzero(
            sampling_mask(times, self._fps) & (times >= begin) & (times < stop)
        )
        if not len(numbers):
            return
        reader = DecordReader(self._facts, *self._size)
        for first in range(0, len(numbers), self._batch):
            part = numbers[first : first + self._batch]
            pixels = reader.pictures(part.tolist())
            self._decoders.add("decord")
            yield Frames(self._id, pixels, times[part])

    def _by_pyav(self, begin: float, after: float) -> Iterator[Frames]:
        """Frames from `begin` on and after the time `after`, as far as the file can be decoded."""
        reader = PyAvReader(self._facts, *self._size)
        pixels: list[np.ndarray] = []
        times: list[float] = []
        before, complete = -math.inf, True
        for time, frame in reader.frames(max(begin, after)):
            if time >= self._end:
                complete = False
                break
            is_sampled = bool(sampling_mask(np.array([time]), self._fps, before)[0])
            before = time
            if not is_sampled or time < begin or time <= after:
                continue
            self._decoders.add("pyav")
            pixels.append(reader.picture(frame))
            times.append(time)
            if len(times) == self._batch:
                yield Frames(self._id, np.stack(pixels), np.array(times))
                pixels, times = [], []
        if times:
            yield Frames(self._id, np.stack(pixels), np.array(times))
        self._record(reader.gaps, complete)

    def _record(self, gaps: list[tuple[float, float | None]], complete: bool) -> None:
        """Add what could not be decoded to the notes."""
        for good, again in gaps:
            if again is not None:
                line = f"nothing between {max(good, 0.0):.2f} s and {again:.2f} s could be decoded"
            elif complete:
                later = self._facts.times[self._facts.times > good]
                self._broke_at = (
                    float(later[0]) if len(later) else max(good, 0.0) + self._facts.step
                )
                line = f"nothing from {self._broke_at:.2f} s on could be decoded"
            else:
                continue
            if line not in self._damage:
                self._damage.append(line)

    def _no_frames_error(self) -> UserError:
        end = "its end" if self._end == math.inf else f"{self._end:g} s"
        message = f"{self._path} has no frame between {self._start:g} s and {end}"
        if self._broke_at is not None:
            return UserError(
                f"{message} that can be decoded: the file is damaged from {self._broke_at:.2f} s "
                "on, so copy or download "
                "it again, or ask for a range before that"
            )
        return UserError(
            f"{message} at {self._fps:g} frames per second; the video is "
            f"{self._facts.duration:.2f} s long, so ask for a "
            "range inside it, or for more frames per second"
        )
