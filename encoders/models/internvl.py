"""InternVL 2.5 and 3 (arXiv 2412.05271, 2504.10479) through transformers' own class: InternViT, pixel shuffle, a text model.

Knows what is special in this family: every frame is an image of one tile between <img> and </img>, behind "Frame7: " on a
line of its own.

The number is all that the family knows of time, so here it follows the time: the frame sampled for k / fps seconds is number
k + 1, in a recalled set as well. Of a whole video the numbers are 1, 2, 3, ..., as the library's processor writes them (but
where the file itself has no picture for a point of the grid). After hours they are larger than any seen in training.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.video_llm import VideoLLM
from encoders.schema import Frames, VisualTokens, ticks

from transformers import InternVLForConditionalGeneration  # isort: skip  (after backbone declared the operators)


class InternVL(VideoLLM):
    """`internvl` checkpoints: those whose names end in -hf, not the ones with code of their own."""

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "bfloat16",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
        batch: int = 8,
        fps: float = 1.0,
    ) -> None:
        """batch: frames that go through the tower at once; bounds memory, changes nothing else.
        fps: sampled frames per second, the bank's: it numbers the frames."""
        super().__init__(
            path=path,
            model_class=InternVLForConditionalGeneration,
            family="internvl",
            dtype=dtype,
            device=device,
            attention=attention,
            revision=revision,
        )
        if not fps > 0:
            raise UserError(
                f"backbone.fps={fps} cannot number frames; use the bank's frames per second."
            )
        self.batch, self.fps = batch, fps

    def _split_chat(self) -> tuple[str, str]:
        # Lines are parted by "\n", which here opens each frame's line: the one that ends the preamble is the first frame's.
        before, after = super()._split_chat()
        return before.removesuffix("\n"), after

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height): one tile; videos are squeezed to it, as the family's processor does."""
        height, width = self.config.vision_config.image_size
        return int(width), int(height)

    def grid(self) -> tuple[int, int]:
        """(rows, columns) of a tile's visual tokens: the tower's patches, shuffled together."""
        vision: Any = self.config.vision_config
        rows, columns = (
            int(side // patch * self.config.downsample_ratio)
            for side, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return rows, columns

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a tile."""
        rows, columns = self.grid()
        return rows * columns

    def around(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """A new line, the frame's number and the image marks."""
        number = int(ticks(np.array([end]), self.fps)[0]) + 1
        return self.ids(f"\nFrame{number}: {self.processor.start_image_token}"), self.ids(
            self.processor.end_image_token
        )

    def pixels(self, frames: np.ndarray) -> Tensor:
        """[T, H, W, 3] uint8 -> [T, 3, H, W] normalised by the checkpoint's own processor, in the model's dtype."""
        found: Tensor = self._processed(frames)["pixel_values_videos"][0].to(
            self.device, self.dtype
        )
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
            seen.append(self.model.get_image_features(pixels).pooler_output)  # [n, per_frame, D]
        return self._record(seen, frames)
