"""Weights that packages carry: each file is compared with its known sha256 before it is loaded.

A package may hold a file in parts, because registries limit the size of an upload, or in a zip
archive in parts. Such weights are joined once, in the user's cache. Downloads nothing; knows no
model and no library that reads one.
"""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from encoders.errors import UserError
from encoders.extras import missing_line
from encoders.user_cache import user_cache

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 1 << 20  # bytes read at once


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of some weights."""

    name: str  # in the folder that a library reads
    sha256: str  # 64 hex digits, of the whole file
    parts: tuple[str, ...]  # "package/path" of each part, in the order in which they are joined
    member: str = ""  # not empty: the parts are a zip archive, and this is the file in it


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """The files of one model, and the packages that hold them."""

    name: str  # as a user reads it: Whisper tiny.en
    extra: str  # of Reelbank, that installs them; "": pip installs them without dependencies
    requirements: tuple[str, ...]  # what pip installs: package==version
    files: tuple[WeightFile, ...]

    @property
    def is_installed(self) -> bool:
        """True if every package is there. Imports none of them."""
        return all(find_spec(package) is not None for package in self._packages)

    @property
    def _packages(self) -> set[str]:
        return {part.partition("/")[0] for file in self.files for part in file.parts}

    def missing(self) -> str:
        """The missing packages, with the remedy; "" if they are installed."""
        if self.extra:
            return missing_line(self.extra, *sorted(self._packages))
        if self.is_installed:
            return ""
        return f"say `pip install --no-deps {' '.join(self.requirements)}`"

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all files."""
        digests = "".join(file.sha256 for file in sorted(self.files, key=lambda one: one.name))
        return hashlib.sha256(digests.encode()).hexdigest()[:16]

    def folder(self) -> Path:
        """The folder with all files, each of them checked.

        Files in parts are joined into the user's cache the first time. UserError if a package is
        missing, a file differs, or the cache cannot be written.
        """
        if not self.is_installed:
            raise UserError(f"the weights of {self.name} are missing: {self.missing()}")
        places = [[_place(part) for part in file.parts] for file in self.files]
        folder = places[0][0].parent
        if places == [[folder / file.name] for file in self.files]:
            for file in self.files:
                self._check(folder / file.name, file)
            return folder
        return self._joined()

    def _check(self, path: Path, file: WeightFile) -> None:
        """UserError if a file is missing or differs from what it should be."""
        try:
            facts = path.stat()
            digest = _digest(path, facts.st_size, facts.st_mtime_ns)
        except OSError as error:
            raise UserError(
                f"{path} of {self.name} cannot be read ({error.strerror}); {self._again}"
            ) from error
        if digest != file.sha256:
            raise self._differs(path, digest, file)

    def _differs(self, path: Path, digest: str, file: WeightFile) -> UserError:
        return UserError(
            f"{path} is not the file of {self.name} that was checked (sha256 {digest[:12]}... "
            f"instead of {file.sha256[:12]}...), so it is not loaded; {self._again}"
        )

    @property
    def _again(self) -> str:
        return f"install it again with pip install --force-reinstall {' '.join(self.requirements)}"

    def _joined(self) -> Path:
        """The folder in the cache. It appears with all its files at once."""
        folder = cache_folder() / f"{self.name.replace(' ', '-').lower()}-{self.fingerprint}"
        with contextlib.suppress(UserError):  # not there yet, or damaged: it is made again
            for file in self.files:
                self._check(folder / file.name, file)
            return folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _temporary_folder(folder.parent) as draft:
                for file in self.files:
                    self._join(file, draft / file.name)
                _put(draft, folder)
        except OSError as error:
            raise UserError(
                f"the weights of {self.name} cannot be joined in {folder.parent} "
                f"({error.strerror}); make room there, or set XDG_CACHE_HOME to another folder"
            ) from error
        return folder

    def _join(self, file: WeightFile, target: Path) -> None:
        digest = hashlib.sha256()
        with target.open("wb") as joined:
            for data in self._read(file):
                digest.update(data)
                joined.write(data)
            joined.flush()
            os.fsync(joined.fileno())
        if digest.hexdigest() != file.sha256:
            raise self._differs(_place(file.parts[0]), digest.hexdigest(), file)

    def _read(self, file: WeightFile) -> Iterator[bytes]:
        """The bytes of a file from its parts."""
        with contextlib.ExitStack() as stack:
            parts: list[IO[bytes]] = [
                stack.enter_context(_place(part).open("rb")) for part in file.parts
            ]
            if file.member:
                try:
                    archive = stack.enter_context(
                        zipfile.ZipFile(io.BufferedReader(JoinedParts(parts)))
                    )
                    member = stack.enter_context(archive.open(file.member))
                    while data := member.read(_CHUNK):
                        yield data
                except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
                    raise UserError(
                        f"the packages of {self.name} do not hold {file.member} whole; "
                        f"{self._again}"
                    ) from error
                return
            for stream in parts:
                while data := stream.read(_CHUNK):
                    yield data


class JoinedParts(io.RawIOBase):
    """The parts of a file as one file to read, without joining them on disk."""

    def __init__(self, parts: Sequence[IO[bytes]]) -> None:
        self._parts = parts
        self._sizes = [part.seek(0, os.SEEK_END) for part in parts]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, as files do."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: sum(self._sizes)}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fills a buffer from one part; 0 at the end."""
        begin = 0
        for part, size in zip(self._parts, self._sizes, strict=True):
            if self._at < begin + size:
                part.seek(self._at - begin)
                data = part.read(min(len(memoryview(buffer)), begin + size - self._at))
                memoryview(buffer)[: len(data)] = data
                self._at += len(data)
                return len(data)
            begin += size
        return 0


def cache_folder() -> Path:
    """Where joined weights lie: weights/ of Reelbank's folder in the user's cache."""
    return user_cache("weights")


def _place(part: str) -> Path:
    """The path of "package/path" where the package is installed."""
    package, _, path = part.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]) / path


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """sha256 of a file. size, changed_ns: of the file, so that a changed one is read again."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".joining-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(draft: Path, folder: Path) -> None:
    """Rename a finished folder to its name. Another process may have been faster, or left a damaged
    one there."""
    try:
        os.rename(draft, folder)
    except OSError:
        if not folder.is_dir():
            raise
        for path in draft.iterdir():  # each file at once; readers check every one
            os.replace(path, folder / path.name)
