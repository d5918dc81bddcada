"""Two decoders of files with one purpose: pictures at known times, scaled and turned upright.

They know the facts of a `Container` and pixels; no sampling rate, no batches of a bank and no user
errors. Both scale bilinearly, as decord does; their pictures differ by at most 0.3 of 255 levels in
the mean.
"""

import math
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from encoders.sources.container import Container

# Formats in which decord seeks exactly. In MPEG-TS, `get_batch` returns pictures one second off.
_DECORD_KINDS = ("mov,mp4", "matroska", "avi")
# pictures between keyframes: each batch decodes from a keyframe, so long runs cost quadratic time
_DECORD_RUN = 3000
_CLOCK_S = 5e-3  # decord reports times in float32, which is off by 2 ms after ten hours
_SEEK_S = (1.0, 30.0)  # seconds before the target to seek to: containers seek by decoding time


class DecordError(Exception):
    """decord cannot open the file, or cannot continue."""


def why_not_decord(facts: Container) -> str:
    """The reason not to use decord for this file; empty if there is none."""
    if not facts.kind.startswith(_DECORD_KINDS):
        return f"decord seeks wrongly in {facts.kind}"
    if not len(facts.times):
        return "the file has no time stamps"
    if facts.cut_off:
        return "the file is cut off at its end"
    # decord fails at a place that depends on how far it decoded ahead, so two passes would differ
    if facts.torn:
        return "the file is damaged inside"
    if facts.longest_run > _DECORD_RUN:
        return f"{facts.longest_run} pictures lie between two keyframes, too many for decord"
    return ""


class DecordReader:
    """Pictures by number, in rising order. One thread; memory bounded by the scaled size."""

    def __init__(self, facts: Container, width: int, height: int) -> None:
        try:
            # imported here: it has no wheel for some machines, where PyAV does all the work
            import decord
        except ImportError as error:
            raise DecordError("decord is not installed") from error
        decord.logging.set_level(decord.logging.QUIET)
        self._errors = (decord.DECORDError, IndexError)
        try:
            self._reader = decord.VideoReader(
                str(facts.path), num_threads=1, width=width, height=height
            )
        except (*self._errors, RuntimeError) as error:
            raise DecordError(f"decord cannot open this file ({facts.codec})") from error
        if len(self._reader) != len(facts.times):  # decord hangs when it reads past the real end
            raise DecordError(
                f"decord counts {len(self._reader)} pictures, the file holds {len(facts.times)}"
            )
        self._times = facts.times

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        """[len(numbers), height, width, 3] uint8. DecordError if one of them cannot be decoded."""
        try:
            shown = np.asarray(self._reader.get_frame_timestamp(list(numbers)))[:, 0]
            pixels: np.ndarray = self._reader.get_batch(list(numbers)).asnumpy()
            # frees what was decoded ahead: 119 MB instead of 560 MB on a 640 x 480 file
            self._reader.seek(0)
        except self._errors as error:
            raise DecordError("decord cannot decode on") from error
        if np.abs(shown - self._times[list(numbers)]).max() > _CLOCK_S:
            raise DecordError("decord and the container disagree about time")
        return pixels


class PyAvReader:
    """Pictures in time order from a given time on. Skips from damage to the next keyframe; never
    returns a picture that the decoder reports as damaged.

    After iteration, `gaps` lists what could not be decoded: (last good time, next good time or None
    if none came).
    """

    def __init__(self, facts: Container, width: int, height: int) -> None:
        self._facts, self._size = facts, (width, height)
        self._scaler = VideoReformatter()
        self.gaps: list[tuple[float, float | None]] = []

    def frames(self, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Every picture with its time, from one before `start` (if there is one) to the end, in
        strictly rising order.
        """
        for back in (*_SEEK_S, math.inf):
            target = start - back if len(self._facts.times) else -math.inf
            with av.open(str(self._facts.path), metadata_errors="replace") as container:
                if target > 0:
                    container.seek(
                        self._stamp(target), stream=container.streams[self._facts.stream]
                    )
                shown = self._decode(container)
                first = next(shown, None)
                if first is not None and (first[0] < start or target <= 0):
                    yield first
                    yield from shown
                    return

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """[height, width, 3] uint8 RGB, scaled, then turned by the file's rotation flag."""
        turns = frame.rotation // 90 % 4  # counterclockwise; decord applies the flag itself
        width, height = self._size if turns % 2 == 0 else self._size[::-1]
        scaled = self._scaler.reformat(
            frame, width, height, "rgb24", interpolation="BILINEAR"
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(scaled, turns))

    def _stamp(self, seconds: float) -> int:
        return self._facts.zero + int(seconds / self._facts.clock)

    def _decode(
        self, container: "av.container.InputContainer"
    ) -> Iterator[tuple[float, av.VideoFrame]]:
        self.gaps = []
        last, is_damaged = -1.0, False  # last good time; True after damage
        for number, frame in self._numbered(container):
            if frame is None:
                is_damaged = True
                continue
            # raw streams: the time is the picture's number divided by the rate
            if frame.pts is None or not len(self._facts.times):
                time = number / self._facts.rate
            else:
                time = self._facts.seconds(frame.pts)
            if time <= last:
                continue
            if is_damaged:
                self.gaps.append((last, time))
            last, is_damaged = time, False
            yield time, frame
        if is_damaged or self._facts.cut_off:
            self.gaps.append((last, None))

    def _numbered(
        self, container: "av.container.InputContainer"
    ) -> Iterator[tuple[int, av.VideoFrame | None]]:
        number = 0
        for frame in self._whole(container):
            yield number, frame
            number += frame is not None

    def _whole(self, container: "av.container.InputContainer") -> Iterator[av.VideoFrame | None]:
        """Undamaged frames; None where frames were lost. Everything between damage and the next
        keyframe is lost.
        """
        stream = container.streams[self._facts.stream]
        assert isinstance(stream, av.VideoStream)
        coder = stream.codec_context
        # more threads would lose the pictures in flight at every damaged packet
        coder.thread_count = 1
        # waiting for a keyframe; its time stamp, because earlier pictures depend on lost ones
        waiting, floor = False, None
        fresh = True
        for packet in self._packets(container, stream):
            if packet is None:
                yield None
                return
            if waiting and not packet.is_keyframe:
                continue
            if packet.is_keyframe and (waiting or fresh):
                waiting, floor = False, packet.pts
            fresh = False
            try:
                frames = coder.decode(packet)
            except av.FFmpegError:
                waiting = True
                frames = self._drain(coder)
            for frame in frames:
                if frame.is_corrupt:
                    waiting = True
                elif floor is None or frame.pts is None or frame.pts >= floor:
                    yield frame
            if waiting:
                self._drain(coder)
                yield None

    @staticmethod
    def _packets(
        container: "av.container.InputContainer", stream: av.VideoStream
    ) -> Iterator["av.Packet[av.VideoStream] | None"]:
        try:
            yield from container.demux(stream)
        except av.FFmpegError:
            yield None

    @staticmethod
    def _drain(coder: av.VideoCodecContext) -> list[av.VideoFrame]:
        """The pictures that the decoder still holds back; resets the decoder for a new start."""
        try:
            delayed = coder.decode(None)
        except av.FFmpegError:
            delayed = []
        coder.flush_buffers()
        return delayed
