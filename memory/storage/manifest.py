"""bank.json, the manifest of a bank, and writer.lock, which lets one process write.

Knows nothing of segments. bank.json holds the format version and the provenance: the names and
values that must agree for two runs to share a bank (law 5).
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from encoders.errors import UserError
from memory.storage.atomic import TEMPORARY, make_folder, write_atomically

FORMAT = 3  # of segment files (memory/storage/segments/segment_file.py)
Provenance = Mapping[str, str | int | float | None]


class BankBusyError(UserError):
    """Another process writes to the bank."""


def open_manifest(
    root: Path, provenance: Provenance | None, *, create: bool
) -> dict[str, str | int | float | None]:
    """Read the provenance of the bank at `root`. UserError if it differs from `provenance`, or if
    the folder is no bank.

    provenance: None accepts any bank. create: create a missing bank.
    """
    path = root / "bank.json"
    if not path.is_file():
        _refuse_no_bank(root, create)
        if provenance is None:
            raise ValueError("a new bank needs its provenance")
        make_folder(root)
        # two processes that create the same bank: the second one reads what the first wrote
        lock = WriterLock(root)
        try:
            if not path.is_file():
                data = {"format": FORMAT, "provenance": dict(provenance)}
                write_atomically(path, json.dumps(data, indent=2, sort_keys=True).encode() + b"\n")
        finally:
            lock.release()
    try:
        data = json.loads(path.read_bytes())
        version, stored = data["format"], dict(data["provenance"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; restore it or use another bank=DIR") from error
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
    if provenance is not None:
        _refuse_other(root, stored, provenance)
    return stored


class WriterLock:
    """The right to write, held until `release` or the end of the process (also by kill -9)."""

    def __init__(self, root: Path) -> None:
        self._handle = os.open(root / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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


def _refuse_no_bank(root: Path, create: bool) -> None:
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file, not a bank; use another bank=DIR")
    # leftovers of a crash during creation count as empty
    others = [path for path in root.iterdir() if not _of_creation(path)] if root.is_dir() else []
    if others:
        raise UserError(
            f"{root} is not a bank and not empty ({others[0].name} is in it); use another bank=DIR"
        )
    if not create:
        raise UserError(
            f"there is no bank at {root}; check bank=DIR or make one with `reelbank ingest`"
        )


def _of_creation(path: Path) -> bool:
    return path.name == "writer.lock" or (
        path.name.startswith("bank.json.") and path.name.endswith(TEMPORARY)
    )


def _refuse_other(root: Path, stored: Provenance, current: Provenance) -> None:
    absent = object()
    keys = [
        key
        for key in sorted({*stored, *current})
        if stored.get(key, absent) != current.get(key, absent)
    ]
    if not keys:
        return
    differ = ", ".join(
        f"{key}={_show(stored, key)} (this run: {_show(current, key)})" for key in keys
    )
    options = "".join(f" {option}" for key in keys for option in _options(stored, current, key))
    raise UserError(
        f"bank {root} was made with {differ}; use another bank=DIR or run with the settings of the "
        f"bank{':' if options else ''}{options}"
    )


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
