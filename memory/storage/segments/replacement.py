"""The file that takes the place of a segment's file: readers find one of them whole, whenever the
process or the machine stops.

Order of a replacement:
    1 `<number>.replacement` beside the file, durable
    2 the row of the segment names its seal: from here on it is the segment
    3 it is renamed over the file
A crash after 1 leaves a replacement that no row names, which the next writer deletes. After 2 the
next writer ends 3; until then `file_of` finds it. A catalog that is rebuilt before that takes the
older file, which is whole as well. Knows no rows and no tensors.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from memory.storage import crash_points
from memory.storage.atomic import remove_file, sync_folder, write_atomically
from memory.storage.segments import tensor_file

SUFFIX = ".replacement"


def write(path: Path, data: bytes) -> None:
    """Step 1. The replacement is as old as the file: retention counts from then."""
    written, own = path.stat(), path.with_suffix(SUFFIX)
    write_atomically(own, data)
    os.utime(own, ns=(written.st_atime_ns, written.st_mtime_ns))


def finish(path: Path) -> None:
    """Step 3, after the row of step 2 is on the disk."""
    os.replace(path.with_suffix(SUFFIX), path)
    crash_points.reached("replaced")
    sync_folder(path.parent)
    crash_points.reached("sync replaced")


def file_of(path: Path, seal: str) -> Path:
    """The file with this seal: the replacement where it has it, otherwise the file itself.
    path: of the segment's file. seal: in its row."""
    own = path.with_suffix(SUFFIX)
    return own if _has(own, seal) else path


def is_ready(path: Path, seal: str) -> bool:
    """Whether step 1 left a replacement with this seal."""
    return _has(path.with_suffix(SUFFIX), seal)


def settle(path: Path, seal: str | None) -> None:
    """What a crash left of a replacement: step 3 if the row names it, otherwise nothing. seal: in
    the row; None: there is no row."""
    own = path.with_suffix(SUFFIX)
    if seal is not None and _has(own, seal):
        finish(path)
    else:
        remove_file(own)


def left_in(folder: Path) -> Iterator[Path]:
    """The paths of the segments of a folder that have a replacement."""
    for own in sorted(folder.glob(f"*{SUFFIX}")):
        if own.stem.isdecimal():
            yield own.with_suffix(".safetensors")


def _has(path: Path, seal: str) -> bool:
    try:
        return tensor_file.read_seal(path) == seal
    except (OSError, tensor_file.DamagedError):
        return False
