"""The videos that clients handed in, on disk: each once, under a name made of its content.

Knows bytes and what a container says of itself; no bank and no HTTP. Layout of the folder:
    file-<32 hex digits of the SHA-256>.mp4   the video
    file-<the same>.json                      what is known of it; without it the video does not exist
Nothing that a client sends becomes part of a path: ids are looked up, not opened.
"""

import hashlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import av

from encoders.errors import UserError
from encoders.sources.container import check_file, fingerprint
from memory.storage.atomic import TEMPORARY, make_folder, write_atomically
from pipeline.server.errors import ApiError

ID = re.compile(r"file-[0-9a-f]{32}")
# Formats that hold their pictures themselves. A playlist (HLS, DASH, concat) names other files or hosts, and FFmpeg would
# open them: whoever may hand in a video could read the server's disk and network with it.
FORMATS = {
    "mov": (".mp4", "video/mp4"),
    "matroska": (".mkv", "video/x-matroska"),
    "webm": (".webm", "video/webm"),
    "avi": (".avi", "video/x-msvideo"),
    "mpegts": (".ts", "video/mp2t"),
    "mpeg": (".mpg", "video/mpeg"),
    "flv": (".flv", "video/x-flv"),
    "asf": (".wmv", "video/x-ms-asf"),
    "ogg": (".ogv", "video/ogg"),
    "mxf": (".mxf", "application/mxf"),
}
MOST_PIXELS = 8192 * 8192  # of one picture: a small file can claim to unpack to any size


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A video that was handed in."""

    id: str
    path: Path
    filename: str  # as the client called it; never part of a path
    nbytes: int
    created: int  # Unix seconds
    purpose: str
    media_type: str
    video_id: str  # in the bank
    duration: float  # seconds


class FileStore:
    """Put, get, list, delete. Threads may use it at the same time."""

    def __init__(
        self, folder: Path, check: Callable[[Path], float], *, file_bytes: int, total_bytes: int
    ) -> None:
        """check: seconds of a video file, or UserError with what is wrong with it. file_bytes, total_bytes: of one video, of
        all together."""
        self._folder, self._check = folder.absolute(), check
        self.file_bytes, self.total_bytes = file_bytes, total_bytes
        self._lock = threading.RLock()
        self._files: dict[str, StoredFile] = {}
        make_folder(self._folder)
        for half in self._folder.glob(f"*{TEMPORARY}*"):
            half.unlink(missing_ok=True)
        for record in sorted(self._folder.glob("file-*.json")):
            stored = self._read(record)
            if stored is not None:
                self._files[stored.id] = stored

    @property
    def nbytes(self) -> int:
        """Bytes of all videos."""
        with self._lock:
            return sum(stored.nbytes for stored in self._files.values())

    def all(self) -> list[StoredFile]:
        """Oldest first."""
        with self._lock:
            return sorted(self._files.values(), key=lambda stored: (stored.created, stored.id))

    def get(self, file_id: str) -> StoredFile:
        """ApiError 404 when there is none of this id, whatever the text is."""
        with self._lock:
            stored = self._files.get(file_id) if ID.fullmatch(file_id) else None
        if stored is None:
            raise ApiError(
                404,
                f"There is no file {_short(file_id)}; /v1/files lists those there are.",
                code="file_not_found",
            )
        return stored

    def put(self, pieces: Iterable[bytes], filename: str, purpose: str) -> StoredFile:
        """Keep a video; the same bytes again are the file that is there already. ApiError 413 when it is too large, UserError
        when it is no video: then nothing is kept."""
        digest, nbytes = hashlib.sha256(), 0
        with self._temporary() as half:
            for piece in pieces:
                nbytes += len(piece)
                if nbytes > self.file_bytes:
                    raise ApiError(
                        413,
                        f"The video is larger than {self.file_bytes / 1e6:g} MB, which is the limit here.",
                    )
                digest.update(piece)
                half.write(piece)
            half.flush()
            os.fsync(half.fileno())
            file_id = f"file-{digest.hexdigest()[:32]}"
            with self._lock:
                if file_id in self._files:
                    return self._files[file_id]
            name = clean(filename)
            suffix, media_type, duration = self._facts(Path(half.name), name)
            return self._add(
                Path(half.name), file_id, suffix, media_type, duration, nbytes, name, purpose
            )

    def delete(self, file_id: str) -> StoredFile:
        """ApiError 404 when it is not there."""
        with self._lock:
            stored = self.get(file_id)
            del self._files[file_id]
            # first: without it the video does not exist
            stored.path.with_suffix(".json").unlink(missing_ok=True)
            stored.path.unlink(missing_ok=True)
            return stored

    def _add(
        self,
        half: Path,
        file_id: str,
        suffix: str,
        media_type: str,
        duration: float,
        nbytes: int,
        name: str,
        purpose: str,
    ) -> StoredFile:
        with self._lock:
            if file_id in self._files:  # somebody else handed the same in meanwhile
                return self._files[file_id]
            if self.nbytes + nbytes > self.total_bytes:
                raise ApiError(
                    413,
                    f"The server keeps {self.total_bytes / 1e9:g} GB of videos at most; delete some of them first.",
                )
            video_id = fingerprint(half)
            # it reads a part of a long file only
            if any(stored.video_id == video_id for stored in self._files.values()):
                raise ApiError(
                    409,
                    "Another video has the same fingerprint in the bank; change this one by a byte.",
                )
            path = self._folder / f"{file_id}{suffix}"
            half.replace(path)
            stored = StoredFile(
                file_id,
                path,
                name,
                nbytes,
                int(time.time()),
                purpose,
                media_type,
                video_id,
                duration,
            )
            record = asdict(stored) | {"path": path.name}
            write_atomically(path.with_suffix(".json"), json.dumps(record, indent=1).encode())
            self._files[file_id] = stored
            return stored

    def _facts(self, path: Path, name: str) -> tuple[str, str, float]:
        """Suffix, media type, seconds. UserError in the client's words: the server's paths are none of its business."""
        try:
            check_file(path)
            kind = container_of(path)
            return *FORMATS[kind], self._check(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), name or "The file")) from None

    @contextmanager
    def _temporary(self) -> Iterator[IO[bytes]]:
        half = self._folder / f"{uuid.uuid4().hex}{TEMPORARY}"
        try:
            with half.open("wb") as file:
                yield file
        finally:
            half.unlink(missing_ok=True)

    def _read(self, record: Path) -> StoredFile | None:
        """None where a record is damaged or its video gone."""
        try:
            told = json.loads(record.read_bytes())
            path = self._folder / Path(told["path"]).name
            stored = StoredFile(**told | {"path": path})
            return stored if path.is_file() and ID.fullmatch(stored.id) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None


def container_of(path: Path) -> str:
    """The format of a video file, a key of FORMATS. UserError when it is another, or cannot be read."""
    try:
        # opens no file but this one, whatever it says inside
        options = {"format_whitelist": ",".join([*_DEMUXERS]), "protocol_whitelist": "file"}
        with av.open(str(path), options=options, metadata_errors="replace") as container:
            for stream in container.streams.video:
                size = stream.codec_context
                if size is not None and size.width * size.height > MOST_PIXELS:
                    raise UserError(
                        f"{path} has pictures of {size.width} x {size.height} pixels, which is too large"
                    )
            names = container.format.name.split(",")
    except av.FFmpegError:
        names = []
    kind = next((name for name in names if name in FORMATS), None)
    if kind is None:
        raise UserError(
            f"{path} is not a video of a format that is taken here (MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, ASF, Ogg, MXF), "
            "or it is damaged or incomplete"
        )
    return "webm" if kind == "matroska" and _is_webm(path) else kind


_DEMUXERS = (
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "mov,mp4,m4a,3gp,3g2,mj2", "matroska", "webm", "matroska,webm", "avi", "mpegts",
    "mpeg", "flv", "asf", "ogg", "mxf",
)  # fmt: skip


def _is_webm(path: Path) -> bool:
    with path.open("rb") as file:
        return b"webm" in file.read(64)


def clean(filename: str) -> str:
    """The last part of a name, printable, at most 120 characters: to show, never to open."""
    last = re.split(r"[/\\]", filename)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120] or "video"


def _short(text: str) -> str:
    """A client's text, fit for a sentence."""
    return repr(text[:60])[1:-1] + ("..." if len(text) > 60 else "")
