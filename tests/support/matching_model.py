"""A model of the real class whose attention is set by hand: a token looks at tokens that are equal
to it, wherever they stand. It says nothing of what trained models look at.

Embeddings are random unit codes, and layers add nothing to them. Queries and keys are the codes in
those numbers of a head that rotary embedding turns by less than 0.1 rad in 4,096 positions:
    q k^T / sqrt(Dh) = SHARP for equal tokens, SHARP * cos(codes) for others (0 +- SHARP / 8)
"""

import functools
import math
import tempfile
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401

import torch
from torch.nn.functional import normalize

from encoders.models.families.llava_onevision import LlavaOneVision
from pipeline.embedded import checkpoint, tokenizer
from pipeline.needle_world import questions
from tests.support.toys import SIDE

from transformers import (  # isort: skip
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

SHARP = 14.0
CODE = 64  # numbers of a code, and of the model
HEAD = 2 * CODE  # the slow half of its pairs holds the code


@functools.cache
def matching_checkpoint() -> Path:
    """A folder with the model; its tokenizer is that of the toy models."""
    torch.manual_seed(0)
    words = tokenizer.build(questions.corpus())
    token = words.convert_tokens_to_ids
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            image_size=SIDE, patch_size=14, vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=len(words), hidden_size=CODE, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=HEAD,
            rope_parameters={"rope_type": "default", "rope_theta": 1e10},
            max_position_embeddings=4096, bos_token_id=None,
            eos_token_id=token("<|im_end|>"), pad_token_id=token("<|endoftext|>"),
        ),
        image_token_id=token("<image>"), video_token_id=token("<video>"),
        image_grid_pinpoints=[[SIDE, SIDE]],
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    model = LlavaOnevisionForConditionalGeneration(config)
    model.get_input_embeddings().weight.data = normalize(torch.randn(len(words), CODE), dim=-1)
    # the norm gives each code the length sqrt(CODE)
    scale = math.sqrt(SHARP * math.sqrt(HEAD) / CODE)
    slow = torch.cat([torch.arange(HEAD // 4, HEAD // 2), torch.arange(3 * HEAD // 4, HEAD)])
    for layer in model.model.language_model.layers:
        own = layer.self_attn
        for part in (own.q_proj, own.k_proj):
            part.weight.data.zero_()
            part.bias.data.zero_()
            for head in range(part.weight.shape[0] // HEAD):
                part.weight.data[head * HEAD + slow, torch.arange(CODE)] = scale
        own.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    folder = Path(tempfile.mkdtemp(prefix="reelbank-matching-"))
    checkpoint.save(model, words, folder)
    return folder


@functools.cache
def matching_backbone() -> LlavaOneVision:
    return LlavaOneVision(str(matching_checkpoint()), dtype="float32", time_tags=True)
