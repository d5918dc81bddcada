"""Frames of live streams and cameras, through PyAV. Knows nothing of segments, models or banks.

A picture's time is the moment of its arrival, smoothed by the stream's own time stamps: they give
its distance from the first picture of the connection. Pictures that arrive early, as in HLS, wait
until they are due. Video time continues while a stream is interrupted, so its distance to
wall-clock time is constant over a session.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import av
import av.container

from encoders.errors import UserError
from encoders.schema import Frames
from encoders.sources.container import video_stream
from encoders.sources.live.address import ffmpeg_input, without_password
from encoders.sources.live.connection import Connection
from encoders.sources.live.piece_recorder import Packet, PieceCopy, PieceRecorder
from encoders.sources.live.push_source import PushSource

_POLL_S = 0.1
# times the limit of one packet: a connection without a packet of its stream for so long is given up
_SILENT_TIMES = 2
_LATE_S, _EARLY_S = 3.0, 15.0  # seconds from the due time; a picture further off restarts the count


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
        self._file, self._format, allowed = ffmpeg_input(url)
        self._display_url = without_password(url)
        super().__init__(
            name or stream_name(url),
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
        self.recorder: PieceRecorder | None = None  # None: what is sent is not copied
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
        sound = next(iter(container.streams.audio), None)
        copy = None if self.recorder is None else self.recorder.copy(stream, sound)
        try:
            yield from self._timed(container, stream, connection, copy)
        finally:
            if copy is not None:
                copy.close()

    def _timed(
        self,
        container: "av.container.InputContainer",
        stream: "av.VideoStream",
        connection: Connection,
        copy: PieceCopy | None,
    ) -> Iterator[tuple[av.VideoFrame, float]]:
        """As `_due`. copy: gets the packets too."""
        # (time stamp in seconds, video time) of the first picture
        zero: tuple[float, float] | None = None
        connection.touch()
        for frame in _whole(container, stream, connection, copy):
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
            if copy is not None:
                copy.show(stamp, at)
            yield frame, at


def stream_name(url: str) -> str:
    """The name of a stream in a bank, from its address without the password."""
    return "live-" + hashlib.sha256(without_password(url).encode()).hexdigest()[:12]


class _StreamsChangedError(Exception):
    """A sender goes on under numbers of streams that it did not state when it began."""

    def __str__(self) -> str:
        return "its streams changed"


def _packets(
    container: "av.container.InputContainer",
    streams: "Sequence[av.VideoStream | av.AudioStream]",
    connection: Connection,
) -> Iterator["Packet"]:
    try:
        for packet in container.demux(*streams):
            if connection.is_abandoned:
                return
            connection.touch()
            yield packet
    except IndexError as error:  # of PyAV, which lists the streams once; a new connection knows all
        raise _StreamsChangedError from error


def _whole(
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    connection: Connection,
    copy: PieceCopy | None,
) -> Iterator[av.VideoFrame]:
    """Undamaged pictures; after damage, those from the next keyframe on. copy: gets the packets."""
    # waiting for a keyframe: a running stream has no whole picture before one
    waiting = True
    streams: Sequence[av.VideoStream | av.AudioStream] = [stream] if copy is None else copy.streams
    for packet in _packets(container, streams, connection):
        if packet.stream_index != stream.index:
            if copy is not None:
                copy.add(packet)
            continue
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
        if copy is not None:
            copy.add(packet)


def _reason(error: Exception | None) -> str:
    """A short reason for the end of a connection."""
    if error is None:
        return "it ended"
    with suppress(AttributeError):
        if isinstance(error, av.error.ExitError):
            return "no answer in time"
    return getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
