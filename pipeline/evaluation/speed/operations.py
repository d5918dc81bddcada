"""Multiplications and additions of a LLaVA-OneVision model, counted from its configuration alone.

A multiplication and its addition are two operations. Counted: matrix products, the patch
convolution, and attention (scores and the weighted sum). Not counted, a few per cent: norms,
activations, softmax, rotary embedding, pooling. A pair that the causal mask hides is not counted.
Knows no tensor.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Operations:
    """Operations of some piece of work."""

    tower: float = 0.0
    decoder: float = 0.0  # projections and feed-forward; no head
    attention: float = 0.0  # of the decoder
    head: float = 0.0

    @property
    def total(self) -> float:
        return self.tower + self.decoder + self.attention + self.head


def tower(config: Any, frames: int) -> float:
    """Vision tower and projector over so many frames."""
    vision, text = config.vision_config, config.get_text_config()
    width, inner = vision.hidden_size, vision.intermediate_size
    patches = (vision.image_size // vision.patch_size) ** 2
    embed = 2 * patches * vision.num_channels * vision.patch_size**2 * width
    layer = 2 * patches * (4 * width * width + 2 * width * inner) + 4 * patches * patches * width
    project = 2 * patches * (width * text.hidden_size + text.hidden_size**2)  # before pooling
    return float(frames * (embed + vision.num_hidden_layers * layer + project))


def decoder(config: Any, tokens: int, *, prefill_only: bool = False) -> float:
    """The decoder's matrix products over so many tokens.

    prefill_only: keys and values alone, so the last layer ends with its projections.
    """
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * width, text.num_key_value_heads * width
    inwards = text.hidden_size * (queries + 2 * keys)
    rest = text.hidden_size * (queries + 3 * text.intermediate_size)
    return (
        2.0
        * tokens
        * (inwards * text.num_hidden_layers + rest * (text.num_hidden_layers - prefill_only))
    )


def attention(config: Any, pairs: float, *, prefill_only: bool = False) -> float:
    """The decoder's attention over so many pairs of a query and a key, in each layer.

    prefill_only: without the last layer.
    """
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 4.0 * pairs * text.num_attention_heads * width * (text.num_hidden_layers - prefill_only)


def head(config: Any, tokens: int) -> float:
    """Logits of so many tokens."""
    text = config.get_text_config()
    return 2.0 * tokens * text.hidden_size * text.vocab_size


def pairs(new: int, cached: int) -> float:
    """Pairs of `new` causal queries after `cached` keys."""
    return new * cached + new * (new + 1) / 2


def encode_windowed(
    config: Any, frames: int, *, tokens: int, sink: int, segment: int, window: int
) -> Operations:
    """Encoding as Reelbank does.

    Segments of `segment` frames with `tokens` tokens each (time tags included), after a sink of
    `sink` tokens and the last `window` frames. Nothing is computed twice.
    """
    total_pairs = 0.0
    for first in range(0, frames, segment):
        new = min(segment, frames - first)
        total_pairs += pairs(new * tokens, sink + min(first, window) * tokens)
    linear = decoder(config, frames * tokens, prefill_only=True)
    return Operations(
        tower(config, frames), linear, attention(config, total_pairs, prefill_only=True)
    )


def encode_growing(config: Any, frames: int, *, tokens: int, sink: int) -> Operations:
    """Encoding with everything before in sight, as a kept cache does."""
    return Operations(
        tower(config, frames),
        decoder(config, frames * tokens + sink),
        attention(config, pairs(frames * tokens + sink, 0)),
    )


def answer(config: Any, *, context: int, tail: int, new_tokens: int) -> Operations:
    """A question of `tail` tokens after a given context, and so many new tokens."""
    steps = new_tokens - 1  # the last one is not fed back
    question_pairs = pairs(tail + steps, context)
    return Operations(
        0.0,
        decoder(config, tail + steps),
        attention(config, question_pairs),
        head(config, new_tokens),
    )
