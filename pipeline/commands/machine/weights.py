"""Probes of weights: those that are shipped, those in the hub's cache, and which models fit here.

Knows sizes, files and free memory; loads no model.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants

from encoders.conse.required_packages import missing_packages
from encoders.hub_cache import cached_folder, has_weights
from encoders.memory_limits import host_memory
from pipeline.commands.machine.finding import Finding, Status
from pipeline.commands.machine.model_sizes import (
    CLIP_REPOSITORIES,
    CLIP_WEIGHTS,
    PARAMETERS,
    weight_bytes,
)
from pipeline.config.compose import options
from pipeline.config.task_settings import WEIGHTS
from pipeline.config.units import format_size

SECTION = "models"
_SHIPPED = (
    "video_llm/model.safetensors",
    "video_llm/config.json",
    "clip/open_clip_model.safetensors",
)
_NAMED = 3  # largest models that a line names


def shipped() -> Iterator[Finding]:
    """The weights inside the package."""
    absent = [name for name in _SHIPPED if not (WEIGHTS / name).is_file()]
    if absent:
        text = f"{WEIGHTS / absent[0]} is missing; install Reelbank again"
        yield Finding(SECTION, "embedded", Status.BROKEN, text, {"missing": absent})
        return
    nbytes = sum((WEIGHTS / name).stat().st_size for name in _SHIPPED)
    yield Finding(
        SECTION, "embedded", Status.OK,
        f"shipped, {format_size(nbytes)}; knows cards of the needle world only", {"bytes": nbytes},
    )  # fmt: skip


def cached() -> Iterator[Finding]:
    """The published models whose weights are on this disk."""
    where = Path(constants.HF_HUB_CACHE)
    here = [name for name, path in _published().items() if _is_here(path)]
    text = f"{', '.join(here)}, in {where}" if here else f"none in {where}; `reelbank pull NAME`"
    status = Status.OK if here else Status.NOTE
    facts = {"cache": str(where), "names": here, "endpoint": constants.ENDPOINT}
    yield Finding(SECTION, "fetched", status, text, facts)
    for name, repository in CLIP_REPOSITORIES.items():
        folder = cached_folder(repository, file=CLIP_WEIGHTS)
        found = folder is not None
        text = f"in {folder}" if found else f"finds real things in pictures; `reelbank pull {name}`"
        yield Finding(
            SECTION, f"clip={name}", Status.OK if found else Status.MISSING, text,
            {"repository": repository, "folder": str(folder) if found else None},
        )  # fmt: skip
    missing = missing_packages()
    text = missing or "finds real things in pictures by name, without a hub"
    status = Status.MISSING if missing else Status.OK
    yield Finding(SECTION, "clip=conse", status, text, {"missing": missing})
    for variable in ("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        if os.environ.get(variable):
            yield Finding(SECTION, variable, Status.NOTE, os.environ[variable])


def _published() -> dict[str, str]:
    """Name -> repository of every backbone that a hub has."""
    nodes = options("backbone", {"fps": 1.0})
    return {name: str(nodes[name]["path"]) for name in PARAMETERS if name != "embedded"}


def _is_here(repository: str) -> bool:
    folder = cached_folder(repository)
    return folder is not None and has_weights(folder)


def fits() -> Iterator[Finding]:
    """Which backbones fit into the memory of the host, and of each GPU, in bfloat16."""
    import torch

    free = {"cpu": host_memory()}
    for index in range(torch.cuda.device_count()):
        free[f"cuda:{index}"] = torch.cuda.mem_get_info(index)[0]
    sizes = sorted((weight_bytes(name), name) for name in PARAMETERS if name != "embedded")
    for device, available in free.items():
        if available is None:
            yield Finding(SECTION, f"fit {device}", Status.NOTE, "the free memory is not known")
            continue
        fit = [(nbytes, name) for nbytes, name in sizes if nbytes < available]
        largest = [f"{name} ({format_size(nbytes)})" for nbytes, name in fit[-_NAMED:]]
        text = f"{len(fit)} of {len(sizes)} published models in bfloat16"
        text += f", the largest {', '.join(largest)}" if largest else ""
        facts = {"free_bytes": available, "names": {name: nbytes for nbytes, name in fit}}
        yield Finding(SECTION, f"fit {device}", Status.NOTE, text, facts)
