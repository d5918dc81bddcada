"""Films of a folder that go into a bank as they come.

A film is taken up once it has stood still for some seconds. One that breaks off is left, since it
may still be copied; one that fails is tried again later. All state is in the bank: after a crash,
the next watch finds what is done by the bytes of the files. Knows an engine; no settings.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from encoders.errors import UserError
from encoders.sources.container import fingerprint, inspect
from memory.bank import MemoryBank
from memory.storage.catalog import VideoRow
from memory.storage.manifest import BankBusyError
from pipeline.config.units import format_time
from pipeline.engine import Engine
from pipeline.runtime.cancel import Cancelled
from pipeline.videos import follow_file
from pipeline.watch.folder import FilmFile, Folder

_AGAIN_S, _LATEST_S = 30.0, 600.0  # a film that failed waits so long, then twice as long each time
_BROKEN_S = 600.0  # a film that breaks off and has stood still for so long is taken as it is


@dataclass(slots=True)
class _Trouble:
    """Why a film is not in the bank yet."""

    file: FilmFile
    reason: str
    wait: float  # seconds until it is tried again
    again_at: float


class FolderWatch:
    """Takes up the films of a folder. One thread."""

    def __init__(
        self,
        engine: Engine,
        folder: Folder,
        *,
        settle: float,
        drops: bool,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """settle: seconds for which a film must not have changed. drops: a film that is deleted
        goes from the bank too. tell: gets one line for each thing that happens."""
        self._engine, self._folder = engine, folder
        self._settle, self._drops = settle, drops
        self._tell, self._clock = tell, clock
        self._done: dict[Path, FilmFile] = {}  # in the bank, or a copy of what is there
        self._ids: dict[Path, str] = {}  # of the films that are done
        self._troubles: dict[Path, _Trouble] = {}
        self._missing: dict[str, float] = {}  # id -> second from which on its film is not there
        self._notes = set[str]()  # told once

    def run(self, cancelled: threading.Event, *, every: float, once: bool = False) -> None:
        """Look every so many seconds until `cancelled` is set; once: until each film that is there
        now is in the bank or has failed."""
        while not cancelled.is_set():
            waits = self.look(cancelled)
            if once and not waits:
                return
            cancelled.wait(every)

    def look(self, cancelled: threading.Event) -> bool:
        """Take up what is ready. True where a film has to stand still first."""
        now = self._clock()
        try:
            films = self._folder.look(now)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._tell_once(f"{self._folder.root} cannot be read now ({reason})")
            return False
        waits = False
        for path, film in films.items():
            if cancelled.is_set():
                return False
            if self._is_done(path, film) or self._is_refused(path, film, now):
                continue
            if film.size == 0 or now - film.still_since < self._settle:
                waits = waits or film.size > 0
                continue
            self._take(film, cancelled)
        for path in self._done.keys() - films.keys():
            del self._done[path], self._ids[path]
        self._look_for_missing(films, now)
        return waits

    def _is_done(self, path: Path, film: FilmFile) -> bool:
        done = self._done.get(path)
        return done is not None and done.is_like(film)

    def _is_refused(self, path: Path, film: FilmFile, now: float) -> bool:
        trouble = self._troubles.get(path)
        return trouble is not None and trouble.file.is_like(film) and now < trouble.again_at

    def _take(self, film: FilmFile, cancelled: threading.Event) -> None:
        """Put a film into the bank, or remember why not."""
        path, name = film.path, self._name(film.path)
        try:
            facts = inspect(path)
            still = self._clock() - film.still_since
            if facts.cut_off and still < _BROKEN_S:
                self._fail(film, f"{name} breaks off; is it still copied? it is looked at again")
                return
            video_id = fingerprint(path)
            row = self._row(video_id)
            if row is not None and row.finished:
                self._recognize(film, row)
            else:
                report = self._engine.add(str(path), cancelled=cancelled)
                verb = "added" if row is None else "completed"
                self._tell(
                    f"{verb} {name}: {format_time(report.video_seconds)}, {report.frames} frames, "
                    f"{report.nbytes / 1e6:.1f} MB in {report.seconds['total']:.1f} s"
                )
                if report.warning:
                    self._tell(f"{name}: warning: {report.warning}")
            self._done[path], self._ids[path] = film, video_id
            self._troubles.pop(path, None)
        except BankBusyError as error:
            self._fail(film, f"the bank is busy, and {name} waits: {error}")
        except UserError as error:
            self._fail(film, f"failed {name}: {str(error).rstrip('. ')}; it is tried again")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._fail(film, f"failed {name}: it cannot be read ({reason}); it is tried again")
        except Cancelled:
            self._tell(f"stopped in {name}; the next watch goes on from there")

    def _recognize(self, film: FilmFile, row: VideoRow) -> None:
        """A film that the bank has: under its path, under another one, or a copy."""
        before = Path(row.info.path)
        if before == film.path:
            return
        with self._writing() as bank:
            has_moved = follow_file(bank, row, film.path)
        if has_moved:
            self._tell(f"moved {self._name(before)} to {self._name(film.path)}")
        else:
            self._tell(f"{self._name(film.path)} is a copy of {self._name(before)}")

    def _fail(self, film: FilmFile, reason: str) -> None:
        """Tell why a film is not in the bank, once for each reason, and let it wait."""
        before = self._troubles.get(film.path)
        wait = _AGAIN_S
        if before is not None and before.file.is_like(film):
            wait = min(2 * before.wait, _LATEST_S)
        if before is None or before.reason != reason:
            self._tell(reason)
        self._troubles[film.path] = _Trouble(film, reason, wait, self._clock() + wait)

    def _look_for_missing(self, films: dict[Path, FilmFile], now: float) -> None:
        """Films of the bank that were in the folder and are there no more."""
        known = set(self._ids.values())
        gone = {
            row.info.video_id: Path(row.info.path)
            for row in self._engine.videos()
            if row.info.video_id not in known
            and Path(row.info.path).is_relative_to(self._folder.root)
            and Path(row.info.path) not in films
        }
        self._missing = {name: self._missing.get(name, now) for name in gone}
        waiting = any(self._is_new(path, film) for path, film in films.items())
        for video_id, path in gone.items():
            # a film that is not looked at yet may be this one under another name
            if waiting or now - self._missing[video_id] < self._settle:
                continue
            if not self._drops:
                self._tell_once(f"{self._name(path)} is gone; the bank keeps it")
            elif not films:
                self._tell_once(
                    f"{self._folder.root} is empty, as if a drive were missing; the bank keeps all"
                )
            else:
                with self._writing() as bank:
                    bank.drop(video_id)
                self._tell(f"dropped {self._name(path)}, which is gone")

    def _is_new(self, path: Path, film: FilmFile) -> bool:
        """Whether nothing was tried with a film as it is now."""
        trouble = self._troubles.get(path)
        is_tried = trouble is not None and trouble.file.is_like(film)
        return not self._is_done(path, film) and not is_tried

    @contextmanager
    def _writing(self) -> Iterator[MemoryBank]:
        """The bank, for changes that encode nothing."""
        bank = self._engine.reader
        try:
            yield bank
        finally:
            bank.end_writing()

    def _row(self, video_id: str) -> VideoRow | None:
        rows = self._engine.videos()
        return next((row for row in rows if row.info.video_id == video_id), None)

    def _tell_once(self, line: str) -> None:
        if line not in self._notes:
            self._notes.add(line)
            self._tell(line)

    def _name(self, path: Path) -> str:
        root = self._folder.root
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
