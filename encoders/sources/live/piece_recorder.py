"""What a live stream sends, copied into short files without encoding anything anew.

Readers of words (encoders/text/) read files. So a stream whose words are wanted becomes a row of
them: each begins with a keyframe, lasts about `seconds`, and holds the pictures and the first sound
track. Knows packets and files; nobody who reads them.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container

SUFFIX = ".mkv"
PIECE_S = 30.0  # what recognizers of speech hear at once
_MOST_S, _MOST_BYTES = 120.0, 64_000_000  # of a piece, where no keyframe comes
_JUMP_S = 1.0  # in the time stamps, from which on a new piece begins

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamPiece:
    """Some seconds of a stream as a film."""

    path: Path
    start: float  # seconds of video time of its first picture
    end: float
    is_own: bool = True  # False: the file is somebody's; who reads it leaves it there


TakePiece = Callable[[StreamPiece], None]
"""Gets each piece once it is whole, in time order, and returns at once."""

Packet = av.Packet  # of pictures or sound


class PieceRecorder:
    """The pieces of one stream."""

    def __init__(self, folder: Path, take: TakePiece, *, seconds: float = PIECE_S) -> None:
        """folder: of the files, made with the first one. take: gets them, and deletes them."""
        self._folder, self._take, self._seconds = folder, take, seconds

    def copy(self, pictures: "av.VideoStream", sound: "av.AudioStream | None") -> "PieceCopy":
        """For the packets of one connection."""
        return PieceCopy(self, pictures, sound)

    def next_path(self) -> Path:
        """Of a new file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # pieces of an earlier session may still be read
        return self._folder / f"{time.time_ns()}{SUFFIX}"

    def is_long(self, seconds: float) -> bool:
        """Whether a piece of this length ends with the next keyframe."""
        return seconds >= self._seconds

    def hand_over(self, piece: StreamPiece) -> None:
        """Give a piece that is whole."""
        self._take(piece)


class PieceCopy:
    """Copies the packets of one connection. One thread."""

    def __init__(
        self,
        recorder: PieceRecorder,
        pictures: "av.VideoStream",
        sound: "av.AudioStream | None",
    ) -> None:
        self._recorder = recorder
        self.streams: list[av.VideoStream | av.AudioStream] = [pictures]
        if sound is not None:
            self.streams.append(sound)
        self._pictures = pictures.index
        self._file: av.container.OutputContainer | None = None
        self._path = Path()
        self._first = Fraction(0)  # seconds of the stream's own clock at which the piece begins
        self._length = 0.0
        self._nbytes = 0
        # from the clock of the stream to video time; None: no picture of the piece was shown yet
        self._shift: float | None = None
        self._has_failed = False

    def show(self, stamp: float, at: float) -> None:
        """A picture with this time stamp is shown at this second of video time."""
        if self._shift is not None and abs(at - stamp - self._shift) > _JUMP_S:
            self.close()  # the clock jumped: what follows belongs to another piece
        self._shift = at - stamp

    def add(self, packet: "Packet") -> None:
        """Copy a packet, which is decoded already: its times are changed."""
        if self._has_failed or packet.pts is None or packet.time_base is None:
            return
        stamp = packet.pts * packet.time_base
        if packet.stream_index == self._pictures:
            if packet.is_keyframe and (self._file is None or self._recorder.is_long(self._length)):
                self._begin(stamp)
            elif self._length > _MOST_S or self._nbytes > _MOST_BYTES:
                self.close()
        if self._file is None or stamp < self._first:
            return
        self._length = max(self._length, float(stamp - self._first))
        self._nbytes += packet.size
        try:
            self._write(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._fail(error)

    def close(self) -> None:
        """End the piece, and hand it over."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            self._fail(error)
            return
        if self._shift is None:  # no picture of it was shown
            self._path.unlink(missing_ok=True)
            return
        start = max(0.0, float(self._first) + self._shift)
        self._recorder.hand_over(StreamPiece(self._path, start, start + self._length))

    def _begin(self, stamp: Fraction) -> None:
        shift = self._shift
        self.close()
        self._first, self._length, self._nbytes = stamp, 0.0, 0
        self._shift = shift  # a picture of the piece comes a little later
        try:
            self._path = self._recorder.next_path()
            self._file = av.open(str(self._path), "w", format="matroska")
            self._copies = {
                each.index: self._file.add_stream_from_template(each, opaque=True)
                for each in self.streams
            }
        except (av.FFmpegError, OSError, ValueError) as error:
            self._fail(error)

    def _write(self, packet: "Packet") -> None:
        assert self._file is not None and packet.time_base is not None
        first = round(self._first / packet.time_base)
        index = packet.stream_index
        packet.pts = (packet.pts or 0) - first
        packet.dts = packet.pts if packet.dts is None else packet.dts - first
        packet.stream = self._copies[index]
        self._file.mux_one(packet)

    def _fail(self, error: Exception) -> None:
        """Copy no more: the stream goes on, and no words are found in it."""
        self._has_failed = True
        file, self._file = self._file, None
        if file is not None:
            with suppress(av.FFmpegError, OSError, ValueError):
                file.close()
        self._path.unlink(missing_ok=True)
        log.warning("reelbank: warning: words of a stream are not found: %s", error)
