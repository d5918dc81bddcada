"""LLaVA-OneVision (arXiv 2408.03326) through transformers' own classes: SigLIP tower, projector, 2x
pooling, Qwen2.

Knows only what is special in this family: how pixels are normalized, that every frame gives the
same square grid of tokens, and that one learned newline token follows the last frame.
"""

from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from encoders.models.acceleration.jit_trace import JitTrace
from encoders.models.families.published_configs import decoder, tower
from encoders.models.families.single_frame import SingleFrameVLM
from encoders.models.video_llm import LoadOptions

from transformers import LlavaOnevisionForConditionalGeneration  # isort: skip  (after backbone declared the operators)


def _published(
    layers: int, width: int, inner: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False} | tower(
        26, 1152, 4304, 384, 14
    )
    return {
        "model_type": "llava_onevision",
        "vision_config": vision,
        "text_config": decoder(
            "qwen2", layers, width, inner, heads, kv_heads, vocabulary, tie_word_embeddings=tied
        ),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": tied,
    }


class LlavaOneVision(SingleFrameVLM):
    """`llava_onevision` checkpoints of transformers, from the hub or from a folder."""

    model_class = LlavaOnevisionForConditionalGeneration
    family = "llava_onevision"
    published: ClassVar = {
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": _published(24, 896, 4864, 14, 2, 152000, True),
        "llava-hf/llava-onevision-qwen2-7b-ov-hf": _published(
            28, 3584, 18944, 28, 4, 152128, False
        ),
    }
    checked_equal = True
    batch = 16

    def __init__(
        self, path: str, *, time_tags: bool = False, **options: Unpack[LoadOptions]
    ) -> None:
        """time_tags: "[mm:ss]" or "[hh:mm:ss]" before each frame. The published checkpoints were
        trained without them, and their processor writes none; the embedded model has them.
        """
        super().__init__(path, **options)
        self._time_tags = time_tags
        images = self.processor.image_processor
        self._mean = torch.tensor(images.image_mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(images.image_std, device=self.device).view(1, 3, 1, 1)
        self._features_of = JitTrace(self._with_newline, self.model.model.vision_tower)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) of the tower's square input; videos are resized to it, as by the family's
        processor.
        """
        side = int(self.config.vision_config.image_size)
        return side, side

    @staticmethod
    def frame_grid(config: Any, width: int = 0, height: int = 0) -> tuple[int, int]:
        """The tower's patch grid, pooled 2 x 2 with odd sides rounded up."""
        vision = config.vision_config
        side = -(-(vision.image_size // vision.patch_size) // 2)
        return side, side

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        return super().frame_text_ids(start, end) if self._time_tags else ([], [])

    def fingerprint(self) -> str:
        """As for every model. Keys without time tags get a suffix, because they are
        different keys.
        """
        return super().fingerprint() + ("" if self._time_tags else "-no-time-tags")

    def pixels(self, frames: np.ndarray) -> Tensor:
        """[T, H, W, 3] uint8 -> [T, 3, H, W] in the model's dtype, normalized as the checkpoint's
        processor states.
        """
        scaled = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float()
        # in place, because each copy took as long as the arithmetic
        return scaled.div_(255.0).sub_(self._mean).div_(self._std).to(self.dtype)

    def _features(self, pixels: Tensor) -> Tensor:
        output = self._features_of(pixels)
        return output[0, :-1].view(len(pixels), -1, output.shape[-1])

    def _with_newline(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] -> [1, n * rows * columns + 1, D], newline last."""
        output: Tensor = self.model.get_video_features(pixels[None]).pooler_output
        return output

    def _forget_tower(self) -> None:
        self._features_of.forget()

    def after_video(self) -> Tensor:
        """[1, D]: the learned newline that ends a video."""
        newline: Tensor = self.model.model.image_newline
        return newline[None].detach()
