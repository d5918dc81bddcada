"""InternVL 2.5, 3 and 3.5 (arXiv 2412.05271, 2504.10479, 2508.18265) through transformers' own
class: InternViT, pixel shuffle, a text model.

Knows only what is special in this family: every frame is an image of one tile between <img> and
</img>, after "Frame7: " on a line of its own.

The number is all that the family knows of time. By default it follows the time, also in a recalled
set: the frame sampled for k / fps seconds is number k + 1. For a whole video these are 1, 2, 3,
..., as the library's processor writes them, unless the file has no picture for a point of the
sampling grid. After hours the numbers exceed any seen in training; with frame_numbers=read the
frames of an answer are numbered 1, 2, 3, ..., which stored keys cannot be.
"""

from typing import Any, ClassVar, Unpack

import numpy as np
from torch import Tensor

from encoders.errors import UserError
from encoders.models.families.published_configs import decoder, tower
from encoders.models.families.single_frame import SingleFrameVLM
from encoders.models.video_llm import LoadOptions
from encoders.schema import VisualTokens, ticks

from transformers import InternVLForConditionalGeneration  # isort: skip  (after backbone declared the operators)


# InternViT of 0.3 and of 6 billion parameters
_SMALL_TOWER = tower(24, 1024, 4096, 448, 14) | {"attention_bias": True}
_LARGE_TOWER = tower(45, 3200, 12800, 448, 14, heads=25) | {
    "norm_type": "rms_norm",
    "use_qk_norm": True,
}


def _published(text: dict[str, Any], vision: dict[str, Any] = _SMALL_TOWER) -> dict[str, Any]:
    sides = {"image_size": [448, 448], "patch_size": [14, 14]}
    return {
        "model_type": "internvl",
        "vision_config": {"model_type": "internvl_vision"} | vision | sides,
        "text_config": text,
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "tie_word_embeddings": False,
    }


def _qwen2(layers: int, width: int, inner: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return decoder("qwen2", layers, width, inner, heads, kv_heads, 151674)


def _qwen3(layers: int, width: int, inner: int, heads: int) -> dict[str, Any]:
    more = {"head_dim": 128, "max_position_embeddings": 40960}
    return decoder("qwen3", layers, width, inner, heads, 8, 151936, **more)


class InternVL(SingleFrameVLM):
    """`internvl` checkpoints: those whose ids end in -hf, not the ones with code of their own."""

    model_class = InternVLForConditionalGeneration
    family = "internvl"
    published: ClassVar = {
        "OpenGVLab/InternVL3-1B-hf": _published(_qwen2(24, 896, 4864, 14, 2)),
        "OpenGVLab/InternVL3-2B-hf": _published(_qwen2(28, 1536, 8960, 12, 2)),
        "OpenGVLab/InternVL3-8B-hf": _published(_qwen2(28, 3584, 18944, 28, 4)),
        "OpenGVLab/InternVL3-14B-hf": _published(_qwen2(48, 5120, 13824, 40, 8)),
        "OpenGVLab/InternVL3-38B-hf": _published(_qwen2(64, 5120, 27648, 40, 8), _LARGE_TOWER),
        "OpenGVLab/InternVL3_5-1B-HF": _published(_qwen3(28, 1024, 3072, 16)),
        "OpenGVLab/InternVL3_5-2B-HF": _published(_qwen3(28, 2048, 6144, 16)),
        "OpenGVLab/InternVL3_5-4B-HF": _published(_qwen3(36, 2560, 9728, 32)),
        "OpenGVLab/InternVL3_5-8B-HF": _published(_qwen3(36, 4096, 12288, 32)),
        "OpenGVLab/InternVL3_5-14B-HF": _published(_qwen3(40, 5120, 17408, 40)),
        "OpenGVLab/InternVL3_5-38B-HF": _published(_qwen3(64, 5120, 25600, 64), _LARGE_TOWER),
    }
    checked_equal = True

    def __init__(
        self,
        path: str,
        *,
        fps: float = 1.0,
        frame_numbers: str = "time",
        **options: Unpack[LoadOptions],
    ) -> None:
        """fps: sampled frames per second, the bank's; it numbers the frames. frame_numbers: time,
        or read, which numbers the frames of an answer from 1 (reader=tokens only). UserError on
        bad values.
        """
        if frame_numbers not in ("time", "read"):
            raise UserError(
                f"backbone.frame_numbers={frame_numbers} is not known; use time or read."
            )
        self.renumbers_frames = frame_numbers == "read"
        super().__init__(path, **options)
        if not fps > 0:
            raise UserError(
                f"backbone.fps={fps} cannot number frames; use the bank's frames per second."
            )
        self.fps = fps

    def _split_chat(self) -> tuple[str, str]:
        # Lines are separated by "\n", which here opens each frame's line. So the "\n" that ends the
        # preamble already belongs to the first frame.
        before, after = super()._split_chat()
        return before.removesuffix("\n"), after

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) of one tile; videos are resized to it, as by the family's processor."""
        height, width = self.config.vision_config.image_size
        return int(width), int(height)

    @staticmethod
    def frame_grid(config: Any, width: int = 0, height: int = 0) -> tuple[int, int]:
        """The tower's patch grid of one tile, after pixel shuffle."""
        vision = config.vision_config
        rows, columns = (
            int(side // patch * config.downsample_ratio)
            for side, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return rows, columns

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """A new line, the frame's number and the image marks."""
        return self._numbered(int(ticks(np.array([end]), self.fps)[0]) + 1)

    def _texts(self, visual: VisualTokens, whole: bool) -> list[tuple[list[int], list[int]]]:
        if not (whole and self.renumbers_frames):
            return super()._texts(visual, whole)
        return [self._numbered(number + 1) for number in range(len(visual.times))]

    def _numbered(self, number: int) -> tuple[list[int], list[int]]:
        return self.prompt.ids(
            f"\nFrame{number}: {self.processor.start_image_token}"
        ), self.prompt.ids(self.processor.end_image_token)

    def _features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.model.get_image_features(pixels).pooler_output
        return features
