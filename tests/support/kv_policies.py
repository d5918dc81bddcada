"""Files that the options of conf/kv_policy/ need for the toy model, and settings that name them."""

import functools
import json
import tempfile
from pathlib import Path

import torch

from encoders.schema import KVBlock
from memory.storage.segments.codebook import Codebook
from tests.support.toys import toy_backbone


@functools.cache
def toy_codebook() -> Path:
    """A codebook of random numbers: 2 bits a number."""
    shape = toy_backbone().language_model.kv_shape
    chance = torch.Generator().manual_seed(3)
    size = (2, shape.layers, shape.heads, 64, shape.width)
    keys, values = torch.randn(size, generator=chance).bfloat16()
    return saved_codebook([KVBlock(keys, values, torch.tensor([0, 64]))], width=2, bits=4)


def saved_codebook(blocks: list[KVBlock], *, width: int, bits: int) -> Path:
    """A codebook of these blocks."""
    path = Path(tempfile.mkdtemp(prefix="reelbank-codebook-")) / "kv.codebook"
    path.write_bytes(Codebook.fit(blocks, width=width, bits=bits).data)
    return path


@functools.cache
def toy_profile() -> Path:
    """Scores of the 4 query heads of each of the toy's 3 layers: the second KV head leads."""
    path = Path(tempfile.mkdtemp(prefix="reelbank-profile-")) / "heads.json"
    path.write_text(json.dumps({"scores": [[0.1, 0.2, 0.3, 0.9]] * 3}))
    return path


@functools.cache
def toy_spans() -> Path:
    """The first KV head of each layer reads 5 tokens, the other one 2 and a half of the context."""
    path = Path(tempfile.mkdtemp(prefix="reelbank-spans-")) / "spans.json"
    path.write_text(json.dumps({"spans": [[[5, 0], [2, 0.5]]] * 3}))
    return path


def toy_settings(option: str) -> list[str]:
    """What an option of the group needs beside its name; a window that holds few of a film's
    tokens."""
    heads = [
        f"kv_policy.profile={toy_profile()}",
        "kv_policy.window=6",
        "kv_policy.window_share=0.1",
    ]
    return {
        "product_quantization": [f"kv_policy.codebook={toy_codebook()}"],
        "head_split": heads,
        "streaming_heads": heads,
        "frame_means": heads[:1],
        "eviction": ["kv_policy.budget=8", "kv_policy.budget_share=0", "kv_policy.chunk=7"],
        "host_part": ["kv_policy.device_tokens=6"],
        "low_rank_keys": ["kv_policy.loss=0.3"],
        "span_profile": [f"kv_policy.profile={toy_spans()}"],
    }.get(option, [])
