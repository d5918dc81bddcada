"""Reads files and folders that can be damaged: a folder, a link or a pipe may stand in a file's
place.

Knows nothing of what the bytes mean. Only regular files are read, directly or through a link, so no
read waits and none is endless.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NO_RIGHTS = "it cannot be read: permission denied"
# suffix of what stood in the place of a file or folder of the bank (memory/storage/atomic.py)
DAMAGED = ".damaged"
_PLAIN = {
    errno.ENOENT: "it is missing",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a file stands where its folder should be",
    errno.ELOOP: "it is a link that leads nowhere",
    errno.EACCES: NO_RIGHTS,
    errno.EPERM: NO_RIGHTS,
    errno.EMEDIUMTYPE: "it is no regular file",
}
_RIGHTS = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder, or a folder that cannot be listed."""

    path: Path
    is_file: bool  # a regular file, perhaps through a link
    problem: str = ""  # of a folder that cannot be listed


def open_regular(path: Path) -> int:
    """A handle for reading. OSError if the path leads to no regular file."""
    # not blocking: a pipe would wait for somebody who writes
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EMEDIUMTYPE
        raise OSError(code, os.strerror(code), str(path))
    return handle


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file. OSError if it is none, or cannot be read."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def reason(error: OSError) -> str:
    """What is wrong with a file, as the end of a sentence about it."""
    text = _PLAIN.get(error.errno or 0)
    return text if text is not None else (error.strerror or str(error)).lower()


def lacks_rights(error: OSError) -> bool:
    """True if this user may not read; the bytes may be whole."""
    return error.errno in _RIGHTS


def why_not_regular(path: Path) -> str | None:
    """Why a path leads to no regular file; None if it does, or if nothing has this name."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if not os.path.lexists(path):
            return None
        return _PLAIN[errno.ELOOP] if error.errno == errno.ENOENT else reason(error)
    if stat.S_ISREG(mode):
        return None
    return _PLAIN[errno.EISDIR if stat.S_ISDIR(mode) else errno.EMEDIUMTYPE]


def walk(folder: Path) -> Iterator[Entry]:
    """Everything below a folder, by name, but no folder that can be listed, and nothing that was
    set aside. A folder that is missing has nothing in it."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if DAMAGED not in entry.name)
    except FileNotFoundError:
        if os.path.lexists(folder):
            yield Entry(folder, False, _PLAIN[errno.ELOOP])
        return
    except OSError as error:
        text = "a file stands in its place" if error.errno == errno.ENOTDIR else reason(error)
        yield Entry(folder, False, text)
        return
    for name in names:
        path = folder / name
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            yield Entry(path, False, reason(error) if lacks_rights(error) else "")
            continue
        if stat.S_ISDIR(mode):
            yield from walk(path)
        else:
            yield Entry(path, stat.S_ISREG(mode))
