"""Files beside the segments, one for each segment and maker: durable, and checked byte by byte.

Knows files and rows of the catalog; not what is in them. Layout:
    <folder>/<video_id>/<key of the maker>/<number:06d>.safetensors
A file is written first and acknowledged then, by a row (side_rows.py). A crash leaves files without
a row: `verify` lists them, and the next writer deletes them. Files and rows of a segment go with
it.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from memory.storage import crash_points
from memory.storage.atomic import TEMPORARY, remove_file, set_aside, sync_folder
from memory.storage.catalog import Catalog
from memory.storage.file_access import reason, walk
from memory.storage.segments.side_rows import SideRow, SideRows
from memory.storage.segments.tensor_file import DamagedError


@dataclass(frozen=True, slots=True)
class SideProblem:
    """A damaged or missing file, or a leftover one."""

    path: Path
    text: str
    video_id: str = ""
    orphan: bool = False
    temporary: bool = False


class SideFiles(ABC):
    """The files of many videos under one folder."""

    def __init__(self, folder: Path, rows: SideRows, catalog: Catalog) -> None:
        self._root, self._files, self._catalog = folder, rows, catalog

    def path(self, video_id: str, maker: str, number: int) -> Path:
        """The file of a segment."""
        return self._root / video_id / maker / f"{number:06d}.safetensors"

    def path_of(self, row: SideRow) -> Path:
        """The file of a row."""
        return self.path(row.video_id, row.maker, row.number)

    def nbytes(self, video_id: str) -> int:
        """Bytes of a video's files."""
        return sum(self._files.nbytes(video_id).values())

    def discard(self, video_id: str, numbers: Iterable[int]) -> None:
        """Delete the files of segments whose rows are deleted."""
        numbers = set(numbers)
        folder = self._root / video_id
        for part in sorted(filter(Path.is_dir, folder.iterdir())) if folder.is_dir() else ():
            for number in numbers:
                remove_file(self.path(video_id, part.name, number))
            sync_folder(part)

    def drop(self, video_id: str) -> None:
        """Delete the files of a video whose rows are deleted."""
        folder = self._root / video_id
        if folder.exists():
            shutil.rmtree(folder)
            crash_points.reached(f"{self._root.name} gone")

    def sweep(self) -> None:
        """Delete what a crash left behind, and rows of segments that are gone or have other bytes.
        For the one writer, before it writes."""
        self._files.remove_outdated()
        if not self._root.is_dir():
            return
        for folder in filter(Path.is_dir, self._root.iterdir()):
            expected = {self.path_of(row) for row in self._files.rows(folder.name)}
            for part in filter(Path.is_dir, folder.iterdir()):
                for path in part.iterdir():
                    if path not in expected:
                        remove_file(path)
                if not any(part.iterdir()):
                    part.rmdir()
            if not any(folder.iterdir()):
                folder.rmdir()

    def verify(self) -> Iterator[SideProblem]:
        """Read every file and compare it with the rows."""
        expected = set()
        for row in self._files.rows():
            expected.add(self.path_of(row))
            what = self._problem(row)
            if what:
                yield SideProblem(self.path_of(row), what, row.video_id)
        for entry in walk(self._root):
            if entry.problem:
                yield SideProblem(entry.path, entry.problem)
            elif entry.path not in expected:
                is_temporary = entry.path.name.endswith(TEMPORARY)
                what = "a write was cut off" if is_temporary else "never acknowledged"
                yield SideProblem(
                    entry.path,
                    f"{what}; the next writer deletes this file",
                    orphan=not is_temporary,
                    temporary=is_temporary,
                )

    def clear(self) -> list[SideProblem]:
        """Delete damaged files with their rows: they can be made again from the film. Returns the
        problems that this solved."""
        damaged = [(row, what) for row in self._files.rows() if (what := self._problem(row))]
        for row, _ in damaged:
            path = self.path_of(row)
            if path.is_dir() and not path.is_symlink():
                set_aside(path)
            remove_file(path)
        self._files.remove(row for row, _ in damaged)
        return [SideProblem(self.path_of(row), what, row.video_id) for row, what in damaged]

    @abstractmethod
    def _frames_in(self, path: Path, row: SideRow) -> int:
        """How many frames the file of a row has, once all of it is read. DamagedError, OSError."""

    def _problem(self, row: SideRow) -> str:
        try:
            count = self._frames_in(self.path_of(row), row)
        except FileNotFoundError:
            return "an acknowledged file is gone"
        except OSError as error:
            return reason(error)
        except DamagedError as error:
            return str(error)
        segment = self._catalog.segment(row.video_id, row.number)
        fits = segment is not None and count == segment.frames
        return "" if fits else "its frames are not those of the segment"
