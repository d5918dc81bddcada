"""Checks of a checkpoint before its weights are read, and one-sentence errors if they cannot be
read.

Knows folders, hub ids and transformers' configuration classes; no family and no forward pass.
Nothing from a checkpoint is executed: weights are safetensors, the rest is data, and code that
comes with a checkpoint (`auto_map`) is never trusted.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session

from encoders.errors import UserError

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig  # isort: skip  (after the operators are declared)
from transformers.utils import logging as transformers_logging  # isort: skip

# for one request; the hub's client alone makes five for every file, which takes 23 s without a
# network
HUB_SECONDS = 5.0
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def is_offline(path: str) -> bool:
    """True if only the cache can provide `path`: it is a hub id, and the hub does not answer one
    request.
    """
    if Path(path).expanduser().is_dir():
        return False
    if constants.is_offline_mode():
        return True
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:  # whatever the client raises: no answer means offline
        return True
    return False


def read_config(
    path: str, family: str | None, revision: str | None = None, *, local_only: bool = False
) -> Any:
    """The configuration of a folder or hub id. family: its required model type; None for any.
    UserError if it is missing, cannot be read, is of another family, or needs code of its own.
    """
    if path.startswith(("/", ".", "~")) and not Path(path).is_dir():
        raise UserError(
            f"There is no folder {path}; give backbone.path= a folder with a checkpoint, or the id "
            "of one."
        )
    try:
        raw, _ = PreTrainedConfig.get_config_dict(
            path, revision=revision, local_files_only=local_only
        )
        kind = raw.get("model_type")
        if kind not in CONFIG_MAPPING and "auto_map" in raw:
            raise UserError(
                f"The model at {path} (type {kind}) needs code that comes with the checkpoint, "
                "which is never run; take the "
                "same model in transformers' own format, whose id often ends in -hf."
            )
        if family is not None and kind != family:
            raise UserError(
                f"The model at {path} is of type {kind}, not {family}; choose the backbone= that "
                "fits it."
            )
        # False, not unset: unset asks on the terminal whether to run the checkpoint's code
        return AutoConfig.from_pretrained(
            path, revision=revision, local_files_only=local_only, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        if local_only and isinstance(error, OSError):
            raise UserError(
                f"The hub cannot be reached and {path} is not in its cache; "
                "give backbone.path=DIR, a folder with a checkpoint of this family."
            ) from error
        raise UserError(
            f"Cannot load a model from backbone.path={path}: {first_line(error)}"
        ) from error


def check_weights(path: str) -> None:
    """UserError if a folder's weights are incomplete or not safetensors. The hub's client checks
    hub ids itself.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    if (folder / INDEX).is_file():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{folder / INDEX} is damaged; copy the checkpoint again.") from error
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"The checkpoint at {path} is not whole: {INDEX} names {missing[0]}{more}, of "
                f"{len(shards)} files, which "
                "is not there; copy it again."
            )
    elif not (folder / "model.safetensors").is_file():
        pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
        if pickles:
            raise UserError(
                f"The checkpoint at {path} has pickled weights only ({pickles[0]}), which run code "
                "when they are read; save it "
                "as safetensors (save_pretrained) first."
            )
        raise UserError(
            f"There are no weights at backbone.path={path}: neither model.safetensors nor {INDEX}."
        )


def check_device(device: str) -> torch.device:
    """The device, after a number was put there. UserError if it is unknown or unavailable."""
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(
            f"backbone.device={device} is not available here; use one of {', '.join(here)}."
        ) from error
    return resolved


def check_memory(path: str, config: Any, dtype: torch.dtype, device: torch.device) -> None:
    """UserError if a folder's weights exceed the machine's memory. Linux would grant the memory and
    kill the process on use, without a message. Other devices raise errors themselves.
    """
    folder = Path(path)
    if device.type != "cpu" or not folder.is_dir() or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else dtype
    need = (
        sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        * dtype.itemsize
        // stored.itemsize
    )
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > available:
        raise _too_large(
            path,
            dtype,
            device,
            f"{need / 1e9:.1f} GB of weights, {available / 1e9:.1f} GB of memory",
        )


@contextmanager
def memory_errors_as_user_errors(
    path: str, dtype: torch.dtype, device: torch.device
) -> Iterator[None]:
    """Running out of memory inside becomes a UserError; every other error passes."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not out_of_memory(error):
            raise
        raise _too_large(path, dtype, device, first_line(error)) from error


def out_of_memory(error: BaseException) -> bool:
    """True if a device, torch's allocator, a mapped file or Python itself had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("allocate memory", "not enough memory", "out of memory", "unable to mmap")
    return any(word in str(error).lower() for word in words)


def _too_large(path: str, dtype: torch.dtype, device: torch.device, why: str) -> UserError:
    halve = "" if dtype.itemsize <= 2 else "backbone.dtype=bfloat16, "
    place = "backbone.device=cuda" if device.type == "cpu" else "backbone.device=cpu"
    return UserError(
        f"The model at {path} does not fit into the memory of {device} in "
        f"{str(dtype).removeprefix('torch.')} "
        f"({why.rstrip('.')}); choose a smaller backbone=, {halve}or {place}."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextmanager
def quiet_loading(local: bool) -> Iterator[None]:
    """Hide the progress bar while weights are read from a folder, which takes moments; a download
    keeps its bar.
    """
    was_enabled = transformers_logging.is_progress_bar_enabled()
    if local:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if local and was_enabled:
            transformers_logging.enable_progress_bar()
