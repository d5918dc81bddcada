"""Turns errors of the operating system and of SQLite into one sentence with a remedy.

Knows a bank's folder, nothing else of it.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.errors import UserError

_ROOM, _ACCESS = "free some space", "make it writable or use another bank=DIR"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _ACCESS,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
}
_SQLITE = {
    sqlite3.SQLITE_FULL: _ROOM,
    sqlite3.SQLITE_READONLY: _ACCESS,
    sqlite3.SQLITE_CANTOPEN: _ACCESS,
}
# SQLite's "disk I/O error" can also mean a full disk
_OTHERWISE = "make sure that the disk works and has room"


def message(root: Path, error: OSError | sqlite3.OperationalError) -> str:
    """What failed in the bank at `root`, and what to do."""
    if isinstance(error, OSError):
        what, remedy = error.strerror or str(error), _REMEDIES.get(error.errno or 0, _OTHERWISE)
    else:
        # the low byte is the kind of error
        what, remedy = str(error), _SQLITE.get(error.sqlite_errorcode & 0xFF, _OTHERWISE)
    return (
        f"bank {root} cannot be written ({what[:1].lower()}{what[1:]}); {remedy}: what was written "
        "before stays, and the same command goes on from there"
    )


@contextmanager
def as_user_errors(root: Path) -> Iterator[None]:
    """Raise UserError for errors inside the block, which writes to the bank at `root`."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise UserError(message(root, error)) from error
