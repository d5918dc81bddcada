"""Files that a camera drops in a folder, as one stream: films, pieces of films, and pictures.

A file is taken once it has stood still, in the order of the times of change, and of names where
those are equal. One that is still written is waited for, as what is newer comes behind it. Video
time follows the clock: a film ends when its file was changed last. It never runs backwards, so a
file that would begin before the end of the one before it follows that one. Files can wait, so
nothing is dropped for an encoder that cannot keep up.

A file that is no film and no picture, or breaks off, is named once. Knows files and their ledger;
no segment and no bank.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from encoders.detail import DetailedSource
from encoders.errors import UserError
from encoders.schema import Frames, FrameSource
from encoders.sources.container import inspect
from encoders.sources.live.piece_recorder import StreamPiece
from encoders.sources.live.push_source import PushSource
from encoders.sources.picture_file import SUFFIXES as PICTURES
from encoders.sources.picture_file import read_picture
from encoders.sources.pictures import display_ratio
from encoders.sources.sampling import sampling_mask
from pipeline.schema import source_warning
from pipeline.server.streams.folders.file_ledger import FileEntry, FileLedger
from pipeline.watch.folder import SUFFIXES as FILMS
from pipeline.watch.folder import FilmFile, Folder

SCHEME = "folder:"  # what the address of such a stream begins with
SETTLE_S = 2.0  # without a change, after which a file is whole
_PATIENCE_S = 30.0  # for which the newest file may be unreadable: it may still be copied
_LOOK_S = 0.5
_BATCH = 4  # frames that are encoded in one turn
_BREAKS_OFF = "breaks off"

OpenFilm = Callable[[Path, float, tuple[int, int]], FrameSource]
"""Opens a film: its path, frames a second, (width, height) of a frame. UserError on what is none.
"""

log = logging.getLogger(__name__)


def folder_of(url: str) -> Path:
    """The folder of an address."""
    return Path(url.removeprefix(SCHEME)).expanduser().absolute()


def shown_folder(url: str) -> str:
    """An address as clients see it: with the name of the folder alone."""
    return f"{SCHEME}{folder_of(url).name}"


class FolderSource(PushSource):
    """A folder that grows. It ends when it is closed, or when the folder cannot be read."""

    def __init__(
        self,
        url: str,
        fps: float = 1.0,
        *,
        width: int,
        height: int,
        name: str,
        ledger: FileLedger,
        open_film: OpenFilm,
        settle: float = SETTLE_S,
        patience: float = _PATIENCE_S,
    ) -> None:
        """ledger: of what was taken; it is closed with the source. settle: seconds for which a file
        must not have changed. patience: for which the newest one may be unreadable."""
        super().__init__(name, fps, width=width, height=height, path=shown_folder(url))
        self._folder = Folder(folder_of(url), suffixes=(*FILMS, *PICTURES))
        self._ledger, self._open_film = ledger, open_film
        self._settle, self._patience = settle, patience
        # gets each film once its frames are handed on, and returns where the event is set
        self.take_piece: Callable[[StreamPiece, threading.Event], None] | None = None
        self.files_taken = self.files_passed_over = 0
        self._done: dict[Path, FilmFile] = {}  # taken or passed over, as they were
        self._began = 0.0  # Unix seconds of second 0
        self._end = 0.0  # seconds of video time of the end of the last file
        self._shown = 0.0  # of the newest frame that was handed on
        self._has_no_more = True
        self._rest: FileEntry | None = None  # the file in which the session before ended

    @property
    def is_idle(self) -> bool:
        return self._has_no_more

    @property
    def urgency(self) -> tuple[float, float]:
        return 0.0, 0.0  # files can wait

    @property
    def now(self) -> float:
        return self._shown

    def start_clock(self, start: float) -> float:
        """Go on with the file that shows `start`, else with the first one that is new."""
        self._ledger.forget_from(start)
        self._rest = self._ledger.at(start) if start > 0 else None
        self._shown, self._before = start, start if start > 0 else -np.inf
        if self._rest is not None:
            self._began, self._end = self._rest.began, self._rest.end
            return self._began
        self._end = start + 1 / self._fps if start > 0 else 0.0
        # a copy that is not whole yet may be readable a little later
        new = next((one for one in self._new_files() if not _problem(one.path)), None)
        first = time.time() if new is None else _wall_of(new, _length(new.path))
        self._began = round(first - self._end, 3)
        return self._began

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Batches of a few frames of one file, until the source is closed."""
        try:
            if self._rest is not None:
                yield from self._go_on(self._rest, start)
            while not self._closed.is_set():
                file = self._next()
                if file is None:
                    self._has_no_more = True
                    self._closed.wait(_LOOK_S)
                else:
                    yield from self._take(file)
        finally:
            self._ledger.close()

    def _new_files(self) -> Iterator[FilmFile]:
        """Files that were not taken, in order. UserError where the folder cannot be read."""
        try:
            found = self._folder.look(time.monotonic())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(
                f"{self._path} cannot be read ({reason}); check that the folder is there"
            ) from None
        self._done = {path: one for path, one in self._done.items() if path in found}
        for file in sorted(found.values(), key=lambda one: (one.changed_ns, one.path)):
            done = self._done.get(file.path)
            if done is not None and done.is_like(file):
                continue
            if self._ledger.entry(self._name_of(file.path), file) is not None:
                self._done[file.path] = file
                continue
            yield file

    def _next(self) -> FilmFile | None:
        """The next file that is whole; None: there is none yet."""
        new = self._new_files()
        while (file := next(new, None)) is not None:
            still = time.monotonic() - file.still_since
            if still < self._settle:
                return None
            problem = _problem(file.path)
            if not problem:
                return file
            # it may still be copied, unless the camera has gone on
            if still < self._patience and next(new, None) is None:
                return None
            if problem != _BREAKS_OFF:
                self._pass_over(file, problem)
                new = self._new_files()
                continue
            self._tell(f"{self._name_of(file.path)} {problem}; it is taken as far as it goes")
            return file
        return None

    def _pass_over(self, file: FilmFile, problem: str) -> None:
        name = self._name_of(file.path)
        entry = FileEntry(name, file.size, file.changed_ns, self._end, self._end, 0.0, problem)
        self._ledger.put(entry)
        self._done[file.path] = file
        self.files_passed_over += 1
        self._tell(f"{name} is passed over: {problem}")

    def _take(self, file: FilmFile) -> Iterator[Frames]:
        """The frames of a file that is new."""
        length = _length(file.path)
        start = max(round(_wall_of(file, length) - self._began, 3), self._end)
        name = self._name_of(file.path)
        entry = FileEntry(name, file.size, file.changed_ns, start, start + length, self._began)
        self._ledger.put(entry)
        self._done[file.path] = file
        self._end = entry.end
        self.files_taken += 1
        yield from self._frames_of(entry, start)

    def _go_on(self, entry: FileEntry, start: float) -> Iterator[Frames]:
        """What the session before did not come to."""
        path = self._folder.root / entry.path
        try:
            status = path.stat()
        except OSError:
            self._tell(f"{entry.path} is gone, and the end of it is lost")
            return
        if (status.st_size, status.st_mtime_ns) == (entry.size, entry.changed_ns):
            yield from self._frames_of(entry, start)

    def _frames_of(self, entry: FileEntry, after: float) -> Iterator[Frames]:
        """Frames of a file from second `after` of video time on."""
        path = self._folder.root / entry.path
        try:
            before: Frames | None = None
            for frames in self._pictures_of(path, entry.start, after):
                if self._closed.is_set():
                    return
                if before is not None:
                    yield self._handed_on(before, has_no_more=False)
                before = frames
            if before is not None:
                yield self._handed_on(before, has_no_more=next(self._new_files(), None) is None)
        except (UserError, OSError) as error:
            self._tell(f"{entry.path} is read no further: {str(error).rstrip('. ')}")
            return
        if self.take_piece is not None and not _is_picture(path):
            self.take_piece(StreamPiece(path, entry.start, entry.end, is_own=False), self._closed)

    def _pictures_of(self, path: Path, start: float, after: float) -> Iterator[Frames]:
        """Frames of a film or a picture, on the clock of the stream. start: of its first one."""
        if _is_picture(path):
            if start >= after and self._is_due(start):
                self._before = start
                yield self._frames(read_picture(path, path.name), start)
            return
        if self.fit is not None:
            self._size, self.fit = self.fit(display_ratio(path) or 1.0), None
        film = self._open_film(path, self._fps, self._size)
        if self._detail is not None and isinstance(film, DetailedSource):
            film.add_detail(self._detail)
        for frames in film.frames(max(0.0, after - start)):
            own = replace(frames, video_id=self._name, times=frames.times + start)
            # pieces that are shorter than a step of the grid begin with a frame that is none of it
            due = np.flatnonzero(sampling_mask(own.times, self._fps, self._before))
            self._before = float(own.times[-1])
            if len(due):
                for first in range(int(due[0]), len(own), _BATCH):
                    yield own.part(first, min(first + _BATCH, len(own)))
        if warning := source_warning(film.info):
            self._tell(f"{path.name}: {warning}")

    def _handed_on(self, frames: Frames, *, has_no_more: bool) -> Frames:
        self._has_no_more, self._shown = has_no_more, float(frames.times[-1])
        self.frames_sampled += len(frames)
        self.show(frames)
        return frames

    def show(self, frames: Frames) -> None:
        """Called with what is handed on; for the page."""

    def _is_due(self, at: float) -> bool:
        """Whether a frame at this second is the first one of its step of the grid."""
        return bool(sampling_mask(np.array([at]), self._fps, self._before)[0])

    def _name_of(self, path: Path) -> str:
        return str(path.relative_to(self._folder.root))

    def _tell(self, line: str) -> None:
        log.warning("reelbank: warning: stream %s: %s", self._name, line)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


def _problem(path: Path) -> str:
    """Why a file cannot be taken as it is; "" if it can."""
    try:
        if path.stat().st_size == 0:
            return "it is empty"
        if _is_picture(path):
            read_picture(path, path.name, side=64)
            return ""
        return _BREAKS_OFF if inspect(path).cut_off else ""
    except UserError as error:
        return str(error).rstrip(". ")
    except OSError as error:
        return f"it cannot be read ({(error.strerror or str(error)).lower()})"


def _length(path: Path) -> float:
    """Seconds of a film; 0 for a picture, and for what is neither."""
    if _is_picture(path):
        return 0.0
    try:
        return float(inspect(path).end)
    except (UserError, OSError):
        return 0.0


def _wall_of(file: FilmFile, length: float) -> float:
    """Unix seconds at which a file of this many seconds begins: it was written until it was changed
    last."""
    return file.changed_ns / 1e9 - length
