"""Tiny random checkpoints of further families, and of other decoders of the families in
`tests/support/families.py`. They share their adapters' code, so quick tests run over them less.
"""

import functools
from functools import partial
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

from encoders.models.families.glm_vl import Glm4V
from encoders.models.families.internvl import InternVL
from encoders.models.families.qwen3_vl import Qwen3VLMoe, Qwen35, Qwen35Moe
from encoders.models.families.video_llama3 import VideoLlama3
from encoders.models.video_llm import VideoLLM
from tests.support import families
from tests.support.families import (
    FPS,
    QWEN_SPECIAL,
    QWEN_TEMPLATE,
    Family,
    as_qwens_own_processor,
    processed,
    saved,
    text_config,
    words,
)

import transformers as T  # isort: skip

_ROPE3 = {
    "rope_type": "default",
    "rope_theta": 5e6,
    "mrope_section": [2, 3, 3],
    "mrope_interleaved": True,
}
_TOWER3 = {
    "depth": 3, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 64,
    "patch_size": 16, "num_position_embeddings": 64,
}  # fmt: skip


def _qwen3_processor(toy_tokenizer: Any) -> Any:
    return T.Qwen3VLProcessor(
        T.Qwen2VLImageProcessor(patch_size=16),
        toy_tokenizer,
        T.Qwen3VLVideoProcessor(patch_size=16),
        chat_template=QWEN_TEMPLATE,
    )


def qwen3_vl_moe() -> tuple[Any, Any]:
    toy_tokenizer = words(*QWEN_SPECIAL)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = T.Qwen3VLMoeConfig(
        text_config=text_config(toy_tokenizer, head_dim=16, rope_parameters=_ROPE3) | experts,
        vision_config=_TOWER3 | {"deepstack_visual_indexes": [0, 1]},
        tie_word_embeddings=True,
        **families.qwen_ids(toy_tokenizer),
    )
    return T.Qwen3VLMoeForConditionalGeneration(config), _qwen3_processor(toy_tokenizer)


def _hybrid(**more: Any) -> dict[str, Any]:
    """Two layers of linear attention, and one of full attention."""
    return {
        "head_dim": 32, "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": _ROPE3 | {"partial_rotary_factor": 0.5},
    } | more  # fmt: skip


def qwen3_5() -> tuple[Any, Any]:
    toy_tokenizer = words(*QWEN_SPECIAL)
    config = T.Qwen3_5Config(
        text_config=text_config(toy_tokenizer) | _hybrid(),
        vision_config=_TOWER3,
        tie_word_embeddings=True,
        **families.qwen_ids(toy_tokenizer),
    )
    return T.Qwen3_5ForConditionalGeneration(config), _qwen3_processor(toy_tokenizer)


def qwen3_5_moe() -> tuple[Any, Any]:
    toy_tokenizer = words(*QWEN_SPECIAL)
    text = text_config(toy_tokenizer) | _hybrid(
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )  # fmt: skip
    del text["intermediate_size"]
    config = T.Qwen3_5MoeConfig(
        text_config=text,
        vision_config=_TOWER3,
        tie_word_embeddings=True,
        **families.qwen_ids(toy_tokenizer),
    )
    return T.Qwen3_5MoeForConditionalGeneration(config), _qwen3_processor(toy_tokenizer)


GLM_MARKS = (
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
)
# GLM's own template for one user message with a video
GLM_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == "
    "'video' %}<|begin_of_video|><|video|><|end_of_video|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def glm(processor: Any) -> tuple[Any, Any]:
    toy_tokenizer = words(*GLM_MARKS)
    token = toy_tokenizer.convert_tokens_to_ids
    rope = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [2, 1, 1],
        "partial_rotary_factor": 0.5,
    }
    vision = {
        "depth": 2, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2,
        "intermediate_size": 64, "image_size": 56,
    }  # fmt: skip
    config = T.Glm4vConfig(
        text_config=text_config(toy_tokenizer, rope_parameters=rope),
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        image_start_token_id=token("<|begin_of_image|>"),
        image_end_token_id=token("<|end_of_image|>"),
        video_start_token_id=token("<|begin_of_video|>"),
        video_end_token_id=token("<|end_of_video|>"),
    )
    made = processor(
        T.Glm4vImageProcessor(),
        toy_tokenizer,
        T.Glm4vVideoProcessor(),
        chat_template=GLM_TEMPLATE,
    )
    return T.Glm4vForConditionalGeneration(config), made


def glm4_1v() -> tuple[Any, Any]:
    return glm(T.Glm4vProcessor)


def glm4_6v() -> tuple[Any, Any]:
    return glm(T.Glm46VProcessor)


VIDEO_LLAMA_TEMPLATE = QWEN_TEMPLATE.replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "{{ '<|video_pad|>\\n' }}"
)


def video_llama3() -> tuple[Any, Any]:
    toy_tokenizer = words(*QWEN_SPECIAL)
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "patch_size": 14,
    }  # fmt: skip
    ids = families.qwen_ids(toy_tokenizer)
    config = T.VideoLlama3Config(
        text_config=T.Qwen2Config(**text_config(toy_tokenizer)),
        vision_config=vision,
        tie_word_embeddings=True,
        image_token_id=ids["image_token_id"],
        video_token_id=ids["video_token_id"],
    )
    processor = T.VideoLlama3Processor(
        T.VideoLlama3ImageProcessor(),
        toy_tokenizer,
        T.VideoLlama3VideoProcessor(),
        chat_template=VIDEO_LLAMA_TEMPLATE,
    )
    return T.VideoLlama3ForConditionalGeneration(config), processor


def internvl3_5() -> tuple[Any, Any]:
    """InternVL with the text model of Qwen3, and the norms of the tower of 6 billion parameters."""
    _, processor = families.internvl()
    toy_tokenizer = processor.tokenizer
    vision = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=[56, 56], patch_size=[14, 14], norm_type="rms_norm", use_qk_norm=True,
    )  # fmt: skip
    config = T.InternVLConfig(
        vision_config=vision,
        text_config=T.Qwen3Config(**text_config(toy_tokenizer, head_dim=16)),
        image_seq_length=4,
        tie_word_embeddings=True,
        image_token_id=toy_tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    return T.InternVLForConditionalGeneration(config), processor


_UNIT16, _UNIT14 = {"width": 96, "height": 64}, {"width": 84, "height": 56}

MORE = {
    family.name: family
    for family in (
        Family(
            "qwen3_vl_moe",
            Qwen3VLMoe,
            _UNIT16,
            partial(saved, qwen3_vl_moe),
            as_qwens_own_processor,
        ),
        Family("qwen3_5", Qwen35, _UNIT16, partial(saved, qwen3_5), as_qwens_own_processor),
        Family(
            "qwen3_5_moe", Qwen35Moe, _UNIT16, partial(saved, qwen3_5_moe), as_qwens_own_processor
        ),
        Family("glm4_1v", Glm4V, _UNIT14, partial(saved, glm4_1v), processed),
        Family("glm4_6v", Glm4V, _UNIT14, partial(saved, glm4_6v), processed),
        Family("video_llama3", VideoLlama3, _UNIT14, partial(saved, video_llama3), processed),
        Family("internvl3_5", InternVL, {"fps": FPS}, partial(saved, internvl3_5), processed),
    )
}


def folder(name: str) -> Path:
    """A folder with the family's toy checkpoint."""
    return families.made(MORE[name].make)


@functools.cache
def backbone_of(name: str) -> VideoLLM:
    return MORE[name].load()
