"""The sizes in which the families are published, as configurations: what a model weighs before any of it is there.

The numbers are those of the configurations that the authors published with each checkpoint, typed in from there; a
checkpoint's own config.json goes before them wherever there is one. Knows no weights, no processor and no network.
"""

from math import ceil
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

from transformers import AutoConfig  # isort: skip

_QWEN_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_QWEN3_ROPE = {
    "rope_type": "default",
    "rope_theta": 5e6,
    "mrope_section": [24, 20, 20],
    "mrope_interleaved": True,
}


def _text(
    kind: str,
    layers: int,
    width: int,
    inner: int,
    heads: int,
    kv_heads: int,
    words: int,
    **more: Any,
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": words,
        "max_position_embeddings": 32768,
    } | more


def _tower(
    layers: int, width: int, inner: int, side: int, patch: int, heads: int = 16
) -> dict[str, Any]:
    """A plain tower on square pictures."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "image_size": side,
        "patch_size": patch,
    }


def _llava(
    layers: int, width: int, inner: int, heads: int, kv_heads: int, words: int, tied: bool
) -> dict[str, Any]:
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False} | _tower(
        26, 1152, 4304, 384, 14
    )
    return {
        "model_type": "llava_onevision",
        "vision_config": vision,
        "text_config": _text(
            "qwen2", layers, width, inner, heads, kv_heads, words, tie_word_embeddings=tied
        ),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "tie_word_embeddings": tied,
    }


def _qwen2(
    layers: int, width: int, inner: int, heads: int, kv_heads: int, words: int, tied: bool
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
        "text_config": _text("qwen2_vl_text", layers, width, inner, heads, kv_heads, words, **more),
        "tie_word_embeddings": tied,
    }


def _qwen25(
    layers: int, width: int, inner: int, heads: int, kv_heads: int, words: int, tied: bool
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
        "text_config": _text(
            "qwen2_5_vl_text", layers, width, inner, heads, kv_heads, words, **more
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
        "text_config": _text("qwen3_vl_text", layers, width, inner, heads, 8, 151936, **more),
        "tie_word_embeddings": tied,
    }


def _internvl(layers: int, width: int, inner: int, heads: int, kv_heads: int) -> dict[str, Any]:
    vision = {"model_type": "internvl_vision"} | _tower(24, 1024, 4096, 448, 14)
    vision |= {"image_size": [448, 448], "patch_size": [14, 14]}
    return {
        "model_type": "internvl",
        "vision_config": vision,
        "text_config": _text("qwen2", layers, width, inner, heads, kv_heads, 151674),
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "tie_word_embeddings": False,
    }


def _smol(vision: dict[str, Any], shuffle: int, text: dict[str, Any], tied: bool) -> dict[str, Any]:
    return {
        "model_type": "smolvlm",
        "vision_config": {"model_type": "smolvlm_vision"} | vision,
        "text_config": text | {"tie_word_embeddings": tied, "max_position_embeddings": 8192},
        "scale_factor": shuffle,
        "tie_word_embeddings": tied,
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
# hub id -> configuration
PUBLISHED: dict[str, dict[str, Any]] = {
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": _llava(24, 896, 4864, 14, 2, 152000, True),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": _llava(28, 3584, 18944, 28, 4, 152128, False),
    "Qwen/Qwen2-VL-2B-Instruct": _qwen2(28, 1536, 8960, 12, 2, 151936, True),
    "Qwen/Qwen2-VL-7B-Instruct": _qwen2(28, 3584, 18944, 28, 4, 152064, False),
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen25(36, 2048, 11008, 16, 2, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen25(28, 3584, 18944, 28, 4, 152064, False),
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3(28, 2048, 6144, 16, True, _SMALL_TOWER),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3(36, 2560, 9728, 32, True, _SMALL_TOWER),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3(36, 4096, 12288, 32, False, _LARGE_TOWER),
    "OpenGVLab/InternVL3-2B-hf": _internvl(28, 1536, 8960, 12, 2),
    "OpenGVLab/InternVL3-8B-hf": _internvl(28, 3584, 18944, 28, 4),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": _smol(
        _tower(12, 768, 3072, 512, 16, heads=12),
        4,
        _text("llama", 32, 960, 2560, 15, 5, 49280),
        False,
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": _smol(
        _tower(27, 1152, 4304, 384, 14), 3, _text("llama", 24, 2048, 8192, 32, 32, 49280), False
    ),
}


def published(path: str) -> Any | None:
    """The configuration of a hub id as its authors published it; None for any other."""
    return AutoConfig.for_model(**PUBLISHED[path]) if path in PUBLISHED else None


def frame_tokens(config: Any, width: int, height: int) -> int | None:
    """Visual tokens that a model makes of a frame (of a temporal patch, where it merges frames), before compression; None
    for a family that is not known here. width, height: pixels of a frame, for families that let the caller choose."""
    vision = config.vision_config
    if config.model_type.startswith("qwen"):
        unit = vision.patch_size * vision.spatial_merge_size
        return int((width // unit) * (height // unit))
    if config.model_type == "llava_onevision":
        return int(ceil(vision.image_size // vision.patch_size / 2) ** 2)
    if config.model_type == "internvl":
        rows, columns = (
            s // p * config.downsample_ratio
            for s, p in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return int(rows) * int(columns)
    if config.model_type == "smolvlm":
        return int((vision.image_size // vision.patch_size // config.scale_factor) ** 2)
    return None
