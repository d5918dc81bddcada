"""VideoLLaMA3 (arXiv 2501.13106) through transformers' own class: a SigLIP tower for pictures of
any shape, bilinear merging, Qwen2.

Knows only what is special in this family: "Time 1.0s:" before each frame, and commas between
frames. Its own processor drops tokens of pixels that hardly changed since the frame before. Here
that is a matter of compressor=, which is none by default: with it, tokens would depend on the frame
before, and a recalled frame may have lost that.
"""

from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from encoders.models.families.patch_grid import PatchGridOptions, PatchGridVLM
from encoders.models.families.published_configs import decoder

from transformers import VideoLlama3ForConditionalGeneration  # isort: skip  (after backbone declared the operators)

# patches per side of a visual token; the checkpoints' processors state it, their models do not
_MERGED = 2


def _published(
    width: int, inner: int, heads: int, kv_heads: int, vocabulary: int, positions: int, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": "video_llama_3",
        "vision_config": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        "text_config": decoder(
            "qwen2", 28, width, inner, heads, kv_heads, vocabulary,
            max_position_embeddings=positions, tie_word_embeddings=tied,
        ),
        "tie_word_embeddings": tied,
    }  # fmt: skip


class VideoLlama3(PatchGridVLM):
    """`video_llama_3` checkpoints of transformers, whose ids end in -HF."""

    model_class = VideoLlama3ForConditionalGeneration
    family = "video_llama_3"
    published: ClassVar = {
        "lkhl/VideoLLaMA3-2B-Image-HF": _published(1536, 8960, 12, 2, 151936, 131072, True),
        "lkhl/VideoLLaMA3-7B-Image-HF": _published(3584, 18944, 28, 4, 152064, 32768, False),
    }
    checked_equal = True

    def __init__(self, path: str, **options: Unpack[PatchGridOptions]) -> None:
        super().__init__(path, **options)
        self.processor.video_processor.use_token_compression = False

    @classmethod
    def token_side(cls, config: Any) -> int:
        """Pixels per side of a visual token."""
        return int(config.vision_config.patch_size * _MERGED)

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """The time, after a comma unless the video begins with this frame."""
        return self.prompt.ids(f"{',' if start > 0 else ''}Time {start:.1f}s:"), []

    def _features(self, pictures: np.ndarray) -> Tensor:
        patches, grid = self.pixels(pictures)
        merged = torch.full((len(grid),), _MERGED, device=self.device)
        out = self.model.model.get_video_features(patches, grid, merged)
        return torch.cat(list(out.pooler_output))
