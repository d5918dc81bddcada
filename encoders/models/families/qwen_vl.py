"""Qwen2-VL, Qwen2.5-VL (arXiv 2409.12191, 2502.13923) and Qwen3-VL (arXiv 2511.21631) through
transformers' own classes.

Knows only what is special in these families. Two sampled frames make one temporal patch, so one
"frame" of the bank is a patch. Positions have three axes (M-RoPE). In Qwen3-VL each patch follows
its time in text, and features of several tower levels (DeepStack) belong to every visual token.

Qwen2-VL and Qwen2.5-VL write no times in text, so position is all they know of time. Recalled
frames are laid out side by side: these families can tell the order of frames, not their times.

Where transformers 5.23 and the authors' code (transformers 4.57.1, vLLM) differ, the authors are
followed, because the checkpoints were trained so: text continues after the highest position of a
video (`VideoGridPositions`), and no vision marks stand around a whole video of Qwen3-VL. Options
select the library's way.
"""

import math
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.families.published_configs import decoder
from encoders.models.positions import TimedImagePositions, VideoGridPositions
from encoders.models.video_llm import LoadOptions, VideoLLM
from encoders.schema import Frames, VisualTokens

from transformers import (  # isort: skip  (after backbone declared the operators)
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)


_QWEN_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_QWEN3_ROPE = {
    "rope_type": "default",
    "rope_theta": 5e6,
    "mrope_section": [24, 20, 20],
    "mrope_interleaved": True,
}

_SMALL_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_LARGE_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}


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
    layers: int, width: int, inner: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    vision: dict[str, Any] = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
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


def _qwen3(
    layers: int, width: int, inner: int, heads: int, tied: bool, tower: dict[str, Any]
) -> dict[str, Any]:
    vision = {
        "num_heads": 16,
        "out_hidden_size": width,
        "patch_size": 16,
        "num_position_embeddings": 2304,
    } | tower
    more = {
        "head_dim": 128,
        "rope_parameters": _QWEN3_ROPE,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 262144,
    }
    return {
        "model_type": "qwen3_vl",
        "vision_config": vision,
        "text_config": decoder("qwen3_vl_text", layers, width, inner, heads, 8, 151936, **more),
        "tie_word_embeddings": tied,
    }


# share of the tokens of width x height that a film's own shape may leave unused
_SPARE = 0.1


class QwenOptions(LoadOptions, total=False):
    """The options of all three families."""

    width: int
    height: int
    squeeze: bool


def grid_for(ratio: float, tokens: int) -> tuple[int, int]:
    """(rows, columns) of at most `tokens` tokens, and at least nine tenths of them, nearest to the
    shape of a film of this width over height. Of equally near ones, the one with more tokens.
    """
    grids = [
        (rows, columns)
        for rows in range(1, tokens + 1)
        for columns in range(math.ceil((1 - _SPARE) * tokens / rows), tokens // rows + 1)
    ]
    return min(grids, key=lambda grid: (abs(math.log(grid[1] / grid[0] / ratio)), -math.prod(grid)))


class _Qwen(VideoLLM):
    """The common part: patches of two frames, and frames in the shape of their film."""

    def __init__(
        self,
        path: str,
        *,
        width: int = 448,
        height: int = 252,
        squeeze: bool = False,
        **options: Unpack[LoadOptions],
    ) -> None:
        """width, height: pixels of a 16:9 frame, multiples of the tower's patch size times its
        merge size. Films of another shape get as many tokens in their own shape, as the family's
        processor keeps it; with squeeze they get this size. UserError if they are no multiples.
        """
        super().__init__(path, **options)
        self.keeps_shape = not squeeze
        # frames have their size already; unset, transformers warns about it at every start
        self.processor.video_processor.cap_pixels_per_frame = False
        vision = self.config.vision_config
        self.temporal_patch = int(vision.temporal_patch_size)
        # pixels per side of a visual token
        self.unit = int(vision.patch_size * vision.spatial_merge_size)
        if width < self.unit or height < self.unit or width % self.unit or height % self.unit:
            fit = ", ".join(
                str(max(1, round(side / self.unit)) * self.unit) for side in (width, height)
            )
            raise UserError(
                f"backbone.width={width} and backbone.height={height} must be multiples of "
                f"{self.unit} for this model; "
                f"nearest: {fit}."
            )
        self.width, self.height = width, height

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def frame_size_for(self, ratio: float) -> tuple[int, int]:
        """The film's shape as nearly as a grid with the tokens of `frame_size` can show it."""
        if not self.keeps_shape:
            return self.frame_size
        rows, columns = grid_for(ratio, self.tokens_per_frame)
        return columns * self.unit, rows * self.unit

    @staticmethod
    def frame_grid(config: Any, width: int = 0, height: int = 0) -> tuple[int, int]:
        """The grid of a temporal patch: one visual token per merged square of patches."""
        vision = config.vision_config
        unit = vision.patch_size * vision.spatial_merge_size
        return height // unit, width // unit

    def pixels(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """[2 * T, H, W, 3] uint8 -> the tower's flattened patches, and their grid [1, 3]."""
        out = self._process(frames)
        return out["pixel_values_videos"].to(self.device, self.dtype), out["video_grid_thw"].to(
            self.device
        )

    @torch.inference_mode()
    def encode_frames(self, frames: Frames) -> VisualTokens:
        """Each temporal patch alone, in batches. This equals the whole clip at once, because the
        tower attends only within a patch. A last frame without a partner is used twice, as by the
        family's processor.

        ValueError if the sides of the frames are no multiples of `unit`.
        """
        height, width = frames.pixels.shape[1:3]
        if height % self.unit or width % self.unit:
            raise ValueError(f"frames of {height} x {width} pixels, the tower takes multiples")
        size = self.temporal_patch
        count = -(-len(frames) // size)
        pictures = np.concatenate(
            [frames.pixels, frames.pixels[-1:].repeat(count * size - len(frames), axis=0)]
        )
        features: list[Tensor] = []
        for a in range(0, count, self.batch):
            out = self.model.get_video_features(
                *self.pixels(pictures[a * size : (a + self.batch) * size])
            )
            levels = [
                level[0] if isinstance(level, list | tuple) else level
                for level in self._levels(out)
            ]
            features.append(torch.cat([torch.cat(list(out.pooler_output)), *levels], dim=1).cpu())
        rows, columns = self.frame_grid(self.config, width, height)
        grid_pos = torch.stack(
            torch.meshgrid(*(torch.arange(n) for n in (count, rows, columns)), indexing="ij"),
            dim=-1,
        )
        times = torch.from_numpy(np.ascontiguousarray(frames.times, dtype=np.float64))
        return VisualTokens(
            tokens=torch.cat(features),
            pos=grid_pos.reshape(-1, 3).to(torch.int32),
            offsets=torch.arange(count + 1) * (rows * columns),
            times=torch.stack([part[-1] for part in times.split(size)]),
            firsts=times[::size].clone(),
            # a film in the model's own shape needs none, so its bytes are those of earlier versions
            sides=None
            if (rows, columns) == self.grid()
            else torch.full((count,), max(rows, columns), dtype=torch.int32),
        )

    def _levels(self, out: Any) -> list[Any]:
        """Features of the tower's other levels, [N, D] each."""
        return []


class Qwen2VL(_Qwen):
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
        **options: Unpack[QwenOptions],
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
    }

    @staticmethod
    def _interval(config: Any, fps: float) -> float:
        vision = config.vision_config
        return float(vision.tokens_per_second * vision.temporal_patch_size / fps)


class Qwen3VL(_Qwen):
    """`qwen3_vl` checkpoints: every temporal patch is an image of its own after "<12.5
    seconds>".
    """

    model_class = Qwen3VLForConditionalGeneration
    family = "qwen3_vl"
    published: ClassVar = {
        "Qwen/Qwen3-VL-2B-Instruct": _qwen3(28, 2048, 6144, 16, True, _SMALL_TOWER),
        "Qwen/Qwen3-VL-4B-Instruct": _qwen3(36, 2560, 9728, 32, True, _SMALL_TOWER),
        "Qwen/Qwen3-VL-8B-Instruct": _qwen3(36, 4096, 12288, 32, False, _LARGE_TOWER),
    }
    checked_equal = True

    def __init__(
        self, path: str, *, outer_vision_marks: bool = False, **options: Unpack[QwenOptions]
    ) -> None:
        """outer_vision_marks: one more pair of vision marks around the whole video, as
        transformers writes it since 5.10; the authors' processor replaces the chat template's
        pair.
        """
        self._outer_vision_marks = outer_vision_marks
        super().__init__(path, **options)
        self.language_model.positions = TimedImagePositions()

    def _split_chat(self) -> tuple[str, str]:
        before, after = super()._split_chat()
        if self._outer_vision_marks:
            return before, after
        marks = self.processor
        return (
            before.removesuffix(marks.vision_start_token),
            after.removeprefix(marks.vision_end_token),
        )

    def fingerprint(self) -> str:
        """As for every model. Without the outer marks it gets a suffix: the preamble differs, and
        every key saw it.
        """
        suffix = "" if self._outer_vision_marks else "-no-outer-vision-marks"
        return super().fingerprint() + suffix

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """The mean time of the patch's frames, and the vision marks."""
        tag = f"<{(start + end) / 2:.1f} seconds>{self.processor.vision_start_token}"
        return self.prompt.ids(tag), self.prompt.ids(self.processor.vision_end_token)

    def _levels(self, out: Any) -> list[Any]:
        return list(out.deepstack_features)
