"""The films of a folder, and since when each of them has stood still.

Knows names, sizes and times of files; no film and no bank.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg",
    ".vob", ".flv", ".wmv", ".asf", ".3gp", ".ogv", ".mxf",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FilmFile:
    """A file as it was seen."""

    path: Path
    size: int  # bytes
    changed_ns: int  # its time of change
    inode: int
    still_since: float  # second of the watch from which on it has not changed

    def is_like(self, other: "FilmFile") -> bool:
        """Whether nothing was written between the two looks."""
        own = self.size, self.changed_ns, self.inode
        return own == (other.size, other.changed_ns, other.inode)


class Folder:
    """Looks at a folder again and again."""

    def __init__(
        self, root: Path, *, recursive: bool = True, suffixes: tuple[str, ...] = SUFFIXES
    ) -> None:
        """recursive: folders in it are looked at too. Hidden files and folders are not. suffixes:
        of the files, in small letters."""
        self.root = root
        self._recursive, self._suffixes = recursive, suffixes
        self._seen: dict[Path, FilmFile] = {}

    def look(self, now: float) -> dict[Path, FilmFile]:
        """Every film by path, in the order of paths. now: seconds of a clock that only rises.
        OSError where the folder cannot be read."""
        found = {}
        for path, status in sorted(self._files(self.root), key=lambda pair: pair[0]):
            one = FilmFile(path, status.st_size, status.st_mtime_ns, status.st_ino, now)
            before = self._seen.get(path)
            if before is not None and one.is_like(before):
                one = replace(one, still_since=before.still_since)
            found[path] = one
        self._seen = found
        return found

    def _files(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if self._recursive:
                            yield from self._files(Path(entry.path))
                    elif entry.is_file() and entry.name.lower().endswith(self._suffixes):
                        yield Path(entry.path), entry.stat()
                except OSError:  # it went away, or may not be read
                    continue
