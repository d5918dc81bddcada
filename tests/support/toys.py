"""Small random models of the real classes, and records made with them. What loads here loads a
checkpoint.
"""

import functools
import tempfile
from itertools import pairwise
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401

import numpy as np
import torch
from torch.nn.functional import normalize

from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.schema import Frames
from pipeline.embedded import checkpoint, tokenizer
from pipeline.needle_world import questions

from transformers import (  # isort: skip
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

SIDE = 56
FRAME_TOKENS = 4


@functools.cache
def toy_checkpoint(
    seed: int = 0, layers: int = 3, says: str = "", thinks: str = "", turn: str = ""
) -> Path:
    """A folder with a random LLaVA-OneVision: 3 decoder layers, 4 query heads on 2 KV heads, 4
    tokens a frame.

    says: the answer that it gives to everything; "" leaves it to chance. thinks: the thought that
    it has first, between <think> and </think>. turn: Jinja at the end of the chat template, behind
    the beginning of the assistant's turn.
    """
    torch.manual_seed(seed)
    words = tokenizer.build(questions.corpus())
    if thinks:
        words.add_tokens(["<think>", "</think>"])
        end = "assistant\n{% endif %}"
        assert words.chat_template.endswith(end)
        words.chat_template = words.chat_template.removesuffix("{% endif %}") + turn + "{% endif %}"
    token = words.convert_tokens_to_ids
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=SIDE,
            patch_size=14, vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
            tie_word_embeddings=not says,
            bos_token_id=None, eos_token_id=token("<|im_end|>"),
            pad_token_id=token("<|endoftext|>"),
        ),
        image_token_id=token("<image>"), video_token_id=token("<video>"),
        image_grid_pinpoints=[[SIDE, SIDE]],
        vision_feature_layer=-1, vision_feature_select_strategy="full",
        tie_word_embeddings=not says,
    )  # fmt: skip
    model = LlavaOnevisionForConditionalGeneration(config)
    for p in model.parameters():
        if p.dim() > 1:
            # A random model gives one token for every input; larger weights make logits differ.
            p.data.mul_(4)
    if says:
        thought = f"<think>{thinks}</think>" if thinks else ""
        chain = [words.encode("\n")[-1], *words.encode(f"{thought} {says}"), token("<|im_end|>")]
        _teach(model, chain)
    folder = Path(tempfile.mkdtemp(prefix="reelbank-toy-"))
    checkpoint.save(model, words, folder)
    return folder


def _teach(model: LlavaOnevisionForConditionalGeneration, chain: list[int]) -> None:
    """Make each token of the chain follow the one before. Layers add nothing, and the head looks up
    the last token.
    """
    assert len(set(chain)) == len(chain)
    for layer in model.model.language_model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.lm_head.weight.data.zero_()
    for before, after in pairwise(chain):
        model.lm_head.weight.data[after] = normalize(
            model.get_input_embeddings().weight.data[before], dim=0
        )


@functools.cache
def toy_clip(seed: int = 0) -> Path:
    """A folder with a random open_clip model of the embedded one's architecture."""
    from pipeline.embedded import train_clip

    torch.manual_seed(seed)
    folder = Path(tempfile.mkdtemp(prefix="reelbank-clip-"))
    train_clip.save(train_clip.build(), folder)
    return folder


def toy_parts(says: str = "") -> list[str]:
    """Overrides that put the toy models into a command."""
    return [
        f"backbone.path={toy_checkpoint(says=says)}",
        f"clip.model=local-dir:{toy_clip()}",
        "backbone.reads_text=true",  # unlike the embedded model, in whose place it is
        "backbone.questions=null",
    ]


def further_clip(primary: str = "embedded") -> list[str]:
    """Overrides for a second frame embedder, b32, which is a random model as well."""
    return [
        f"clip=[{primary},b32]",
        f"further_clips.b32.model=local-dir:{toy_clip(1)}",
        "further_clips.b32.pretrained=null",
    ]


@functools.cache
def toy_backbone(dtype: str = "float32") -> LlavaOneVision:
    return LlavaOneVision(str(toy_checkpoint()), dtype=dtype, time_tags=True)


def toy_frames(count: int, seed: int = 0, video_id: str = "toy", first: float = 0.0) -> Frames:
    """Random pixels, one frame a second."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return Frames(video_id, pixels, first + np.arange(count, dtype=np.float64))
