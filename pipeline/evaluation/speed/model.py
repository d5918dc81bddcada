"""A random LLaVA-OneVision of a given size, written as a hub checkpoint.

Its answers mean nothing; it costs what a trained model of this size costs. Knows no bank.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: the model class imports torchvision)

import torch

from encoders.errors import UserError
from encoders.models.video_llm import DTYPES
from pipeline.embedded import checkpoint, tokenizer
from pipeline.needle_world import questions

from transformers import (  # isort: skip
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)


def make(sizes: Mapping[str, Mapping[str, Any]], folder: Path, dtype: str, seed: int) -> Path:
    """Write the checkpoint; the same sizes, dtype and seed give the same weights.

    sizes: `vision` and `text`, keyword arguments of SiglipVisionConfig and Qwen2Config; without
    vocab_size, text gets the tokenizer's. UserError on sizes that are no model.
    """
    _check(sizes, dtype)
    words = tokenizer.build(questions.corpus())
    token = words.convert_tokens_to_ids
    text = {
        "vocab_size": len(words),
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
    } | dict(sizes["text"])
    if text["vocab_size"] < len(words):
        raise UserError(
            f"made.text.vocab_size={text['vocab_size']} is below the tokenizer's {len(words)} "
            "words; use more."
        )
    ends = {
        "bos_token_id": None,
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    torch.manual_seed(seed)
    try:
        vision = SiglipVisionConfig(vision_use_head=False, **sizes["vision"])
        config = LlavaOnevisionConfig(
            vision_config=vision,
            text_config=Qwen2Config(**text, **ends),
            image_token_id=token("<image>"),
            video_token_id=token("<video>"),
            image_grid_pinpoints=[[vision.image_size, vision.image_size]],
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=text["tie_word_embeddings"],
        )
        model = LlavaOnevisionForConditionalGeneration(config).to(DTYPES[dtype])
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"made= gives no model: {str(error).splitlines()[0]}") from error
    checkpoint.save(model, words, folder)
    return folder


def _check(sizes: Mapping[str, Mapping[str, Any]], dtype: str) -> None:
    if dtype not in DTYPES:
        raise UserError(f"backbone.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
    if set(sizes) != {"vision", "text"}:
        raise UserError(
            "made= needs exactly two parts, vision and text; see conf/bench_preset/small.yaml."
        )
    for name, default in (("vision", SiglipVisionConfig()), ("text", Qwen2Config())):
        for key in sizes[name]:
            if key not in default.to_dict():  # transformers would silently ignore it
                raise UserError(f"made.{name}.{key} is not a setting of {type(default).__name__}.")
