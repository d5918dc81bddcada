"""Tiny random text models of transformers, one for every way in which a family rotates its keys."""

from types import SimpleNamespace
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import torch
from torch import nn

from encoders.models.attention import ATTENTIONS, register
from encoders.models.kv_cache import RotaryForm
from encoders.models.language_model import LanguageModel
from encoders.models.positions import LinearPositions, TimedImagePositions

import transformers as T  # isort: skip
from transformers.models.glm4v.modeling_glm4v import Glm4vTextConfig, Glm4vTextModel  # isort: skip
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (  # isort: skip
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
)

SMALL = dict(
    vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=None,
    eos_token_id=1, head_dim=16,
)  # fmt: skip
HALF = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
# name -> configuration, model, form, axes
MODELS: dict[str, tuple[Any, Any, RotaryForm, int]] = {
    "llama": (T.LlamaConfig(**SMALL), T.LlamaModel, RotaryForm.HALVES, 1),
    "llama, yarn": (
        T.LlamaConfig(**SMALL, rope_parameters=YARN), T.LlamaModel, RotaryForm.HALVES, 1,
    ),
    "qwen3, normalized keys": (T.Qwen3Config(**SMALL), T.Qwen3Model, RotaryForm.HALVES, 1),
    "half of a head": (
        T.StableLmConfig(**SMALL, rope_parameters=HALF), T.StableLmModel, RotaryForm.HALVES, 1,
    ),
    "qwen2.5-vl": (
        Qwen2_5_VLTextConfig(**SMALL, rope_parameters=SECTIONS), Qwen2_5_VLTextModel,
        RotaryForm.HALVES, 3,
    ),
    "glm-4v, interleaved": (
        Glm4vTextConfig(**SMALL, rope_parameters=SECTIONS), Glm4vTextModel,
        RotaryForm.INTERLEAVED, 3,
    ),
    "glm-4v, half of a head": (
        Glm4vTextConfig(**SMALL, rope_parameters=HALF | {"mrope_section": [1, 1, 2]}),
        Glm4vTextModel, RotaryForm.INTERLEAVED, 3,
    ),
    "cohere, interleaved": (T.CohereConfig(**SMALL), T.CohereModel, RotaryForm.INTERLEAVED, 1),
    "glm-4, table in halves": (
        T.Glm4Config(**SMALL, rope_parameters=HALF), T.Glm4Model, RotaryForm.INTERLEAVED_KEYS, 1,
    ),
}  # fmt: skip


class Whole(nn.Module):
    """What a LanguageModel needs of a model around its decoder."""

    def __init__(self, decoder: Any, config: Any) -> None:
        super().__init__()
        self.decoder: Any = decoder
        self.config = config
        self.lm_head = nn.Identity()

    def get_input_embeddings(self) -> Any:
        return self.decoder.get_input_embeddings()


def language_model(name: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    config, kind, _, axes = MODELS[name]
    return wrapped(config, kind, axes, dtype)


def wrapped(config: Any, kind: Any, axes: int, dtype: torch.dtype) -> LanguageModel:
    register()
    torch.manual_seed(0)
    config._attn_implementation = ATTENTIONS["sdpa"]
    decoder = kind(config).eval()
    for weight in decoder.parameters():
        if weight.dim() > 1:
            weight.data.normal_(std=0.2)
    decoder.to(dtype)
    prompt: Any = SimpleNamespace(preamble_ids=lambda: [5, 6, 7])
    device = torch.device("cpu")
    model = LanguageModel(
        Whole(decoder, config), decoder, config, prompt, dtype=dtype, device=device
    )
    model.positions = LinearPositions() if axes == 1 else TimedImagePositions()
    return model
