"""Parts of the configurations that the authors published with their checkpoints, as dictionaries.

Each adapter builds its `published` configurations from them, so that sizes are known without any
weights. A checkpoint's own config.json takes precedence. Knows no family, no weights and no
network.
"""

from typing import Any


def decoder(
    kind: str,
    layers: int,
    width: int,
    inner: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    **more: Any,
) -> dict[str, Any]:
    """The text model's configuration. kind: transformers' model type; more: further keys."""
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
    } | more


def tower(
    layers: int, width: int, inner: int, side: int, patch: int, heads: int = 16
) -> dict[str, Any]:
    """A plain vision tower for square frames."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "image_size": side,
        "patch_size": patch,
    }
