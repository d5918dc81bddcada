"""SmolVLM2 (arXiv 2504.05299) through transformers' own class: SigLIP tower, pixel shuffle, a Llama
text model.

Knows only what is special in this family: every frame is an image between marks of its own, after
"Frame from 01:07:" on a line of its own, and is never cut into tiles. The processor opens a video
with a sentence and closes it with a blank line.

That sentence states the number of frames and the length of the video. reader=tokens writes it so,
of the frames that an answer reads (`OPENING`). Stored keys cannot have it: the sentence stands
before the first frame, so every key depends on it, and a stream knows neither number. There it
stays without its two numbers (`INTRO`), because a checkpoint never met a video without it.

transformers 5.23 takes an image whose values are all zero for padding and returns no tokens for it.
`_features` encodes such a batch image by image, because a single image is never dropped.
"""

from datetime import timedelta
from typing import Any, ClassVar

import torch
from torch import Tensor

from encoders.extras import require_extra
from encoders.models.families.published_configs import decoder, tower
from encoders.models.families.single_frame import SingleFrameVLM

from transformers import SmolVLMForConditionalGeneration  # isort: skip  (after backbone declared the operators)

OPENING = (
    "You are provided the following series of {frames} frames from a {length} [H:MM:SS] video.\n"
)
INTRO = "You are provided the following series of frames from a video.\n"
OUTRO = "\n\n"


def _published(
    vision: dict[str, Any], shuffle: int, text: dict[str, Any], tied: bool
) -> dict[str, Any]:
    return {
        "model_type": "smolvlm",
        "vision_config": {"model_type": "smolvlm_vision"} | vision,
        "text_config": text | {"tie_word_embeddings": tied, "max_position_embeddings": 8192},
        "scale_factor": shuffle,
        "tie_word_embeddings": tied,
    }


class SmolVLM(SingleFrameVLM):
    """`smolvlm` checkpoints. Their processor needs num2words, of the extra smolvlm."""

    model_class = SmolVLMForConditionalGeneration
    family = "smolvlm"
    published: ClassVar = {
        "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": _published(
            tower(12, 768, 3072, 512, 16, heads=12),
            4,
            decoder("llama", 30, 576, 1536, 9, 3, 49280),
            False,
        ),
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": _published(
            tower(12, 768, 3072, 512, 16, heads=12),
            4,
            decoder("llama", 32, 960, 2560, 15, 5, 49280),
            False,
        ),
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct": _published(
            tower(27, 1152, 4304, 384, 14),
            3,
            decoder("llama", 24, 2048, 8192, 32, 32, 49280),
            False,
        ),
    }
    checked_equal = True
    pixels_key = "pixel_values"
    counts_frames = True

    def _load_processor(self, **settings: Any) -> Any:
        require_extra("smolvlm", "The processor of SmolVLM2")
        return super()._load_processor(**settings)

    @property
    def decoder(self) -> Any:
        """The Llama model without its head."""
        return self.model.model.text_model

    def _split_chat(self) -> tuple[str, str]:
        self._before, after = super()._split_chat()
        return self._before + INTRO, OUTRO + after

    def opening_ids(self, frames: int, seconds: float) -> list[int]:
        """The processor's sentence, with the number of frames in words and the time of the last
        one in whole seconds.
        """
        # the processor was loaded, so its package is there
        from num2words import num2words

        length = timedelta(seconds=int(seconds + 1e-6))
        return self.prompt.ids(
            self._before + OPENING.format(frames=num2words(frames), length=length)
        )

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) of the square to which the family's processor resizes videos."""
        side = int(self.processor.video_processor.max_image_size["longest_edge"])
        return side, side

    @staticmethod
    def frame_grid(config: Any, width: int = 0, height: int = 0) -> tuple[int, int]:
        """The tower's patch grid after pixel shuffle. width: pixels of a frame; 0 = the
        configuration's.
        """
        vision = config.vision_config
        side = int((width or vision.image_size) // vision.patch_size // config.scale_factor)
        return side, side

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """The time in minutes and seconds, rounded down, and the image marks."""
        mark, whole = self.processor.fake_image_token, int(end + 1e-6)
        time = f"\nFrame from {whole // 60:02d}:{whole % 60:02d}:"
        return self.prompt.ids(f"{time}{mark}{self.processor.global_image_token}"), self.prompt.ids(
            mark
        )

    def _features(self, pixels: Tensor) -> Tensor:
        is_blank = not bool(pixels.flatten(1).any(1).all())
        parts = pixels.split(1) if is_blank else (pixels,)
        features = [
            # [n * rows * columns, D]
            self.model.get_image_features(part[None]).pooler_output[0].unflatten(0, (len(part), -1))
            for part in parts
        ]
        return torch.cat(features)
