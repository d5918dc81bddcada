"""Frames and texts in one space without a model that was trained on both: ConSE.

Norouzi et al. 2013, arXiv 1312.5650. A classifier names what a frame shows, and a sentence encoder
turns these names into a vector. Both are weights that packages carry; downloads nothing. Knows
things and scenes; no relations, numbers, colours or actions, and no person: ImageNet has no such
classes.
"""

import hashlib
import threading
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.conse.class_vectors import class_texts_digest, class_vectors
from encoders.conse.required_packages import missing_packages
from encoders.errors import UserError
from encoders.models.imagenet.efficientnet_lite import SIDE
from encoders.models.imagenet.image_classifier import ImageClassifier
from encoders.models.imagenet.lite0_weights import DIGEST
from encoders.schema import Frames
from encoders.text.packaged_encoder import PackagedEncoder

_REVISION = 1  # of what embeddings are computed from, and how


class ConseEncoder:
    """EfficientNet-Lite0 and all-MiniLM-L6-v2 as a DualEncoder of 384 numbers.

    A frame is the sum of its likeliest classes' vectors, weighted by their probabilities.
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        device: str = "cpu",
        dtype: str = "float32",
        batch: int = 4,
    ) -> None:
        """classes: the likeliest ones of a frame that count. device, dtype ("float32" or
        "bfloat16"), batch: of the classifier; texts are embedded on the CPU. UserError if a package
        is missing or a value cannot be. Weights are loaded with the first frame, or the first text.
        """
        if not 1 <= classes <= 1000:
            raise UserError(f"clip.classes={classes} does not fit; use 1 to 1000")
        if missing := missing_packages():
            raise UserError(f"clip=conse cannot work: {missing}")
        self.classifier = ImageClassifier(device=device, dtype=dtype, batch=batch)
        self._classes, self._dtype = classes, dtype
        self._sentences = PackagedEncoder()
        self._vectors: Tensor | None = None
        self._loading = threading.Lock()

    @property
    def detail_size(self) -> tuple[int, int]:
        """(width, height) in pixels: those of the classifier. See encoders/detail.py."""
        return SIDE, SIDE

    @torch.inference_mode()
    def embed_frames(self, frames: Frames) -> Tensor:
        """[T, 384] float32 unit rows. UserError if weights are not those that were checked."""
        best = self.classifier.probabilities(frames).topk(self._classes)
        vectors = self._class_vectors()[best.indices]  # [T, classes, 384]
        return F.normalize((best.values[..., None] * vectors).sum(1), dim=-1)

    def embed_text(self, text: str) -> Tensor:
        """[384] float32, unit length."""
        return self.embed_texts([text])[0]

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """[B, 384] float32 unit rows."""
        return self._sentences.embed(texts)

    def fingerprint(self) -> str:
        """16 hex digits over both models, the texts of the classes and their number; plus a suffix
        for dtypes other than float32.
        """
        return conse_fingerprint(self._classes, self._dtype)

    def _class_vectors(self) -> Tensor:
        with self._loading:
            if self._vectors is None:
                self._vectors = class_vectors(self._sentences)
            return self._vectors


def conse_fingerprint(classes: int, dtype: str) -> str:
    """The fingerprint of a ConseEncoder with these settings, without loading it."""
    parts = (_REVISION, DIGEST, class_texts_digest(), classes, PackagedEncoder().made_with)
    digest = hashlib.sha256("\n".join(str(part) for part in parts).encode())
    return digest.hexdigest()[:16] + ("" if dtype == "float32" else f"-{dtype}")
