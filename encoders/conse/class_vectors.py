"""ImageNet's classes as vectors of a sentence encoder, computed once and kept in the user's
cache.
"""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from encoders.models.imagenet.class_names import image_classes
from encoders.text.lines import SentenceEncoder
from encoders.user_cache import user_cache


def class_texts_digest() -> str:
    """16 hex digits over the names and glosses."""
    texts = json.dumps([(one.names, one.gloss) for one in image_classes()])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def class_vectors(sentences: SentenceEncoder) -> Tensor:
    """[1000, E] float32 unit rows: of each class, the mean direction of its names and its gloss.

    Computing them takes some seconds. UserError if the sentence encoder cannot be loaded.
    """
    key = hashlib.sha256(f"{sentences.made_with} {class_texts_digest()}".encode()).hexdigest()
    kept: Path | None = None
    with suppress(OSError):
        kept = user_cache("weights") / f"class-vectors-{key[:16]}.safetensors"
    if kept is not None and (found := _read(kept)) is not None:
        return found
    names = sentences.embed([one.names for one in image_classes()])
    glosses = sentences.embed([one.gloss for one in image_classes()])
    vectors = F.normalize(names + glosses, dim=-1)
    if kept is not None:
        with suppress(OSError, SafetensorError):
            _write(kept, vectors)
    return vectors


def _read(path: Path) -> Tensor | None:
    """The vectors of a file; None if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            vectors: Tensor = file.get_tensor("vectors")
            return vectors if file.metadata()["sha256"] == _digest(vectors) else None
    except (OSError, SafetensorError, KeyError, TypeError):
        return None


def _write(path: Path, vectors: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as draft:
        file = Path(draft) / path.name
        save_file({"vectors": vectors}, file, {"sha256": _digest(vectors)})
        os.replace(file, path)


def _digest(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.numpy().tobytes()).hexdigest()
