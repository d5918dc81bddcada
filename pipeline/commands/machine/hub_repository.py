"""A repository of a hub: what it holds, and its files fetched into the hub's cache and verified.

Through huggingface_hub's public functions, so HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE
count. That library begins a file anew when a download was interrupted; here, a large file goes on
where it stopped, and enters the cache when its sha256 is right. Pickles are never fetched.
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import HfApi, constants, get_session, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (
    build_hf_headers,
    disable_progress_bars,
    hf_raise_for_status,
    validate_repo_id,
)

from encoders.errors import UserError
from pipeline.config.units import format_size

_KINDS = (".safetensors", ".json", ".txt", ".jinja")  # data; nothing of it is executed
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SECONDS = 20.0  # without a byte
_TRIES = 5  # times in a row that a connection may break without a byte

# told how many bytes came; a resumed file begins with those that were there
Report = Callable[[int], None]


class NoHubError(UserError):
    """The hub does not answer."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository."""

    name: str
    size: int  # bytes
    sha256: str  # of a large file; "" for a small one, which git stores
    blob: str  # git's hash of a small file


@dataclass(frozen=True, slots=True)
class HubRepository:
    """The files of a model at one commit that Reelbank reads."""

    id: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def cache(self) -> Path:
        """The folder of the repository in the hub's cache."""
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.id, repo_type="model")

    def missing(self) -> int:
        """Bytes that have to be fetched: what is there, whole or in part, is left out."""
        missing = 0
        for file in self.files:
            if (self.cache / "blobs" / (file.sha256 or file.blob)).is_file():
                continue
            part = self._part(file)
            missing += file.size - (min(part.stat().st_size, file.size) if part.is_file() else 0)
        return missing

    def fetch(self, report: Report) -> Path:
        """The folder with all files, verified. UserError if one cannot be fetched, or is damaged
        twice.
        """
        with _sentences(self.id):
            (self.cache / "blobs").mkdir(parents=True, exist_ok=True)
            for file in self.files:
                if file.sha256:
                    self._fetch_large(file, report)
            disable_progress_bars()
            folder = snapshot_download(
                self.id,
                revision=self.revision,
                allow_patterns=[glob.escape(file.name) for file in self.files],
            )
        for file in self.files:
            self._verify(Path(folder) / file.name, file)
            if not file.sha256:
                report(file.size)
        return Path(folder)

    def _part(self, file: HubFile) -> Path:
        return self.cache / "blobs" / f"{file.sha256}.reelbank.incomplete"

    def _fetch_large(self, file: HubFile, report: Report) -> None:
        """A file under the name that the cache gives it: its sha256."""
        blob, part = self.cache / "blobs" / file.sha256, self._part(file)
        if blob.is_file():
            report(file.size)
            return
        with part.open("ab") as out:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another process fetches {file.name} of {self.id}; wait for it, or stop it"
                ) from None
            if part.stat().st_size > file.size:
                out.truncate(0)
            report(part.stat().st_size)
            _append(hf_hub_url(self.id, file.name, revision=self.commit), out, file.size, report)
            if _sha256(part) != file.sha256:
                part.unlink()
                raise UserError(
                    f"{file.name} of {self.id} did not come as the hub describes it and is "
                    "deleted; say the same command again"
                )
            os.replace(part, blob)

    def _verify(self, path: Path, file: HubFile) -> None:
        right = _sha256(path) == file.sha256 if file.sha256 else _git_hash(path) == file.blob
        if not right:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise UserError(
                f"{path.name} of {self.id} is damaged and is deleted; say the same command again"
            )


def look_up(repository: str, revision: str = "main") -> HubRepository:
    """What a repository holds. NoHubError without a hub, UserError if it has no weights that may
    be read.
    """
    with _sentences(repository):
        validate_repo_id(repository)
        info = HfApi().model_info(
            repository, revision=revision, files_metadata=True, timeout=_SECONDS
        )
    siblings = info.siblings or []
    # folders hold other formats of the same weights
    tops = [one for one in siblings if "/" not in one.rfilename]
    names = {one.rfilename for one in tops}
    kept = [one for one in tops if one.rfilename.endswith(_KINDS)]
    if any(one.startswith("open_clip_") and one.endswith(".safetensors") for one in names):
        # the same weights for transformers stand beside those for open_clip
        kept = [
            one
            for one in kept
            if one.rfilename.startswith("open_clip_") or not one.rfilename.endswith(".safetensors")
        ]
    if not any(one.rfilename.endswith(".safetensors") for one in kept):
        pickles = sorted(name for name in names if name.endswith(_PICKLES))
        if pickles:
            raise UserError(
                f"{repository} has pickled weights only ({pickles[0]}), which run code when they "
                "are read; choose a repository with safetensors"
            )
        raise UserError(f"{repository} holds no weights (no .safetensors); choose another one")
    files = tuple(
        HubFile(
            one.rfilename, int(one.size or 0), one.lfs.sha256 if one.lfs else "", one.blob_id or ""
        )
        for one in sorted(kept, key=lambda one: one.rfilename)
    )
    return HubRepository(repository, revision, info.sha or revision, files)


def check_space(repository: HubRepository) -> None:
    """UserError if the disk of the cache has no room for what is missing."""
    folder = repository.cache
    above = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    free, missing = shutil.disk_usage(above).free, repository.missing()
    if missing > free:
        raise UserError(
            f"{repository.id} needs {format_size(missing)} more and the disk of {above} has "
            f"{format_size(free)}; make room, or set HF_HOME to a folder on another disk"
        )


def _append(url: str, out: BinaryIO, size: int, report: Report) -> None:
    """Fetch what a file lacks. A broken connection is taken up again."""
    tries = _TRIES
    while (begin := os.fstat(out.fileno()).st_size) < size:
        headers = {**build_hf_headers(), "Range": f"bytes={begin}-", "Accept-Encoding": "identity"}
        try:
            with get_session().stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=_SECONDS
            ) as response:
                hf_raise_for_status(response)
                if response.status_code != 206 and begin:  # the whole file from its beginning
                    out.truncate(0)
                    report(-begin)
                for chunk in response.iter_bytes():
                    out.write(chunk)
                    out.flush()
                    report(len(chunk))
                    tries = _TRIES
        except Exception as error:
            if not _is_of_network(error) or tries == 0:
                raise
        tries -= 1
        if os.fstat(out.fileno()).st_size < size:
            if tries < 0:
                raise UserError(f"{url} ends too early; say the same command again")
            time.sleep(0.5)


@contextlib.contextmanager
def _sentences(repository: str) -> Iterator[None]:
    """What the hub's library raises becomes a UserError in one sentence."""
    place = constants.ENDPOINT
    try:
        yield
    except UserError:
        raise
    except GatedRepoError as error:
        raise UserError(
            f"{repository} is behind a form of its authors; agree to it at {place}/{repository}, "
            "and set HF_TOKEN to a token of yours"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{repository} has no such revision; check backbone.revision") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"There is no {repository} at {place}, or it is not public; check its name, and set "
            "HF_TOKEN if it is yours"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise UserError(f"{place} answers {status} about {repository}; try again later") from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise NoHubError(f"The hub at {place} cannot be reached") from error
    except ValueError as error:  # of validate_repo_id
        raise UserError(f"{repository} is no name of a repository, such as ORG/NAME") from error
    except Exception as error:
        if _is_of_network(error):
            raise NoHubError(f"The hub at {place} cannot be reached") from error
        raise


def _is_of_network(error: Any) -> bool:
    """True for what the library's HTTP client raises without an answer: its name changes."""
    return type(error).__module__.partition(".")[0].startswith(("httpx", "httpcore"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_hash(path: Path) -> str:
    """The name that git gives to the content of a small file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
