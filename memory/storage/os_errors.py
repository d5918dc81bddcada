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
# something else has the name of a file or folder of the bank
_IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENOTEMPTY)
_SQLITE = {
    sqlite3.SQLITE_FULL: _ROOM,
    sqlite3.SQLITE_READONLY: _ACCESS,
    sqlite3.SQLITE_CANTOPEN: _ACCESS,
}
# SQLite's "disk I/O error" can also mean a full disk
_OTHERWISE = "make sure that the disk works and has room"


def message(root: Path, error: OSError | sqlite3.OperationalError) -> str:
    """What failed in the bank at `root`, and what to do."""
    where = ""
    if isinstance(error, OSError):
        what, remedy = error.strerror or str(error), _REMEDIES.get(error.errno or 0, _OTHERWISE)
        if error.errno in _IN_THE_WAY:
            remedy = f"`reelbank bank action=verify bank={root}` names what is in the way"
            where = f": {error.filename}" if error.filename else ""
    else:
        # the low byte is the kind of error
        what, remedy = str(error), _SQLITE.get(_code(error), _OTHERWISE)
    return (
        f"bank {root} cannot be written ({what[:1].lower()}{what[1:]}{where}); {remedy}: what was "
        "written before stays, and the same command goes on from there"
    )


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """True if the bytes of a database are at fault, rather than the disk, rights or a lock."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    # SQLITE_ERROR: our statements are right, so the tables are not ours; no code: not UTF-8
    return _code(error) == sqlite3.SQLITE_ERROR


@contextmanager
def as_user_errors(root: Path) -> Iterator[None]:
    """Raise UserError for errors inside the block, which writes to the bank at `root`."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a mistake of the caller
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            raise UserError(message(root, error)) from error
        raise UserError(
            f"the catalog of bank {root} is damaged ({error}); `reelbank bank action=repair "
            f"bank={root}` rebuilds it from the segments"
        ) from error
    except OSError as error:
        raise UserError(message(root, error)) from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary code; SQLITE_ERROR for an error of the Python module, which has none."""
    return (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
