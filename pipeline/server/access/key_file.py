"""The named keys of a bank: a JSON file that only its owner may read, with digests, not keys.

A server reads it again once it changes, so a key that is revoked is refused from the next request
on. Where the file is there, a key is required, even if it holds none: nobody gets in then.
"""

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.errors import UserError
from memory.storage.atomic import sync_folder
from pipeline.server.access.key import Key


class KeyFile:
    """One file. Threads and processes: many may use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    @property
    def exists(self) -> bool:
        """Whether keys are required."""
        return self.path.exists()

    def keys(self) -> dict[str, Key]:
        """The keys by id, as they are now. UserError where the file cannot be read."""
        with self._lock:
            try:
                found = self.path.stat()
            except FileNotFoundError:
                self._keys, self._stamp = {}, None
                return self._keys
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._keys = self._read()
                self._stamp = stamp
            return self._keys

    def add(self, key: Key) -> None:
        """Keep a key. UserError where its name is taken."""
        with self._changing() as keys:
            if any(each.name == key.name for each in keys.values()):
                raise UserError(
                    f"{self.path} has a key {key.name} already; revoke it first, or choose another "
                    "name"
                )
            keys[key.id] = key

    def revoke(self, name: str) -> Key:
        """Forget a key. UserError where there is none of this name."""
        with self._changing() as keys:
            for key in keys.values():
                if key.name == name:
                    return keys.pop(key.id)
            names = ", ".join(sorted(each.name for each in keys.values())) or "none"
            raise UserError(f"{self.path} has no key {name}; it has {names}")

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys, to be changed in the block and written behind it; one process at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self._read() if self.path.exists() else {}
            yield keys
            self._write(keys)
        finally:
            os.close(lock)

    def _read(self) -> dict[str, Key]:
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))["keys"]
            return {row["id"]: Key.of(row) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path} cannot be read as a file of keys ({error}); make keys anew with "
                "`reelbank keys add`, or move the file away"
            ) from None

    def _write(self, keys: dict[str, Key]) -> None:
        data = json.dumps(
            {"version": 1, "keys": [each.to_dict() for each in keys.values()]}, indent=1
        )
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        file = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )  # from the beginning
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(data + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, self.path)
        sync_folder(self.path.parent)


def key_file_of(bank: str | Path) -> Path:
    """Where the keys of a bank are, unless keys= says otherwise."""
    return Path(f"{Path(bank)}-keys.json")
