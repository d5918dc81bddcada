"""LLaVA-OneVision (arXiv 2408.03326) through transformers' own classes: SigLIP tower, projector, 2x pooling, Qwen2.

Knows only what is special in this family: how pixels are normalised, that every frame gives the same square grid of
tokens, and that one learnt newline token follows the last frame.
"""

import numpy as np
import torch
from torch import Tensor

from encoders.models.jit_trace import Traced
from encoders.models.video_llm import VideoLLM
from encoders.schema import Frames, VisualTokens

from transformers import LlavaOnevisionForConditionalGeneration  # isort: skip  (after backbone declared the operators)


class LlavaOneVision(VideoLLM):
    """`llava_onevision` checkpoints of transformers, from the hub or from a folder."""

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
        batch: int = 16,
        time_tags: bool = True,
    ) -> None:
        """batch: frames that go through the tower at once; bounds memory, changes nothing else.
        time_tags: "[mm:ss]" or "[hh:mm:ss]" before each frame; False leaves them out, to measure what they bring."""
        super().__init__(
            path=path,
            model_class=LlavaOnevisionForConditionalGeneration,
            family="llava_onevision",
            dtype=dtype,
            device=device,
            attention=attention,
            revision=revision,
        )
        self.batch = batch
        self._time_tags = time_tags
        images = self.processor.image_processor
        self._mean = torch.tensor(images.image_mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(images.image_std, device=self.device).view(1, 3, 1, 1)
        self._tower = Traced(self._features, self.model.model.vision_tower)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height): the tower's square input; videos are squeezed to it, as the family's processor does."""
        side = int(self.config.vision_config.image_size)
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """The tower's patch grid, pooled 2 x 2 with odd sides rounded up."""
        vision = self.config.vision_config
        return int((-(-(vision.image_size // vision.patch_size) // 2)) ** 2)

    def around(self, start: float, end: float) -> tuple[list[int], list[int]]:
        return super().around(start, end) if self._time_tags else ([], [])

    def fingerprint(self) -> str:
        """As of every model; keys that never saw a time tag are another model's."""
        return super().fingerprint() + ("" if self._time_tags else "-no-time-tags")

    def pixels(self, frames: np.ndarray) -> Tensor:
        """[T, H, W, 3] uint8 -> [T, 3, H, W] normalised as the checkpoint's processor says, in the model's dtype."""
        scaled = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float()
        # in place: each copy took as long as the sum
        return scaled.div_(255.0).sub_(self._mean).div_(self._std).to(self.dtype)

    @torch.inference_mode()
    def look(self, frames: Frames) -> VisualTokens:
        """Each frame alone, in batches: equal to the whole clip, because the family mixes frames only in the decoder.

        ValueError when the frames do not have `frame_size`.
        """
        self._check_size(frames)
        seen: list[Tensor] = []
        for a in range(0, len(frames), self.batch):
            pixels = self.pixels(frames.pixels[a : a + self.batch])
            out = self._tower(pixels)
            seen.append(out[0, :-1].view(len(pixels), -1, out.shape[-1]))
        return self._record(seen, frames)

    def _features(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] -> [1, n * per_frame + 1, D], newline last."""
        found: Tensor = self.model.get_video_features(pixels[None]).pooler_output
        return found

    def after_video(self) -> Tensor:
        """[1, D]: the learnt newline that ends a video."""
        newline: Tensor = self.model.model.image_newline
        return newline[None].detach()
