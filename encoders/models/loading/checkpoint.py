"""Checks of a checkpoint before its weights are read, and one-sentence errors if they cannot be
read.

Knows folders, hub ids and transformers' configuration classes; no family and no forward pass.
Nothing from a checkpoint is executed: weights are safetensors, the rest is data, and code that
comes with a checkpoint (`auto_map`) is never trusted.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session

from encoders.errors import UserError
from encoders.hub_cache import INDEX, cached_folder, weight_files
from encoders.memory_limits import host_memory

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig  # isort: skip  (after the operators are declared)
from transformers.utils import logging as transformers_logging  # isort: skip

# for one request; the hub's client alone makes five for every file, which takes 23 s without a
# network
HUB_SECONDS = 5.0
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


def stored_bytes(path: str, config: Any, dtype: torch.dtype, revision: str | None) -> int | None:
    """Bytes of a checkpoint's weights in this dtype, by its files: of a folder, or of a hub id in
    the hub's cache. None if they are not on the disk.
    """
    files = _weight_files(path, revision)
    if not files:
        return None
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else dtype
    return sum(file.stat().st_size for file in files) * dtype.itemsize // stored.itemsize


def straight_to(device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` needs so that weights go to a device file by file. Empty, and they
    pass through the host's memory as a whole, where the package accelerate is missing.
    """
    if device.type == "cpu" or find_spec("accelerate") is None:
        return {}
    return {"device_map": {"": str(device)}}


def largest_file(path: str, revision: str | None) -> int | None:
    """Bytes of the largest file of a checkpoint's weights; None if they are not on the disk."""
    files = _weight_files(path, revision)
    return max((file.stat().st_size for file in files), default=None)


def check_memory(
    path: str, need: int, dtype: torch.dtype, device: torch.device, through_host: int | None = None
) -> None:
    """UserError if `need` bytes of weights exceed the free memory of the host or of the device.
    Linux would grant memory that is not there, and kill the process on use, without a message.

    through_host: bytes that are in the host's memory at once on the way to a device; None: all.
    """
    needs = {"cpu": need if through_host is None else min(need, through_host)}
    free = {"cpu": host_memory()}
    if device.type == "cuda":
        needs[str(device)], free[str(device)] = need, torch.cuda.mem_get_info(device)[0]
    for place, available in free.items():
        if available is not None and needs[place] > available:
            why = f"{needs[place] / 1e9:.1f} GB of weights, {available / 1e9:.1f} GB of memory"
            if place != str(device):
                why += f", through which they reach {device}"
            raise _too_large(path, dtype, torch.device(place), why, device)


def _weight_files(path: str, revision: str | None) -> list[Path]:
    """The files of a checkpoint's weights; none unless all are on the disk."""
    folder: Path | None = Path(path)
    if not Path(path).is_dir():
        folder = cached_folder(path, revision)
    files = [] if folder is None else [folder / name for name in weight_files(folder)]
    return files if all(file.is_file() for file in files) else []


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


def _too_large(
    path: str, dtype: torch.dtype, place: torch.device, why: str, device: torch.device | None = None
) -> UserError:
    """place: whose memory is too small. device: that the model was meant for; None: the same."""
    choices = ["a smaller backbone="]
    if dtype.itemsize > 2:
        choices.append("backbone.dtype=bfloat16")
    if device in (None, place):  # else no other device helps
        choices.append("backbone.device=" + ("cuda" if place.type == "cpu" else "cpu"))
    *others, last = choices
    remedy = f"{', '.join(others)} or {last}" if others else last
    return UserError(
        f"The model at {path} does not fit into the memory of {place} in "
        f"{str(dtype).removeprefix('torch.')} ({why.rstrip('.')}); choose {remedy}."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextmanager
def quiet_loading(local: bool, *, partial: bool = False) -> Iterator[None]:
    """Hide the progress bar while weights are read from a folder, which takes moments; a download
    keeps its bar. Hide the advice to its author if a configuration lacks the flag for tied weights:
    transformers compares the weights themselves, and loads them right. partial: also hide the
    report of weights in the checkpoint that nobody asked for.
    """
    was_enabled = transformers_logging.is_progress_bar_enabled()
    if local:
        transformers_logging.disable_progress_bar()
    logger = transformers_logging.get_logger("transformers.modeling_utils")
    filters = [_is_not_about_ties, *[_is_no_report] * partial]
    for one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for one in filters:
            logger.removeFilter(one)
        if local and was_enabled:
            transformers_logging.enable_progress_bar()


def _is_not_about_ties(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("The tied weights mapping and config")


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
