"""A digest of all that makes visual tokens of a checkpoint: everything but its language model.

Reads files, not modules: no weights have to be in memory, and of a large checkpoint only the tower
is read. Knows safetensors and names of tensors; no family.
"""

import hashlib
import re
from pathlib import Path

import torch
from safetensors import safe_open

from encoders.errors import UserError
from encoders.hub_cache import cached_folder, weight_files

# names of the language model's tensors, in checkpoints of transformers 4 and 5
_LANGUAGE = re.compile(r"(^|\.)(language_model|lm_head|text_model)\.|^model\.(layers|norm|embed_)")
_PICTURES = "*processor_config.json"  # what happens to pixels before the tower


def tower_digest(path: str, revision: str | None = None) -> str:
    """16 hex digits over the tensors outside the language model, and over the settings of its
    pictures. path: a folder, or a hub id that is in the cache. UserError if it cannot be read, or
    has no such tensors."""
    folder = Path(path) if Path(path).is_dir() else cached_folder(path, revision)
    if folder is None:
        raise UserError(f"There is no checkpoint {path} in the cache; name a folder with one.")
    digest = hashlib.sha256()
    count = 0
    try:
        for file in sorted(folder.glob(_PICTURES)):
            digest.update(file.name.encode() + file.read_bytes())
        for name in weight_files(folder):
            with safe_open(folder / name, "pt") as tensors:
                for key in sorted(tensors.keys()):
                    # a tower may hold a text_model of its own, such as that of a CLIP
                    if _LANGUAGE.search(key) and "vision" not in key:
                        continue
                    x = tensors.get_tensor(key).contiguous()
                    short = key.removeprefix("model.")
                    digest.update(f"{short} {x.dtype} {tuple(x.shape)}".encode())
                    digest.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
                    count += 1
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"The weights of {path} cannot be read: {error}.") from error
    if not count:
        raise UserError(f"The weights at {path} have no vision tower of their own.")
    return digest.hexdigest()[:16]
