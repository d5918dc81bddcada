"""GLM-4.1V-Thinking and GLM-4.6V-Flash (arXiv 2507.01006) through transformers' own class.

Knows only what is special in this family. Two sampled frames make one temporal patch, so one
"frame" of the bank is a patch: an image between marks of its own, with its time in text behind it.
Positions have three axes (M-RoPE), and a part of each head is rotated, in neighboring pairs.

Both checkpoints have one model type. The class of their processor tells how they write times: whole
seconds in GLM-4.1V, "12.0 seconds" in GLM-4.6V.
"""

from typing import Any, ClassVar, Unpack

from encoders.models.families.patch_grid import PatchGridOptions, PatchGridVLM
from encoders.models.families.published_configs import decoder
from encoders.models.positions import TimedImagePositions

from transformers import Glm4vForConditionalGeneration  # isort: skip  (after backbone declared the operators)


def _published(theta: float, positions: int) -> dict[str, Any]:
    rope = {
        "rope_type": "default",
        "rope_theta": theta,
        "partial_rotary_factor": 0.5,
        "mrope_section": [8, 12, 12],
    }
    more = {"rope_parameters": rope, "max_position_embeddings": positions}
    return {
        "model_type": "glm4v",
        "vision_config": {"depth": 24, "hidden_size": 1536, "num_heads": 12},
        "text_config": decoder("glm4v_text", 40, 4096, 13696, 32, 2, 151552, **more),
        "tie_word_embeddings": False,
    }


class Glm4V(PatchGridVLM):
    """`glm4v` checkpoints."""

    model_class = Glm4vForConditionalGeneration
    family = "glm4v"
    published: ClassVar = {
        "zai-org/GLM-4.1V-9B-Thinking": _published(1e4, 65536),
        "zai-org/GLM-4.6V-Flash": _published(5e5, 131072),
    }
    checked_equal = True

    def __init__(self, path: str, **options: Unpack[PatchGridOptions]) -> None:
        super().__init__(path, **options)
        self.language_model.positions = TimedImagePositions()

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """The image marks, and the time of the patch's first frame behind them."""
        whole = type(self.processor).__name__ == "Glm4vProcessor"
        time = f"{int(start + 1e-6)}" if whole else f"{start:.1f} seconds"
        return self.prompt.ids("<|begin_of_image|>"), self.prompt.ids(f"<|end_of_image|>{time}")
