"""bank.json, the manifest of a bank, and writer.lock, which lets one process write.

Knows nothing of segments. bank.json holds the format version and the provenance: the names and
values that must agree for two runs to share a bank (law 5). "sum" is a checksum of both; banks of
before have none. The catalog keeps a copy of the manifest, so that each restores the other.
"""

import fcntl
import json
import os
import stat
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage.atomic import TEMPORARY, make_folder, write_atomically
from memory.storage.checksums import of_bytes
from memory.storage.database import Database
from memory.storage.file_access import read_bytes, reason, why_not_regular

FORMAT = 3  # of segment files (memory/storage/segments/segment_file.py)
NAME, LOCK = "bank.json", "writer.lock"
Provenance = Mapping[str, str | int | float | None]
Values = dict[str, str | int | float | None]
# an older Reelbank does not look at this table
_TABLE = "CREATE TABLE IF NOT EXISTS manifest (provenance TEXT NOT NULL, sum TEXT NOT NULL)"


class BankBusyError(UserError):
    """Another process writes to the bank."""


class ManifestDamagedError(UserError):
    """bank.json is not as it was written; the catalog may have a copy."""


def open_manifest(
    root: Path,
    provenance: Provenance | None,
    *,
    create: bool,
    older: Provenance | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> Values:
    """Read the provenance of the bank at `root`. UserError if it differs from `provenance`, or if
    the folder is no bank; ManifestDamagedError if bank.json is damaged.

    provenance: None accepts any bank. create: create a missing bank. older: what a version of
    before recorded in place of `provenance`; a bank with it goes on in its own way. beside: files
    of a new bank by name, durable before bank.json is.
    """
    path = root / NAME
    if not path.is_file():
        _refuse_no_bank(root, create, set(beside or ()))
        if provenance is None:
            raise ValueError("a new bank needs its provenance")
        make_folder(root)
        # two processes that create the same bank: the second one reads what the first wrote
        lock = WriterLock(root)
        try:
            if not path.is_file():
                for name, data in (beside or {}).items():
                    write_atomically(root / name, data)
                write(root, provenance)
        finally:
            lock.release()
    stored = read(root)
    if provenance is not None and stored != older:
        _refuse_other(root, stored, provenance)
    return stored


def write(root: Path, provenance: Provenance) -> None:
    """Write bank.json durably."""
    body = {"format": FORMAT, "provenance": dict(provenance)}
    write_atomically(root / NAME, _pack(body | {"sum": _sum(body)}))


def read(root: Path) -> Values:
    """The provenance in bank.json. ManifestDamagedError; UserError for another format."""
    path = root / NAME
    try:
        data = json.loads(read_bytes(path))
        version, stored, checksum = data["format"], dict(data["provenance"]), data.get("sum")
        body = {key: value for key, value in data.items() if key != "sum"}
    except OSError as error:
        raise damage_error(root, reason(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damage_error(root, "it is not as it was written") from error
    # without a checksum: as older versions wrote it, or the checksum's own name is damaged
    if checksum != _sum(body) and (checksum is not None or set(data) != {"format", "provenance"}):
        raise damage_error(root, "it is not as it was written")
    if version != FORMAT:
        is_older = isinstance(version, int) and version < FORMAT
        remedy = (
            "encode its videos into another bank=DIR"
            if is_older
            else "use a newer Reelbank or another bank=DIR"
        )
        raise UserError(
            f"bank {root} has format {version} and this Reelbank reads format {FORMAT}; {remedy}"
        )
    return stored


def problems(root: Path, database: Database) -> list[tuple[Path, str]]:
    """What is wrong with bank.json and writer.lock, each with its path."""
    path, faults = root / NAME, []
    copy = copy_in(database)
    if copy is not None or os.path.lexists(path):
        try:
            data, stored = read_bytes(path), read(root)
        except OSError as error:
            return [(path, reason(error))]
        except UserError as error:
            return [(path, str(error))]
        if not _is_as_written(data):
            faults.append((path, "it is not as it was written"))
        if copy is not None and copy != stored:
            faults.append((path, f"it is not that of the catalog: {differences(stored, copy)}"))
    what = _lock_problem(root / LOCK)
    if what is not None:
        faults.append((root / LOCK, f"{what}; delete it, nothing is in it"))
    return faults


def is_as_written(root: Path) -> bool:
    """True if every byte of a readable bank.json is as this version writes it, or if it is one of
    before."""
    return _is_as_written(read_bytes(root / NAME))


def copy_in(database: Database) -> Values | None:
    """The copy of the provenance in the catalog; None if there is none or it is damaged."""
    if not database.rows("SELECT 1 FROM sqlite_master WHERE name = 'manifest'"):
        return None
    for text, checksum in database.rows("SELECT provenance, sum FROM manifest"):
        if of_bytes(str(text).encode()) == checksum:
            values: Values = json.loads(text)
            return values
    return None


def keep_copy(root: Path, provenance: Provenance, database: Database) -> None:
    """Put a copy of the manifest into the catalog, and a checksum into a bank.json of before. For
    the one writer. UserError if the catalog has the copy of another manifest."""
    copy = copy_in(database)
    if copy is not None and copy != dict(provenance):
        raise damage_error(root, "it is not that of the catalog")
    if copy is None:
        text = json.dumps(dict(provenance), sort_keys=True)
        with database.transaction() as db:
            db.execute(_TABLE)
            db.execute("DELETE FROM manifest")
            db.execute("INSERT INTO manifest VALUES (?, ?)", (text, of_bytes(text.encode())))
    if "sum" not in json.loads(read_bytes(root / NAME)):
        write(root, provenance)


def damage_error(root: Path, what: str) -> ManifestDamagedError:
    """The error to raise for bank.json. what: the end of a sentence about it."""
    return ManifestDamagedError(
        f"{root / NAME} is damaged ({what}); `reelbank bank action=repair bank={root}` restores it "
        "from the catalog"
    )


class WriterLock:
    """The right to write, held until `release` or the end of the process (also by kill -9)."""

    def __init__(self, root: Path) -> None:
        """UserError if something else than a file has the lock's name; BankBusyError."""
        path = root / LOCK
        what = _lock_problem(path)
        if what is not None:
            raise UserError(
                f"bank {root} cannot be written: {LOCK} is damaged ({what}); "
                f"`reelbank bank action=repair bank={root}` deletes it"
            )
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise BankBusyError(
                f"bank {root} is being written by another process (id {owner}); wait for it or use "
                "another bank=DIR"
            ) from error
        os.ftruncate(self._handle, 0)
        # the id is only for the message above; the lock is the flock
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._handle)


def repair_lock(root: Path) -> str | None:
    """Remove what stands in the place of writer.lock and is no file. Returns what it was."""
    path = root / LOCK
    what = _lock_problem(path)
    if what is not None:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return what


def _lock_problem(path: Path) -> str | None:
    """Why a path cannot be the lock; None if it can, or is missing."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    # the writer empties this file: through a link it would empty another one
    return "it is a link" if stat.S_ISLNK(mode) else why_not_regular(path)


def _refuse_no_bank(root: Path, create: bool, beside: Set[str]) -> None:
    """beside: names of files that a creation writes before bank.json."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file, not a bank; use another bank=DIR")
    if os.path.lexists(root / NAME) or os.path.lexists(root / "catalog.sqlite"):
        raise damage_error(root, why_not_regular(root / NAME) or "it is missing")
    # leftovers of a crash during creation count as empty
    entries = root.iterdir() if root.is_dir() else iter(())
    others = [path for path in entries if not _of_creation(path, {NAME, *beside})]
    if others:
        raise UserError(
            f"{root} is not a bank and not empty ({others[0].name} is in it); use another bank=DIR"
        )
    if not create:
        raise UserError(
            f"there is no bank at {root}; check bank=DIR or make one with `reelbank ingest`"
        )


def _of_creation(path: Path, names: Set[str]) -> bool:
    is_part = path.name.endswith(TEMPORARY) and path.name.startswith(tuple(f"{n}." for n in names))
    return path.name in {LOCK, *names} or is_part


def _refuse_other(root: Path, stored: Provenance, current: Provenance) -> None:
    if stored == current:
        return
    differ = differences(stored, current, "this run")
    keys = sorted({*stored, *current})
    options = "".join(f" {option}" for key in keys for option in _options(stored, current, key))
    raise UserError(
        f"bank {root} was made with {differ}; use another bank=DIR or run with the settings of the "
        f"bank{':' if options else ''}{options}"
    )


def differences(stored: Provenance, other: Provenance, whose: str = "there") -> str:
    absent = object()
    keys = [
        key
        for key in sorted({*stored, *other})
        if stored.get(key, absent) != other.get(key, absent)
    ]
    return ", ".join(f"{key}={_show(stored, key)} ({whose}: {_show(other, key)})" for key in keys)


def _options(stored: Provenance, current: Provenance, key: str) -> list[str]:
    """The backbone's settings, as on a command line, that turn the current value into the stored
    one: a suffix "-no-time-tags" stands for backbone.time_tags=false. Empty if more differs.
    """
    (was, before), (now, today) = (_suffixes(_show(values, key)) for values in (stored, current))
    if was != now:
        return []
    return [
        f"backbone.{name.replace('-', '_')}={'false' if name in before else 'true'}"
        for name in sorted(before ^ today)
    ]


def _suffixes(value: str) -> tuple[str, set[str]]:
    """ "ab12-no-time-tags" -> "ab12", {"time-tags"}"""
    plain, *names = value.split("-no-")
    return plain, set(names)


def _show(provenance: Provenance, key: str) -> str:
    return str(provenance[key]) if key in provenance else "absent"


def _pack(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"


def _is_as_written(data: bytes) -> bool:
    loaded = json.loads(data)
    return "sum" not in loaded or data == _pack(loaded)


def _sum(body: Mapping[str, Any]) -> str:
    return of_bytes(json.dumps(body, sort_keys=True).encode())
