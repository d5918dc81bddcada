"""Facts about a file that are slow to compute, kept on disk until the file changes.

A scan of a film takes a second for each hour of it, and every command that looks into it needs one.
Knows records of arrays, tuples and numbers; no video. The cache may be deleted at any time.
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from encoders.user_cache import user_cache

_MOST_BYTES = 256 << 20  # of all entries; the oldest go first


def folder() -> Path:
    """films/ of Reelbank's folder in the user's cache. OSError for a user without a home."""
    return user_cache("films")


class RecordCache:
    """Records of one kind, by the files that they were computed from."""

    def __init__(self, types: Sequence[type], version: str) -> None:
        """types: dataclasses that a record consists of. version: of the code that computes them;
        entries of another version are not read.
        """
        self._types = {each.__name__: each for each in types}
        self._version = version

    def read(self, path: Path) -> Any:
        """The record of a file as it is now, or None. Paths in it are this path."""
        try:
            with np.load(io.BytesIO(self._entry(path).read_bytes()), allow_pickle=False) as entry:
                return self._record(json.loads(str(entry["record"])), entry, path)
        except (OSError, ValueError, KeyError, TypeError, BadZipFile, EOFError):
            return None  # there is none, or it is damaged

    def write(self, path: Path, record: Any) -> None:
        """Keep the record of a file. Does nothing where the cache cannot be written."""
        columns: dict[str, np.ndarray] = {}
        text = json.dumps(_plain(record, columns))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, record=np.array(text), **columns)  # type: ignore[arg-type]
        with suppress(OSError):
            target = self._entry(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
                file.write(buffer.getvalue())
            os.replace(file.name, target)
            _evict(target.parent)

    def _entry(self, path: Path) -> Path:
        """The entry's name changes with the file: its place, size, and times of change."""
        status = path.stat()
        state = (
            self._version, os.fsencode(path.resolve()), status.st_dev, status.st_ino,
            status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        )  # fmt: skip
        return folder() / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:32]}.npz"

    def _record(self, value: Any, columns: Mapping[str, np.ndarray], path: Path) -> Any:
        if isinstance(value, list):
            return tuple(self._record(each, columns, path) for each in value)
        if not isinstance(value, dict):
            return value
        kind, content = value["kind"], value["content"]
        if kind == "array":
            return columns[content]
        if kind == "column":
            return _restored(columns[content[0]], content[1])
        if kind == "path":
            return path
        if kind == "fraction":
            return Fraction(*content)
        if kind == "mapping":
            return content
        members = {name: self._record(each, columns, path) for name, each in content.items()}
        return self._types[kind](**members)


def version_of(*modules: Path) -> str:
    """Changes with the source text of these files."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(module.read_bytes())
    return digest.hexdigest()


def _plain(value: Any, columns: dict[str, np.ndarray]) -> Any:
    """The value as JSON takes it; arrays go into `columns`."""

    def marked(kind: str, content: Any) -> dict[str, Any]:
        return {"kind": kind, "content": content}

    if isinstance(value, np.ndarray):
        name = f"column{len(columns)}"
        if value.ndim != 1 or value.dtype.itemsize != 8:
            columns[name] = value
            return marked("array", name)
        columns[name] = _compact(value)
        return marked("column", [name, value.dtype.str])
    if is_dataclass(value):
        members = {each.name: _plain(getattr(value, each.name), columns) for each in fields(value)}
        return marked(type(value).__name__, members)
    if isinstance(value, Path):
        return marked("path", None)
    if isinstance(value, Fraction):
        return marked("fraction", [value.numerator, value.denominator])
    if isinstance(value, Mapping):
        return marked("mapping", dict(value))
    if isinstance(value, tuple):
        return [_plain(each, columns) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _compact(column: np.ndarray) -> np.ndarray:
    """[8, n] uint8 of an [n] column of 8-byte numbers: the bytes of the steps between their bits,
    which compress well where numbers rise evenly. Wraps around, so nothing is lost.
    """
    steps = np.diff(column.view("<u8"), prepend=np.uint64(0))
    return np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 8).T)


def _restored(planes: np.ndarray, dtype: str) -> np.ndarray:
    steps = np.ascontiguousarray(planes.T).reshape(-1).view("<u8")
    return np.cumsum(steps, dtype=np.uint64).view(dtype)


def _evict(root: Path) -> None:
    """Delete the oldest entries until the rest fits."""
    entries = sorted(root.glob("*.npz"), key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    used = 0
    for entry in entries:
        used += entry.stat().st_size
        if used > _MOST_BYTES:
            entry.unlink(missing_ok=True)
