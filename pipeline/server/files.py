"""Uploaded videos on disk, each stored once under a name derived from its content.

Knows bytes and container headers; no bank and no HTTP routes. Files in the folder:

    file-<32 hex digits of the SHA-256>.mp4   the video
    file-<the same>.json                      its record; without it the video does not exist

Client input never becomes part of a path: ids are looked up, not opened.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import av

from encoders.errors import FileError, UserError
from encoders.sources.container import check_file, fingerprint
from encoders.sources.ffmpeg_name import ffmpeg_name
from memory.storage.atomic import TEMPORARY, make_folder, write_atomically
from pipeline.server.errors import ApiError

log = logging.getLogger("reelbank.server")

_STORED_AT_ONCE = 4  # videos that are checked and moved to their place
ID = re.compile(r"file-[0-9a-f]{32}")
# Only self-contained formats. A playlist (HLS, DASH, concat) names other files or hosts, and FFmpeg
# would open them: an upload could then read the server's disk and network.
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
MAX_PIXELS = 8192 * 8192  # per picture: a small file can declare any size


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded video."""

    id: str
    path: Path
    filename: str  # the client's name for it; never part of a path
    nbytes: int
    created: int  # Unix seconds
    purpose: str
    media_type: str
    video_id: str  # in the bank
    duration: float  # seconds


class FileStore:
    """Put, get, list, delete. Safe to use from several threads."""

    def __init__(
        self, folder: Path, check: Callable[[Path], float], *, file_bytes: int, total_bytes: int
    ) -> None:
        """check: returns a video file's duration in seconds; UserError when it cannot be used.

        file_bytes: limit for one video. total_bytes: limit for all videos together.
        """
        self._folder, self._check = folder.absolute(), check
        self.file_bytes, self.total_bytes = file_bytes, total_bytes
        self._pool = ThreadPoolExecutor(_STORED_AT_ONCE, "files")
        # for changes; reading needs none, and the event loop never waits for a disk
        self._lock = threading.RLock()
        self._files: dict[str, StoredFile] = {}
        make_folder(self._folder)
        for temporary in self._folder.glob(f"*{TEMPORARY}*"):
            temporary.unlink(missing_ok=True)
        for record in sorted(self._folder.glob("file-*.json")):
            stored = self._read(record)
            if stored is not None:
                self._files[stored.id] = stored

    @property
    def nbytes(self) -> int:
        """Total bytes of all videos."""
        return sum(stored.nbytes for stored in list(self._files.values()))

    def all(self) -> list[StoredFile]:
        """All files, oldest first."""
        return sorted(list(self._files.values()), key=lambda stored: (stored.created, stored.id))

    def get(self, file_id: str) -> StoredFile:
        """The file with this id. ApiError 404 for every other text."""
        stored = self._files.get(file_id) if ID.fullmatch(file_id) else None
        if stored is None:
            raise ApiError(
                404,
                f"There is no file {_quote(file_id)}; /v1/files lists those there are.",
                code="file_not_found",
            )
        return stored

    async def store(self, pieces: Iterable[bytes], filename: str, purpose: str) -> StoredFile:
        """`put` in one of this store's own threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.put, pieces, filename, purpose)

    def close(self) -> None:
        """Store no more videos."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def put(self, pieces: Iterable[bytes], filename: str, purpose: str) -> StoredFile:
        """Store a video. The same bytes again return the existing file.

        ApiError 413 when it is too large, UserError when it is not a video. Nothing is stored then.
        """
        digest, nbytes = hashlib.sha256(), 0
        with self._temporary() as temporary:
            for piece in pieces:
                nbytes += len(piece)
                if nbytes > self.file_bytes:
                    raise ApiError(
                        413,
                        f"The video is larger than {self.file_bytes / 1e6:g} MB, which is the "
                        "limit here.",
                    )
                digest.update(piece)
                temporary.write(piece)
            temporary.flush()
            os.fsync(temporary.fileno())
            file_id = f"file-{digest.hexdigest()[:32]}"
            with self._lock:
                if file_id in self._files:
                    return self._files[file_id]
            name = clean_filename(filename)
            temporary_path = Path(temporary.name)
            suffix, media_type, duration = self._facts(temporary_path, name)
            stored = StoredFile(
                id=file_id,
                path=self._folder / f"{file_id}{suffix}",
                filename=name,
                nbytes=nbytes,
                created=int(time.time()),
                purpose=purpose,
                media_type=media_type,
                video_id=fingerprint(temporary_path),
                duration=duration,
            )
            return self._add(temporary_path, stored)

    def delete(self, file_id: str) -> StoredFile:
        """Delete a file. ApiError 404 when there is none with this id."""
        with self._lock:
            stored = self.get(file_id)
            del self._files[file_id]
            # the record first: without it the video does not exist
            stored.path.with_suffix(".json").unlink(missing_ok=True)
            stored.path.unlink(missing_ok=True)
            return stored

    def _add(self, temporary: Path, stored: StoredFile) -> StoredFile:
        """Move a temporary file to its place. ApiError when it does not fit."""
        with self._lock:
            # another client uploaded the same bytes in the meantime
            if stored.id in self._files:
                return self._files[stored.id]
            if self.nbytes + stored.nbytes > self.total_bytes:
                raise ApiError(
                    413,
                    f"The server keeps {self.total_bytes / 1e9:g} GB of videos at most; "
                    "delete some of them first.",
                )
            # the fingerprint samples long files, so two files can share one
            if any(other.video_id == stored.video_id for other in self._files.values()):
                raise ApiError(
                    409,
                    "Another video has the same fingerprint in the bank; "
                    "change this one by a byte.",
                )
            temporary.replace(stored.path)
            record = asdict(stored) | {"path": stored.path.name}
            record_path = stored.path.with_suffix(".json")
            write_atomically(record_path, json.dumps(record, indent=1).encode())
            self._files[stored.id] = stored
            return stored

    def _facts(self, path: Path, name: str) -> tuple[str, str, float]:
        """Suffix, media type, and duration in seconds.

        UserError with the client's name for the file: the server's paths are not disclosed.
        """
        try:
            check_file(path)
            kind = container_of(path)
            return *FORMATS[kind], self._check(path)
        except FileError as error:
            raise UserError(f"{name or 'The file'} {error.problem}") from None
        except (av.FFmpegError, ArithmeticError, LookupError, ValueError) as error:
            # a file from outside can hold anything, and each reader has its own way to fail
            log.warning("an upload cannot be read: %r", error)
            raise UserError(f"{name or 'The file'} cannot be read as a video") from None

    @contextmanager
    def _temporary(self) -> Iterator[IO[bytes]]:
        temporary = self._folder / f"{uuid.uuid4().hex}{TEMPORARY}"
        try:
            with temporary.open("wb") as file:
                yield file
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self, record: Path) -> StoredFile | None:
        """The file of a record; None when the record is damaged or its video is missing."""
        try:
            record_data = json.loads(record.read_bytes())
            path = self._folder / Path(record_data["path"]).name
            stored = StoredFile(**record_data | {"path": path})
            return stored if path.is_file() and ID.fullmatch(stored.id) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None


def container_of(path: Path) -> str:
    """The format of a video file, a key of FORMATS.

    UserError when the format is not accepted or the file cannot be read.
    """
    try:
        # FFmpeg opens no other file or host, whatever this file refers to
        options = {"format_whitelist": ",".join([*_DEMUXERS]), "protocol_whitelist": "file"}
        with av.open(ffmpeg_name(path), options=options, metadata_errors="replace") as container:
            for stream in container.streams.video:
                size = stream.codec_context
                if size is not None and size.width * size.height > MAX_PIXELS:
                    raise FileError(
                        path,
                        f"has pictures of {size.width} x {size.height} pixels, which is too large",
                    )
            names = container.format.name.split(",")
    except av.FFmpegError:
        names = []
    kind = next((name for name in names if name in FORMATS), None)
    if kind is None:
        raise FileError(
            path,
            "is not a video of a format that is taken here (MP4, MOV, Matroska, WebM, "
            "AVI, MPEG, FLV, ASF, Ogg, MXF), "
            "or it is damaged or incomplete",
        )
    return "webm" if kind == "matroska" and _is_webm(path) else kind


_DEMUXERS = (
    "mov",
    "mp4",
    "m4a",
    "3gp",
    "3g2",
    "mj2",
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska",
    "webm",
    "matroska,webm",
    "avi",
    "mpegts",
    "mpeg",
    "flv",
    "asf",
    "ogg",
    "mxf",
)


def _is_webm(path: Path) -> bool:
    with path.open("rb") as file:
        return b"webm" in file.read(64)


def clean_filename(filename: str) -> str:
    """The last path component, printable, at most 120 characters. For display only."""
    last = re.split(r"[/\\]", filename)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120] or "video"


def _quote(text: str) -> str:
    """A client's text, shortened and escaped for an error sentence."""
    return repr(text[:60])[1:-1] + ("..." if len(text) > 60 else "")
