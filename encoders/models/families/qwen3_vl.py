"""Qwen3-VL (arXiv 2511.21631), also with experts, and Qwen3.5 through transformers' own classes.

Knows only what is special in these families. Two sampled frames make one temporal patch, so one
"frame" of the bank is a patch. Positions have three axes (M-RoPE). Each patch is an image of its
own that follows its time in text. In Qwen3-VL, features of several tower levels (DeepStack) belong
to every visual token.

transformers since 5.10 writes a pair of vision marks around a whole video, and the authors'
processor (transformers 4.57.1, vLLM) writes none. The authors are followed.

Three of four layers of Qwen3.5 are linear attention, which keeps a state and no keys of single
frames. Its banks hold visual tokens, for reader=tokens.
"""

from typing import Any, ClassVar, Unpack

from torch import Tensor

from encoders.models.families.patch_grid import PatchGridOptions, PatchGridVLM
from encoders.models.families.published_configs import decoder
from encoders.models.positions import TimedImagePositions

from transformers import (  # isort: skip  (after backbone declared the operators)
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeForConditionalGeneration,
)

_QWEN3_ROPE = {
    "rope_type": "default",
    "rope_theta": 5e6,
    "mrope_section": [24, 20, 20],
    "mrope_interleaved": True,
}

_QWEN35_ROPE = {
    "rope_type": "default",
    "rope_theta": 1e7,
    "partial_rotary_factor": 0.25,
    "mrope_section": [11, 11, 10],
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


_SIZES: dict[str, tuple[int, int, int, int, bool, dict[str, Any]]] = {
    "2B": (28, 2048, 6144, 16, True, _SMALL_TOWER),
    "4B": (36, 2560, 9728, 32, True, _SMALL_TOWER),
    "8B": (36, 4096, 12288, 32, False, _LARGE_TOWER),
    "32B": (64, 5120, 25600, 64, False, _LARGE_TOWER),
}


def _qwen3_moe() -> dict[str, Any]:
    config = _qwen3(48, 2048, 6144, 32, False, _LARGE_TOWER)
    text = config["text_config"] | {"model_type": "qwen3_vl_moe_text", "num_key_value_heads": 4}
    text |= {"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
    return config | {"model_type": "qwen3_vl_moe", "text_config": text}


def _qwen35(
    layers: int,
    width: int,
    inner: int,
    heads: int,
    value_heads: int,
    tied: bool,
    tower: dict[str, Any],
) -> dict[str, Any]:
    """value_heads: of the linear attention."""
    config = _qwen3(layers, width, inner, heads, tied, tower)
    vision = dict(config["vision_config"])
    del vision["deepstack_visual_indexes"]
    text = config["text_config"] | {
        "model_type": "qwen3_5_text",
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 248320,
        "linear_num_value_heads": value_heads,
        "rope_parameters": _QWEN35_ROPE,
    }
    return config | {"model_type": "qwen3_5", "vision_config": vision, "text_config": text}


def _qwen35_moe() -> dict[str, Any]:
    config = _qwen35(40, 2048, 0, 16, 32, False, _LARGE_TOWER)
    text = config["text_config"] | {"model_type": "qwen3_5_moe_text", "num_key_value_heads": 2}
    del text["intermediate_size"]
    text |= {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512}
    text |= {"num_experts": 256, "num_experts_per_tok": 8}
    return config | {"model_type": "qwen3_5_moe", "text_config": text}


class Qwen3VL(PatchGridVLM):
    """`qwen3_vl` checkpoints: every temporal patch is an image of its own after "<12.5
    seconds>".
    """

    model_class = Qwen3VLForConditionalGeneration
    family = "qwen3_vl"
    published: ClassVar = {
        f"Qwen/Qwen3-VL-{size}-{kind}": _qwen3(*shape)
        for kind in ("Instruct", "Thinking")
        for size, shape in _SIZES.items()
    }
    checked_equal = True

    def __init__(
        self, path: str, *, outer_vision_marks: bool = False, **options: Unpack[PatchGridOptions]
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

    def _levels(self, out: Any) -> list[Tensor]:
        return [
            level[0] if isinstance(level, list | tuple) else level
            for level in out.deepstack_features
        ]


class Qwen3VLMoe(Qwen3VL):
    """`qwen3_vl_moe` checkpoints: Qwen3-VL whose layers choose among experts."""

    model_class = Qwen3VLMoeForConditionalGeneration
    family = "qwen3_vl_moe"
    published: ClassVar = {
        f"Qwen/Qwen3-VL-30B-A3B-{kind}": _qwen3_moe() for kind in ("Instruct", "Thinking")
    }


class Qwen35(Qwen3VL):
    """`qwen3_5` checkpoints, Qwen3.5 and Qwen3.6: a tower of one level, and linear attention."""

    model_class = Qwen3_5ForConditionalGeneration
    family = "qwen3_5"
    published: ClassVar = {
        "Qwen/Qwen3.5-4B": _qwen35(32, 2560, 9216, 16, 32, True, _SMALL_TOWER),
        "Qwen/Qwen3.5-9B": _qwen35(32, 4096, 12288, 16, 32, False, _LARGE_TOWER),
        "Qwen/Qwen3.5-27B": _qwen35(64, 5120, 17408, 24, 48, False, _LARGE_TOWER),
        "Qwen/Qwen3.6-27B": _qwen35(64, 5120, 17408, 24, 48, False, _LARGE_TOWER),
    }

    def _levels(self, out: Any) -> list[Tensor]:
        return []


class Qwen35Moe(Qwen35):
    """`qwen3_5_moe` checkpoints: Qwen3.5 and Qwen3.6 whose layers choose among experts."""

    model_class = Qwen3_5MoeForConditionalGeneration
    family = "qwen3_5_moe"
    published: ClassVar = {
        f"Qwen/Qwen{version}-35B-A3B": _qwen35_moe() for version in ("3.5", "3.6")
    }
