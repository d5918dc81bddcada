"""Frames -> probabilities of ImageNet's classes, by EfficientNet-Lite0."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.errors import UserError
from encoders.models.acceleration.device import check_device
from encoders.models.imagenet.class_names import ImageClass, image_classes
from encoders.models.imagenet.efficientnet_lite import SIDE, EfficientNetLite
from encoders.models.imagenet.lite0_package import LITE0
from encoders.models.imagenet.lite0_weights import lite0_tensors
from encoders.schema import Frames

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class SeenClass:
    """A class that a frame may show."""

    shown: ImageClass
    probability: float  # of 1


class ImageClassifier:
    """EfficientNet-Lite0, loaded when a frame first needs it. Downloads nothing."""

    def __init__(self, *, device: str = "cpu", dtype: str = "float32", batch: int = 4) -> None:
        """dtype: of the computation, one of DTYPES. batch: frames in one pass. UserError if the
        device is not there, a value is none of these, or the package of the weights is missing.
        """
        if dtype not in DTYPES:
            raise UserError(f"clip.dtype={dtype} is not known; use one of {', '.join(DTYPES)}")
        if batch < 1:
            raise UserError(f"clip.batch={batch} is too small; use 1 or more")
        if missing := LITE0.missing():
            raise UserError(f"the weights of {LITE0.name} are missing: {missing}")
        self._device, self._batch = check_device(device, "clip.device"), batch
        self._dtype = getattr(torch, dtype)
        self._network: EfficientNetLite | None = None
        self._loading = threading.Lock()

    @torch.inference_mode()
    def probabilities(self, frames: Frames) -> Tensor:
        """[T, 1000] float32 on the CPU; rows add up to 1. Frames, or their detail, are resized to a
        square, whole.

        UserError if the weights are not those that were checked.
        """
        network = self._loaded()
        pixels = frames.pixels if frames.detail is None else frames.detail
        rows = [
            network(_prepared(pixels[at : at + self._batch])).softmax(-1).cpu()
            for at in range(0, len(frames), self._batch)
        ]
        return torch.cat(rows) if rows else torch.empty(0, len(image_classes()))

    def classes(self, frames: Frames, most: int = 5) -> Iterator[list[SeenClass]]:
        """For each frame its `most` likeliest classes, the likeliest first."""
        for row in self.probabilities(frames):
            best = row.topk(most)
            yield [
                SeenClass(image_classes()[number], probability)
                for probability, number in zip(
                    best.values.tolist(), best.indices.tolist(), strict=True
                )
            ]

    def _loaded(self) -> EfficientNetLite:
        with self._loading:
            if self._network is None:
                self._network = EfficientNetLite(lite0_tensors(), self._device, self._dtype)
            return self._network


def _prepared(pixels: np.ndarray) -> Tensor:
    """[T, height, width, 3] uint8 -> [T, 3, SIDE, SIDE] float32, scaled as in training."""
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    if pictures.shape[-2:] != (SIDE, SIDE):
        pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bicubic", antialias=True)
    return pictures.float().sub_(127.0).div_(128.0)
