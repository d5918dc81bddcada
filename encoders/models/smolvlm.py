"""SmolVLM2 (arXiv 2504.05299) through transformers' own class: SigLIP tower, pixel shuffle, a Llama text model.

Knows what is special in this family: every frame is an image between marks of its own, behind "Frame from 01:07:" on a line
of its own, and never cut into tiles; the processor opens a video with a sentence, and closes it with a blank line.

That sentence states how many frames follow and how long the video lasts. A stream cannot know either; a recalled set has
another number for every question; and the sentence stands before the first frame, so every stored key has seen it. It is
kept, because a checkpoint has never met a video without it, and its two numbers are left out (`INTRO`).

transformers 5.23 takes a picture whose values are all zero for padding and gives no tokens for it. `look` shows the
pictures of such a batch one by one: a picture that is alone is never dropped.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.models.video_llm import VideoLLM
from encoders.schema import Frames, VisualTokens

from transformers import SmolVLMForConditionalGeneration  # isort: skip  (after backbone declared the operators)

INTRO = "You are provided the following series of frames from a video.\n"
OUTRO = "\n\n"


class SmolVLM(VideoLLM):
    """`smolvlm` checkpoints. Their processor needs the package num2words (`pip install "reelbank[smolvlm]"`)."""

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "bfloat16",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
        batch: int = 8,
    ) -> None:
        """batch: frames that go through the tower at once; bounds memory, changes nothing else."""
        super().__init__(
            path=path,
            model_class=SmolVLMForConditionalGeneration,
            family="smolvlm",
            dtype=dtype,
            device=device,
            attention=attention,
            revision=revision,
        )
        self.batch = batch

    @property
    def decoder(self) -> Any:
        """The Llama model without its head."""
        return self.model.model.text_model

    def _split_chat(self) -> tuple[str, str]:
        before, after = super()._split_chat()
        return before + INTRO, OUTRO + after

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height): the square to which the family's processor squeezes videos."""
        side = int(self.processor.video_processor.max_image_size["longest_edge"])
        return side, side

    def grid(self) -> tuple[int, int]:
        """(rows, columns) of a frame's visual tokens: the tower's patches, shuffled together."""
        side = int(
            self.frame_size[0] // self.config.vision_config.patch_size // self.config.scale_factor
        )
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame."""
        rows, columns = self.grid()
        return rows * columns

    def around(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """The time in minutes and seconds, rounded down, and the image marks."""
        mark, whole = self.processor.fake_image_token, int(end + 1e-6)
        text = f"\nFrame from {whole // 60:02d}:{whole % 60:02d}:{mark}{self.processor.global_image_token}"
        return self.ids(text), self.ids(mark)

    def pixels(self, frames: np.ndarray) -> Tensor:
        """[T, H, W, 3] uint8 -> [T, 3, H, W] normalised by the checkpoint's own processor, in the model's dtype."""
        found: Tensor = self._processed(frames)["pixel_values"][0].to(self.device, self.dtype)
        return found

    @torch.inference_mode()
    def look(self, frames: Frames) -> VisualTokens:
        """Each frame alone, in batches: equal to the whole clip, because the family mixes frames only in the decoder.

        ValueError when the frames do not have `frame_size`.
        """
        self._check_size(frames)
        seen: list[Tensor] = []
        for a in range(0, len(frames), self.batch):
            pixels = self.pixels(frames.pixels[a : a + self.batch])
            blank = not bool(pixels.flatten(1).any(1).all())
            for part in pixels.split(1) if blank else (pixels,):
                # [n * per_frame, D]
                tokens = self.model.get_image_features(part[None]).pooler_output[0]
                seen.append(tokens.unflatten(0, (len(part), -1)))
        return self._record(seen, frames)
