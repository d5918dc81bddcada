"""The embedded video LLM's architecture: a small LLaVA-OneVision of transformers.

Knows no data and no training.
"""

import encoders.models.torchvision_ops  # noqa: F401  (first: the model class imports torchvision)

import torch

from pipeline.embedded.data import SIDE
from pipeline.embedded.tokenizer import minute

from transformers import (  # isort: skip
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

WIDTH = 256  # of the language model
TOKENS_PER_FRAME = 16  # 8 x 8 patches, pooled 2 x 2 by the model class


def build(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> LlavaOnevisionForConditionalGeneration:
    """A newly initialized model for this tokenizer."""
    torch.manual_seed(seed)
    token = tokenizer.convert_tokens_to_ids
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=3,
            image_size=SIDE,
            patch_size=12,
            vision_use_head=False,
            hidden_act="gelu_pytorch_tanh",
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=640,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
            bos_token_id=None,
            eos_token_id=token("<|im_end|>"),
            pad_token_id=token("<|endoftext|>"),
            tie_word_embeddings=True,
        ),
        image_token_id=token("<image>"),
        video_token_id=token("<video>"),
        image_grid_pinpoints=[[SIDE, SIDE]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    return LlavaOnevisionForConditionalGeneration(config)


def with_vocabulary(
    model: LlavaOnevisionForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> LlavaOnevisionForConditionalGeneration:
    """The model with a row for every token of a tokenizer that has grown at its end.

    New minutes of tags "[hh:mm:ss]" start as those of "[mm:ss]": only their place in the tag is
    new.
    """
    old_size = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows, token = model.get_input_embeddings().weight, tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        for number in range(60):
            if token(minute(number)) >= old_size:
                rows[token(minute(number))] = rows[token(f"[{number:02d}:")]
    return model


def visual_tokens(
    model: LlavaOnevisionForConditionalGeneration, pixels: torch.Tensor
) -> torch.Tensor:
    """[n, SIDE, SIDE, 3] uint8 -> [n, TOKENS_PER_FRAME, WIDTH]: each frame alone, no newline."""
    # SigLIP's normalization: mean 0.5, std 0.5
    scaled = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    # [1, n * 16 + 1, WIDTH], newline last
    features = model.model.get_video_features(scaled[None]).pooler_output
    return features[0, :-1].reshape(len(pixels), TOKENS_PER_FRAME, -1)
