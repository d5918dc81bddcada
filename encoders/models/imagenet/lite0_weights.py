"""The weights of EfficientNet-Lite0 that a package carries, as tensors.

The package holds a pickle, which can run code when it is read. It is compared with its known
sha256, read once in a process of its own by torch's reader that runs no code, and kept as
safetensors in the user's cache. What is loaded from there is compared as well. See NOTICE.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from encoders.errors import UserError
from encoders.models.imagenet import unpickle
from encoders.models.imagenet.lite0_package import LITE0
from encoders.models.packaged_weights import cache_folder

_SECONDS = 120.0  # for a process that imports torch and reads 19 MB; it takes 2

# of the tensors in its file, as `tensors_digest` counts them
DIGEST = "c68669a53d3f1136c6aed139574d42bf0915e12480411276e6ce8e22408dbbda"


def lite0_tensors() -> dict[str, Tensor]:
    """The tensors by their names in the package.

    UserError if the package is missing, or what it or the cache holds is something else.
    """
    cached_file = _cache_file()
    with contextlib.suppress(OSError, SafetensorError):
        if cached_file is not None and cached_file.is_file():
            tensors = load_file(cached_file)
            if tensors_digest(tensors) == DIGEST:
                return tensors
    return _convert(LITE0.folder() / LITE0.files[0].name, cached_file)


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and numbers, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        one = tensors[name].contiguous()
        digest.update(f"{name} {one.dtype} {list(one.shape)}\n".encode())
        digest.update(one.numpy().tobytes())
    return digest.hexdigest()


def _cache_file() -> Path | None:
    """The file in the user's cache; None for a user without one."""
    try:
        return cache_folder() / f"efficientnet-lite0-{DIGEST[:16]}.safetensors"
    except OSError:
        return None


def _convert(pickle: Path, cached_file: Path | None) -> dict[str, Tensor]:
    """Read the pickle in another process, and keep what was read where the cache can be written."""
    folder = None
    with contextlib.suppress(OSError):
        if cached_file is not None:
            cached_file.parent.mkdir(parents=True, exist_ok=True)
            folder = cached_file.parent if os.access(cached_file.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder) as draft:
        target = Path(draft) / "weights.safetensors"
        command = [sys.executable, "-P", unpickle.__file__, str(pickle), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
            why = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
            if done.returncode:
                raise UserError(f"{pickle} cannot be converted to safetensors: {why}")
            tensors = load_file(target)
        except (OSError, SafetensorError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{pickle} cannot be converted to safetensors: {error}") from error
        if tensors_digest(tensors) != DIGEST:
            raise UserError(f"{pickle} holds other numbers than were checked, so it is not loaded")
        if folder is not None and cached_file is not None:
            with contextlib.suppress(OSError):  # the next run converts again
                os.replace(target, cached_file)
    return tensors
