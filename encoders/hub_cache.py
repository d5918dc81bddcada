"""Checkpoints in the hub's cache on this disk. Asks no hub, and knows no model classes."""

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

INDEX = "model.safetensors.index.json"


def cached_folder(
    repository: str, revision: str | None = None, file: str = "config.json"
) -> Path | None:
    """The folder of a repository in the cache, found by one of its files; None if it is not
    there.
    """
    cached = try_to_load_from_cache(repository, file, revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold a folder's weights."""
    if (folder / INDEX).is_file():
        return sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    return ["model.safetensors"]


def has_weights(folder: Path) -> bool:
    """True if all files with a folder's weights are there."""
    return all((folder / name).is_file() for name in weight_files(folder))
