"""What Hydra composed, kept in the user's cache folder: composing takes 0.25 s, most of it imports.

An entry is found by its key and by everything that it was made of: the files of conf/, the modules
that say what settings there are, and the versions of Hydra, by size and time of change. Holds no
text that a user wrote, such as a question. Every failure means that there is no entry.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import conf
from encoders.user_cache import user_cache
from pipeline.config.task_settings import WEIGHTS

_ENTRIES = 256  # of about 2 KB, at most; the oldest goes first
_LIBRARIES = ("hydra", "omegaconf")


class ComposeCache:
    """Plain values by plain keys, in a folder that belongs to the user alone."""

    def __init__(self) -> None:
        self._folder = _folder()

    def get(self, key: Any) -> Any:
        """The value of a key; None where there is none."""
        if self._folder is None:
            return None
        with suppress(OSError, ValueError, KeyError, TypeError):
            entry = json.loads(self._path(self._folder, key).read_bytes())
            return entry["value"] if entry["key"] == json.loads(_text(key)) else None
        return None

    def put(self, key: Any, value: Any) -> None:
        """Keep a value, if it is plain and the folder can be written."""
        if self._folder is None:
            return
        with suppress(OSError, ValueError, TypeError):
            text = _text({"key": key, "value": value})
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._path(self._folder, key)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(text)
            draft.replace(path)
            for old in sorted(self._folder.iterdir(), key=_changed)[:-_ENTRIES]:
                old.unlink(missing_ok=True)

    @staticmethod
    def _path(folder: Path, key: Any) -> Path:
        made_of = _text([key, sorted(_sources())])
        return folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.json"


def _folder() -> Path | None:
    """Where entries lie; None where another user could write there."""
    with suppress(OSError):
        folder = user_cache("settings")
        if folder.exists():
            about = folder.stat()
            if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
        return folder
    return None


def _sources() -> Iterator[tuple[str, int, int]]:
    """(path, time of change, size) of every file that an entry depends on."""
    own = Path(__file__).parent
    files = [str(path) for path in own.rglob("*.py")]
    for name in _LIBRARIES:
        spec = find_spec(name)
        files += [] if spec is None or spec.origin is None else [spec.origin]
    for file in files:
        about = os.stat(file)
        yield file, about.st_mtime_ns, about.st_size
    yield str(WEIGHTS), 0, 0  # paths of the embedded models stand in the values
    for folder in (top := Path(conf.__file__).parent), *filter(Path.is_dir, top.iterdir()):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".yaml"):
                    about = entry.stat()
                    yield entry.path, about.st_mtime_ns, about.st_size


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


def _text(value: Any) -> str:
    """JSON; the order of keys stays, as in text=[ocr,asr]. TypeError where there is no form."""
    return json.dumps(value, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value)} has no form in JSON")
