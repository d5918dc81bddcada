"""Writes files so that a name always shows the old bytes or all new ones, even after a power cut.

Knows nothing of what the bytes mean. `write_atomically` takes bytes; `replacing` serves writers
that need a path.
Order: 1 temporary file in the same folder, 2 fsync, 3 rename over the name, 4 fsync of the folder.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memory.storage import crash_points
from memory.storage.file_access import DAMAGED

# suffix of files that were never acknowledged; the one writer may delete them
TEMPORARY = ".tmp"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the contents of `path`; durable on return. OSError if the disk is full, read-only or
    broken: then `path` shows what it showed before, and no temporary is left."""
    # the process id keeps apart two readers that save the same rebuilt index
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        # 1 same folder, so that the rename stays within one file system
        with open(temporary, "wb") as file:
            crash_points.reached("create")
            file.write(data)
            file.flush()
            crash_points.reached("write")
            # 2 bytes before name: a rename may reach the disk before the data does
            os.fsync(file.fileno())
        crash_points.reached("sync")
        try:
            os.replace(temporary, path)  # 3
        except IsADirectoryError:
            set_aside(path)
            os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it would block other writes
        raise
    crash_points.reached("rename")
    sync_folder(path.parent)  # 4 the name itself
    crash_points.reached("sync folder")


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it over `path` unless the block raises.

    On an error the temporary is removed and `path` shows what it showed before.
    durable: fsync the file before the rename, so that the new bytes survive a power cut.
    """
    # suffix last: FFmpeg picks the container by it; the process id keeps two writers apart
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_file(path: Path) -> None:
    """Delete a file or a link. A folder stays: no bank has one where files are deleted."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Take a name away from what does not belong there: delete an empty folder, and rename anything
    else, since it may be of value to somebody."""
    try:
        path.rmdir()
        return
    except OSError:
        pass
    number = 0
    while os.path.lexists(aside := path.with_name(f"{path.name}{DAMAGED}{number or ''}")):
        number += 1
    os.replace(path, aside)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder, and its parents where missing, durably."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        crash_points.reached("make folder")
        sync_folder(each.parent)
        crash_points.reached("sync parent")
