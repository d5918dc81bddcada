"""Frames of live streams: from URLs, cameras, and pages that push pictures; and of files that are
played.

Knows PyAV, clocks and threads; nothing of segments, models or banks.

Time. A picture's time is the moment of its arrival, smoothed by the stream's own time stamps: they
give its distance from the first picture of the connection. Pictures that arrive early, as in HLS,
wait until they are due. Video time continues while a stream is interrupted, so its distance to
wall-clock time is constant over a session.

Sampling is that of files (encoders/sources/file.py). Sampled frames wait in a short queue. A new
frame pushes the oldest one out of a full queue, and the loss is counted. So an encoded frame is
never older than the queue is long.
"""

import hashlib
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from encoders.errors import SourceClosed, UserError
from encoders.schema import Frames, FrameSource, ResumableSource, VideoInfo
from encoders.sources import orientation
from encoders.sources.container import video_stream
from encoders.sources.live_connection import Connection
from encoders.sources.sampling import sampling_mask

# scheme -> protocols that FFmpeg may open for it: a playlist must not lead to files of this machine
_SCHEMES = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsps,rtsp,rtp,srtp,tcp,udp,tls,crypto",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tcp,tls",
    "tcp": "tcp",
    "udp": "udp",
    "http": "http,https,tcp,tls,crypto,hls",
    "https": "http,https,tcp,tls,crypto,hls",
}
_DEVICES = ("v4l2", "avfoundation", "dshow")  # of Linux, macOS, Windows
_CAMERA = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}
_POLL_S = 0.1
# times the limit of one packet: a connection without a packet of its stream for so long is given up
_SILENT_TIMES = 2
_LATE_S, _EARLY_S = 3.0, 15.0  # seconds from the due time; a picture further off restarts the count


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
        self._scaler = VideoReformatter()
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
        self.reconnects = 0

    @property
    def info(self) -> VideoInfo:
        return VideoInfo(self._name, self._path, 0.0, "pyav")

    @property
    def is_idle(self) -> bool:
        return not self._waiting

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
        frame = Frames(self._name, self._scaled(picture)[None], np.array([at]))
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

    def _scaled(self, picture: "av.VideoFrame | np.ndarray") -> np.ndarray:
        """[height, width, 3] uint8, turned and mirrored as the stream says."""
        frame = (
            picture
            if isinstance(picture, av.VideoFrame)
            else av.VideoFrame.from_ndarray(picture, format="rgb24")
        )
        signs = orientation.matrix(frame)
        if self.fit is not None:
            ratio = frame.width / frame.height
            self._size = self.fit(1 / ratio if orientation.is_lying(signs) else ratio)
            self.fit = None  # frames of one stream have one size
        width, height = self._size[:: -1 if orientation.is_lying(signs) else 1]
        scaled = self._scaler.reformat(
            frame, width, height, "rgb24", interpolation="BILINEAR"
        ).to_ndarray()
        return orientation.upright(scaled, signs)

    def _fail(self, error: Exception) -> None:
        """End the stream with an error, after the waiting frames are delivered."""
        with self._news:
            self._error = error
            self._news.notify_all()


class UrlSource(PushSource):
    """A URL (rtsp, rtmp, http with HLS or a file, tcp, udp) or a camera (`camera:0`,
    `v4l2:/dev/video0`, `avfoundation:0`, `dshow:video=NAME`), through PyAV. After a stall or a
    break it reconnects, first soon, then at growing intervals. A stream that cannot be reached the
    first time, or for `give_up_s`, ends with a UserError.
    """

    def __init__(
        self,
        url: str,
        fps: float = 1.0,
        *,
        width: int,
        height: int,
        name: str | None = None,
        queue_frames: int = 8,
        timeout_s: tuple[float, float] = (10.0, 5.0),
        back_off_s: tuple[float, float] = (0.5, 15.0),
        give_up_s: float = 300.0,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """name: of the stream in the bank; None = derived from the URL without its password.
        timeout_s: for connecting, and for the next picture. back_off_s: the first pause before
        reconnecting, and the longest. options: FFmpeg's own.
        """
        self._file, self._format, allowed = _target(url)
        self._display_url = without_password(url)
        super().__init__(
            name or "live-" + hashlib.sha256(self._display_url.encode()).hexdigest()[:12],
            fps,
            width=width,
            height=height,
            queue_frames=queue_frames,
            path=self._display_url,
        )
        # HLS arrives in chunks of seconds, and a file all at once
        self._in_bursts = url.startswith("http")
        self._timeout_s, self._back_off_s, self._give_up_s = timeout_s, back_off_s, give_up_s
        self._options = {"protocol_whitelist": allowed} if allowed else {}
        if url.startswith("rtsp"):
            self._options["rtsp_transport"] = "tcp"  # over UDP, lost packets show as torn pictures
        self._options |= dict(options or {})
        self._thread = threading.Thread(target=self._feed, name="live-source", daemon=True)

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        self._thread.start()
        yield from super().frames(start)

    def close(self) -> None:
        super().close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(sum(self._timeout_s) + 1)

    def _feed(self) -> None:
        """Connect, push, and reconnect."""
        pause, last, is_known = self._back_off_s[0], time.monotonic(), False
        try:
            while not self._closed.is_set():
                connection = Connection(self._read)
                error = self._end_of(connection)
                if self._closed.is_set():
                    return
                if connection.last_picture is not None:
                    pause, last, is_known = self._back_off_s[0], connection.last_picture, True
                reason = _reason(error)
                if not (is_known or isinstance(error, _StreamsChangedError)):
                    raise UserError(
                        f"{self._display_url} gives no picture ({reason}); check the address, and "
                        "that it is running"
                    )
                if time.monotonic() - last > self._give_up_s:
                    raise UserError(
                        f"{self._display_url} was lost ({reason}) and could not be reached for "
                        f"{self._give_up_s:g} s"
                    )
                self._closed.wait(pause)
                pause = min(2 * pause, self._back_off_s[1])
                self.reconnects += 1
        except Exception as error:  # raised again in the thread that takes the frames
            self._fail(error)

    def _read(self, connection: Connection) -> None:
        """Push the pictures of one connection."""
        with av.open(
            self._file,
            format=self._format,
            options=self._options,
            timeout=self._timeout_s,
            metadata_errors="replace",
        ) as container:
            for picture, at in self._due(container, connection):
                self.push(picture, at)
                connection.count_picture()

    def _end_of(self, connection: Connection) -> Exception | None:
        """Wait for the end of a connection; why it ended. An error that no new connection can mend
        is raised.
        """
        while not connection.wait(_POLL_S) and not self._closed.is_set():
            if connection.silent_for(_SILENT_TIMES * self._timeout_s[1]):
                connection.is_abandoned = True
                return _StreamsChangedError()
        if self._closed.is_set():
            connection.wait(sum(self._timeout_s))
        error = connection.error
        # ValueError: a format that this FFmpeg lacks
        if error is None or isinstance(
            error, (av.FFmpegError, OSError, ValueError, _StreamsChangedError)
        ):
            return error
        raise error

    def _due(
        self, container: "av.container.InputContainer", connection: Connection
    ) -> Iterator[tuple[av.VideoFrame, float]]:
        """Pictures with their times. Pictures of streams that come in bursts wait until they are
        due; others pass at once.
        """
        if not container.streams.video:
            raise UserError(
                f"{self._display_url} has no video stream; give an address with pictures"
            )
        stream = video_stream(container)
        if stream is None:
            raise UserError(
                f"{self._display_url} sends a video format that is not supported; let it send H.264"
            )
        # more threads delay pictures, and the model needs the cores
        stream.codec_context.thread_count = 1
        # (time stamp in seconds, video time) of the first picture
        zero: tuple[float, float] | None = None
        connection.touch()
        for frame in _whole(container, stream, connection):
            if self._closed.is_set():
                return
            now = self.now
            if frame.pts is None or frame.time_base is None:
                yield frame, now
                continue
            stamp = float(frame.pts * frame.time_base)
            if zero is None or not -_LATE_S <= stamp - zero[0] + zero[1] - now <= _EARLY_S:
                zero = (stamp, now)
            at = stamp - zero[0] + zero[1]
            if at > now and self._in_bursts:
                connection.touch(at - now)
                self._closed.wait(at - now)
            elif at > now:
                # before its due time: the first picture was old, because the stream buffered it
                # while connecting
                zero, at = (stamp, now), now
            yield frame, at


class FilePlayback:
    """A file, frame by frame at its own pace. Every frame is delivered, however late, because a
    file can wait.
    """

    is_replayable = True
    dropped = reconnects = 0

    def __init__(self, source: FrameSource, speed: float = 1.0) -> None:
        """speed: times real time; infinite = as fast as the caller takes the frames."""
        if not speed > 0:
            raise UserError(
                f"speed={speed} does not play a file; use 1 for real time, or inf for as fast as "
                "it goes"
            )
        self._source, self._speed = source, speed
        self._closed = threading.Event()
        # video time of the last frame; monotonic second at which the next one is due
        self._now, self._due = 0.0, 0.0
        self.frames_sampled = 0

    @property
    def info(self) -> VideoInfo:
        return self._source.info

    def resume(self, before: VideoInfo) -> None:
        """As the file does."""
        if isinstance(self._source, ResumableSource):
            self._source.resume(before)

    @property
    def is_idle(self) -> bool:
        return time.monotonic() < self._due

    @property
    def now(self) -> float:
        return self._now

    def start_clock(self, start: float) -> None:
        """Returns None: the recording time of a file is unknown."""

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Frames from `start` on; playback begins now. SourceClosed if it is closed."""
        zero: float | None = None  # monotonic second of video second 0
        for batch in self._source.frames(start):
            for number in range(len(batch)) if self._speed < float("inf") else (None,):
                frames = batch if number is None else batch.part(number, number + 1)
                if number is not None:
                    at = float(frames.times[0]) / self._speed
                    zero = time.monotonic() - at if zero is None else zero
                    self._due = zero + at
                    self._closed.wait(max(0.0, self._due - time.monotonic()))
                    later = (
                        batch.times[number + 1]
                        if number + 1 < len(batch)
                        else 2 * batch.times[-1] - batch.times[-2:][0]
                    )
                    self._due = zero + float(later) / self._speed
                if self._closed.is_set():
                    raise SourceClosed
                self._now = float(frames.times[-1])
                self.frames_sampled += len(frames)
                yield frames

    def close(self) -> None:
        self._closed.set()


def is_live(video: str) -> bool:
    """True if this names a URL or a camera, not a file."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", video)) or video.partition(":")[0] in (
        *_DEVICES,
        "camera",
    )


def without_password(url: str) -> str:
    """The URL without user, password and query, safe to store and to show."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _target(url: str) -> tuple[str, str | None, str]:
    """(FFmpeg's input, its format if FFmpeg cannot guess it, allowed protocols)."""
    kind, _, rest = url.partition(":")
    if kind == "camera":
        kind, name = next(
            (v for k, v in _CAMERA.items() if sys.platform.startswith(k)), _CAMERA["linux"]
        )
        rest = name.format(rest or "0")
    if kind in _DEVICES:
        if kind == "v4l2" and not Path(rest).exists():
            raise UserError(
                f"There is no camera {rest}; plug one in, or name another one, such as "
                "v4l2:/dev/video1"
            )
        return rest, kind, ""
    if kind not in _SCHEMES or not rest.startswith("//"):
        schemes = ", ".join(f"{name}://" for name in _SCHEMES)
        raise UserError(
            f"{without_password(url)} is no address that can be watched; use {schemes}, or camera:0"
        )
    try:
        parts = urlsplit(url)
        if not parts.hostname or (parts.port is None and kind in ("tcp", "udp")):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{without_password(url)} has no host and port that can be read; write {kind}://HOST:PORT/PATH"
        ) from None
    return url, None, _SCHEMES[kind]


class _StreamsChangedError(Exception):
    """A sender goes on under numbers of streams that it did not state when it began."""

    def __str__(self) -> str:
        return "its streams changed"


def _packets(
    container: "av.container.InputContainer", stream: "av.VideoStream", connection: Connection
) -> Iterator["av.Packet[av.VideoStream]"]:
    try:
        for packet in container.demux(stream):
            if connection.is_abandoned:
                return
            connection.touch()
            yield packet
    except IndexError as error:  # of PyAV, which lists the streams once; a new connection knows all
        raise _StreamsChangedError from error


def _whole(
    container: "av.container.InputContainer", stream: "av.VideoStream", connection: Connection
) -> Iterator[av.VideoFrame]:
    """Undamaged pictures; after damage, those from the next keyframe on."""
    # waiting for a keyframe: a running stream has no whole picture before one
    waiting = True
    for packet in _packets(container, stream, connection):
        if waiting and not packet.is_keyframe:
            continue
        waiting = False
        try:
            frames = packet.decode()
        except av.FFmpegError:
            waiting = True
            continue
        yield from (
            frame for frame in frames if isinstance(frame, av.VideoFrame) and not frame.is_corrupt
        )


def _reason(error: Exception | None) -> str:
    """A short reason for the end of a connection."""
    if error is None:
        return "it ended"
    with suppress(AttributeError):
        if isinstance(error, av.error.ExitError):
            return "no answer in time"
    return getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
