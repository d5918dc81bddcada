"""Qwen2-VL and Qwen2.5-VL (arXiv 2409.12191, 2502.13923) through transformers' own classes.

Knows only what is special in these families. Two sampled frames make one temporal patch, so one
"frame" of the bank is a patch. Positions have three axes (M-RoPE). No times are written in text, so
position is all that the models know of time. Recalled frames are laid out side by side: these
families can tell the order of frames, not their times.

transformers since 5.3 and the authors' code (transformers 4.57.1, vLLM) differ in where text
continues after a video (`VideoGridPositions`). The authors are followed, because the checkpoints
were trained so; text_after_video selects the library's way.
"""

from typing import Any, ClassVar, Unpack

from encoders.models.families.patch_grid import PatchGridOptions, PatchGridVLM
from encoders.models.families.published_configs import decoder
from encoders.models.positions import VideoGridPositions

from transformers import (  # isort: skip  (after backbone declared the operators)
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

_QWEN_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}


def _qwen2(
    layers: int, width: int, inner: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    more = {"rope_parameters": _QWEN_ROPE, "tie_word_embeddings": tied}
    return {
        "model_type": "qwen2_vl",
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "hidden_size": width,
            "num_heads": 16,
            "mlp_ratio": 4,
        },
        "text_config": decoder(
            "qwen2_vl_text", layers, width, inner, heads, kv_heads, vocabulary, **more
        ),
        "tie_word_embeddings": tied,
    }


def _qwen25(
    layers: int,
    width: int,
    inner: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    tied: bool,
    tower_inner: int = 3420,
) -> dict[str, Any]:
    vision: dict[str, Any] = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": tower_inner,
        "num_heads": 16,
    }
    vision |= {
        "out_hidden_size": width,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    }
    more = {
        "rope_parameters": _QWEN_ROPE,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 128000,
    }
    return {
        "model_type": "qwen2_5_vl",
        "vision_config": vision,
        "text_config": decoder(
            "qwen2_5_vl_text", layers, width, inner, heads, kv_heads, vocabulary, **more
        ),
        "tie_word_embeddings": tied,
    }


class Qwen2VL(PatchGridVLM):
    """`qwen2_vl` checkpoints: each frame is one position further in time, at any frame rate."""

    model_class = Qwen2VLForConditionalGeneration
    family = "qwen2_vl"
    published: ClassVar = {
        "Qwen/Qwen2-VL-2B-Instruct": _qwen2(28, 1536, 8960, 12, 2, 151936, True),
        "Qwen/Qwen2-VL-7B-Instruct": _qwen2(28, 3584, 18944, 28, 4, 152064, False),
    }
    checked_equal = True

    def __init__(
        self,
        path: str,
        *,
        text_after_video: str = "authors",
        fps: float = 1.0,
        **options: Unpack[PatchGridOptions],
    ) -> None:
        """text_after_video: authors or transformers (encoders/models/positions.py); stored keys do
        not depend on it. fps: sampled frames per second, the bank's.
        """
        super().__init__(path, **options)
        self.language_model.positions = self.rule(self.config, fps, text_after_video)

    @classmethod
    def rule(cls, config: Any, fps: float, text_after_video: str = "authors") -> VideoGridPositions:
        """Rotary positions for `fps` sampled frames a second. UserError for another
        text_after_video than authors or transformers.
        """
        return VideoGridPositions(cls._interval(config, fps), text_after_video)

    @staticmethod
    def _interval(config: Any, fps: float) -> float:
        """Positions between temporal patches."""
        return 1.0

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """Nothing: position is all that this family knows of time."""
        return [], []


class Qwen25VL(Qwen2VL):
    """`qwen2_5_vl` checkpoints: positions in time count `tokens_per_second`."""

    model_class = Qwen2_5_VLForConditionalGeneration
    family = "qwen2_5_vl"
    published: ClassVar = {
        "Qwen/Qwen2.5-VL-3B-Instruct": _qwen25(36, 2048, 11008, 16, 2, 151936, True),
        "Qwen/Qwen2.5-VL-7B-Instruct": _qwen25(28, 3584, 18944, 28, 4, 152064, False),
        "Qwen/Qwen2.5-VL-32B-Instruct": _qwen25(64, 5120, 27648, 40, 8, 152064, False, 3456),
        "Qwen/Qwen2.5-VL-72B-Instruct": _qwen25(80, 8192, 29568, 64, 8, 152064, False, 3456),
    }

    @staticmethod
    def _interval(config: Any, fps: float) -> float:
        vision = config.vision_config
        return float(vision.tokens_per_second * vision.temporal_patch_size / fps)
