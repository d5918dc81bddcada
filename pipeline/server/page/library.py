"""The films and streams that a visitor of the page may see. Knows banks and files; no HTTP.

A film comes from an upload, or from the bank where clients may see all of it (whole_bank=true). A
picture of a moment comes from the thumbnails of the bank, else from the film's file.
"""

import math
import mimetypes
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.sources.identity import why_not_file
from encoders.text.lines import KINDS
from memory.storage.catalog import VideoOverview
from pipeline.qa import VideoQA
from pipeline.server.answering import WholeBank
from pipeline.server.encode_queue import EncodeQueue
from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore, StoredFile
from pipeline.server.page.pictures import FilePictures
from pipeline.server.streams.stream import Stream
from pipeline.server.streams.stream_set import StreamSet

MAX_LINES = 500  # of one film, in one reply
_MAX_EDGES = 400  # segments that a timeline draws; beyond that every n-th
_MAX_FILMS = 32  # whose decoded pictures stay in memory


@dataclass(frozen=True, slots=True)
class LibraryVideo:
    """A film or a stream."""

    id: str  # of the video in its bank
    title: str
    qa: VideoQA
    file: StoredFile | None = None  # of an uploaded film
    stream: Stream | None = None  # of a film: it is watched as it plays


class Library:
    """Safe in threads. What takes one video is called inside `reading`."""

    def __init__(
        self,
        qa: VideoQA,
        files: FileStore,
        encode_queue: EncodeQueue,
        streams: StreamSet | None,
        *,
        sees_bank: bool,
        about: str = "",
    ) -> None:
        """sees_bank: whether visitors see films that nobody uploaded. about: a sentence on what the
        model can answer."""
        self.sees_bank, self.about = sees_bank, about
        self._qa, self._files, self._encode_queue, self._streams = qa, files, encode_queue, streams
        self._lock = threading.Lock()
        self._pictures: OrderedDict[str, FilePictures] = OrderedDict()

    @property
    def can_watch(self) -> bool:
        """Whether something can be watched: not where several banks are read."""
        return self._streams is not None

    def videos(self, bank: WholeBank, sees: Callable[[Path], bool]) -> dict[str, LibraryVideo]:
        """All that a visitor may see, by id. bank: encoded videos that the visitor may see; sees:
        whether the visitor may see a bank, by its folder."""
        streams = {} if self._streams is None else self._streams.streams
        videos = {
            name: LibraryVideo(name, name, each.qa, stream=each)
            for name, each in streams.items()
            if sees(each.qa.bank.root)
        }
        if sees(self._qa.bank.root):
            for file in self._files.all():
                videos[file.video_id] = LibraryVideo(
                    file.video_id, file.filename, self._qa, file, streams.get(file.video_id)
                )
        if self.sees_bank:
            for video_id, each in bank.items():
                videos.setdefault(video_id, LibraryVideo(video_id, each.filename, self._qa))
        return videos

    @contextmanager
    def reading(self, video: LibraryVideo) -> Iterator[None]:
        """The bank of a video stays open inside. ApiError 404 where nobody watches its stream any
        more, and its bank has been closed."""
        let_go = None
        if video.stream is not None and self._streams is not None:
            try:
                let_go = self._streams.hold(video.stream)
            except KeyError:
                raise no_video() from None
        try:
            yield
        finally:
            if let_go is not None:
                let_go()

    def summaries(self, videos: Iterable[LibraryVideo]) -> list[dict[str, Any]]:
        """What a list says of each video, as JSON data; one query for each bank. A stream that was
        stopped meanwhile is left out."""
        with ExitStack() as opened:
            listed = []
            for video in videos:
                with suppress(ApiError):
                    opened.enter_context(self.reading(video))
                    listed.append(video)
            banks = {id(video.qa.bank): video.qa.bank for video in listed}
            overviews = {each: bank.catalog.overviews() for each, bank in banks.items()}
            return [
                self._summary(video, overviews[id(video.qa.bank)].get(video.id)) for video in listed
            ]

    def _summary(self, video: LibraryVideo, overview: VideoOverview | None) -> dict[str, Any]:
        """overview: None where the bank has nothing of the video yet."""
        seconds = 0.0 if overview is None else overview.duration
        if video.file is not None:
            seconds = video.file.duration
        share = 1.0
        is_encoding = False
        if video.file is not None and (overview is None or not overview.is_complete):
            running = self._encode_queue.share(video.file)
            is_encoding = running is not None
            end = 0.0 if overview is None else overview.end
            share = max(running or 0.0, end / max(video.file.duration, 1e-6))
        return {
            "id": video.id,
            "object": "video",
            "kind": "film" if video.stream is None or video.file is not None else "stream",
            "title": video.title,
            "duration": round(seconds, 3),
            "began": None if overview is None else overview.began,
            "encoded": round(share, 3),
            "is_encoding": is_encoding,
            "file_id": None if video.file is None else video.file.id,
            "has_media": self._media(video, overview) is not None,
            "stream": None if video.stream is None else video.stream.state(),
        }

    def detail(self, video: LibraryVideo) -> dict[str, Any]:
        """What the page of a video says of it, as JSON data."""
        bank = video.qa.bank
        rows = bank.catalog.segments(video.id)
        step = max(1, len(rows) // _MAX_EDGES)
        lines = [line for line in bank.text.during(video.id, 0.0, math.inf) if line.kind in KINDS]
        lines.sort(key=lambda line: line.start)
        return self._summary(video, bank.catalog.overviews(video.id).get(video.id)) | {
            "bytes": sum(row.nbytes for row in rows),
            "in_memory": bank.in_memory(),
            "segments": [[round(row.start, 3), round(row.end, 3)] for row in rows[::step]],
            "lines": [
                {
                    "start": round(line.start, 3),
                    "end": round(line.end, 3),
                    "kind": line.kind,
                    "text": line.text,
                }
                for line in lines[:MAX_LINES]
            ],
            "further_lines": max(0, len(lines) - MAX_LINES),
        }

    def media(self, video: LibraryVideo) -> StoredFile | None:
        """The file of a film, for a player; None where there is none, such as for a stream."""
        overview = video.qa.bank.catalog.overviews(video.id).get(video.id)
        return self._media(video, overview)

    def _media(self, video: LibraryVideo, overview: VideoOverview | None) -> StoredFile | None:
        if video.file is not None or video.stream is not None:
            return video.file
        if overview is None or not Path(overview.row.info.path).is_file():
            return None
        row, path = overview.row, Path(overview.row.info.path)
        kind = mimetypes.guess_type(path.name)[0] or ""
        if not kind.startswith("video/"):  # a player is given films, and nothing else
            return None
        return StoredFile("", path, video.title, 0, 0, "bank", kind, video.id, row.info.duration)

    def picture(self, video: LibraryVideo, seconds: float | None) -> bytes | None:
        """JPEG of what is shown at a second of video time; None where nothing is stored. seconds:
        None for the newest picture of a stream, the first one of a film."""
        if seconds is None and video.stream is not None and video.file is None:
            return video.stream.pictures.newest(video.id) or self.picture(video, math.inf)
        if seconds is None:
            seconds = 0.0
        elif math.isinf(seconds):
            seconds = video.qa.bank.catalog.next(video.id)[1]
        with suppress(UserError):  # of a damaged segment
            (stored,) = video.qa.bank.catalog.thumbnails(video.id, (seconds,))
            if stored is not None:
                return stored
        if video.stream is not None and (kept := video.stream.pictures.at(video.id, seconds)):
            return kept
        decoder = self._decoder(video)
        return None if decoder is None else decoder.at(seconds)

    def _decoder(self, video: LibraryVideo) -> FilePictures | None:
        with self._lock:
            pictures = self._pictures.get(video.id)
            if pictures is None:
                file = self.media(video)
                if file is None or not is_same_film(video, file):
                    return None
                pictures = self._pictures[video.id] = FilePictures(file.path)
            self._pictures.move_to_end(video.id)
            while len(self._pictures) > _MAX_FILMS:
                self._pictures.popitem(last=False)
            return pictures


def no_video() -> ApiError:
    """Of a video that is not there, or not for the visitor."""
    return ApiError(404, "There is no such film or stream.", code="video_not_found")


def is_same_film(video: LibraryVideo, file: StoredFile) -> bool:
    """Whether the file still is the film that was encoded. Reads at most 1 MB."""
    return video.file is not None or not why_not_file(video.id, file.path)
