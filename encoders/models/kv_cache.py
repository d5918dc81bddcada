"""Keys and values outside and inside the language model: rotary embedding on and off, and a cache
that never moves.

Besides `video_llm.py` and the adapters, the only file that knows transformers' cache objects. Knows
no pixels, no questions, no disk.

Keys are stored before rotary embedding (un-rotated in float32 on write). On read they are rotated
once, to their final positions; a rotated key is never rotated again. RoPE (arXiv 2104.09864) in the
half-split form of transformers: rotate(x)[i] = x[i] cos - x[i + Dh/2] sin, rotate(x)[i + Dh/2] =
x[i + Dh/2] cos + x[i] sin. With an attention scaling s (YaRN), cos and sin carry s, so the inverse
divides by s^2 = cos^2 + sin^2.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from encoders.models.positions import Cursor
from encoders.schema import KVBlock

Mark = tuple[int, Cursor]  # number of tokens, and the cursor


@dataclass(frozen=True, slots=True)
class KVShape:
    """The shape of one token's keys, and of its values."""

    layers: int
    heads: int  # KV heads
    width: int  # of a head

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "KVShape":
        """The shape that a model's configuration states."""
        text = config.get_text_config()
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(text.num_hidden_layers, text.num_key_value_heads, width)

    def nbytes(self, dtype: torch.dtype) -> int:
        """Bytes of keys and values of one token."""
        return 2 * self.layers * self.heads * self.width * dtype.itemsize


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., M, Dh] of any dtype, cos and sin [M, Dh] float32 -> [..., M, Dh] float32 at those
    positions.
    """
    x = x.float()
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    # computed by halves: half of the passes over memory, and the same numbers
    out = torch.empty_like(x)
    torch.mul(first, cos[..., :half], out=out[..., :half]).sub_(second * sin[..., :half])
    torch.mul(second, cos[..., half:], out=out[..., half:]).add_(first * sin[..., half:])
    return out


def unrotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The inverse of `rotate`, in float32."""
    return rotate(x, cos, -sin) / (cos.square() + sin.square())


class FixedLayer(CacheLayerMixin):
    """One layer's keys and values in a buffer of fixed capacity: appending copies only the new
    tokens.

    (transformers' DynamicLayer concatenates: quadratic over an answer, 60 times slower over 300
    appends.)
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, keys: Tensor, values: Tensor, whole: bool = False) -> None:
        """keys, values [B, H, capacity, Dh]: the buffers, in the model's dtype, on its device.
        whole: `update` returns the whole buffers; the caller masks the unused part.
        """
        super().__init__()
        self.buffers, self.whole = (keys, values), whole
        self.filled = 0
        self.is_initialized = True
        self.dtype, self.device = keys.dtype, keys.device

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the constructor got the buffers."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append [B, H, n, Dh]; return views of the filled part, or the whole buffers. ValueError
        beyond the capacity.
        """
        stop = self.filled + key_states.shape[-2]
        if stop > self.buffers[0].shape[-2]:
            raise ValueError(f"cache of {self.buffers[0].shape[-2]} tokens cannot hold {stop}")
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., self.filled : stop, :] = new
        self.filled = stop
        self.keys, self.values = (
            self.buffers if self.whole else (buffer[..., :stop, :] for buffer in self.buffers)
        )
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.filled

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_max_length() if self.whole else self.filled + query_length, 0

    def get_max_length(self) -> int:
        return int(self.buffers[0].shape[-2])

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens; transformers passes their number as a negative number."""
        self.hold(self.filled + min(tokens_to_remove, 0))

    def hold(self, length: int) -> None:
        """Keep the first `length` tokens of the buffers."""
        self.filled = length
        self.keys, self.values = (buffer[..., :length, :] for buffer in self.buffers)


class _PrefillComplete(Exception):
    """Every layer has the keys and values of the new tokens."""


class FixedCache(Cache):
    """A cache of FixedLayers. The buffers of all layers lie in two tensors that can be reused."""

    layers: list[FixedLayer]
    cursor = Cursor()  # where the next token stands; code that appends also moves it
    _stops_early = False

    def __init__(self, keys: Tensor, values: Tensor, whole: bool = False) -> None:
        """keys, values [L, B, H, capacity, Dh]: the buffers, or views of larger ones. All B rows
        have the same length. whole: as for FixedLayer.
        """
        self.keys, self.values = keys, values
        super().__init__(
            layers=[FixedLayer(*layer, whole) for layer in zip(keys, values, strict=True)]
        )

    @classmethod
    def empty(
        cls,
        layers: int,
        heads: int,
        capacity: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "FixedCache":
        """A cache of one row with buffers of its own."""
        keys, values = (
            torch.empty((layers, 1, heads, capacity, width), dtype=dtype, device=device)
            for _ in range(2)
        )
        return cls(keys, values)

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Append to a layer, as a decoder does. Inside `filling`, the pass ends with the last
        layer.
        """
        pair: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        if self._stops_early and layer_idx == len(self.layers) - 1:
            raise _PrefillComplete
        return pair

    @contextmanager
    def filling(self) -> Iterator[None]:
        """`with cache.filling(): decoder(..., past_key_values=cache)` computes keys and values
        alone. The pass ends as soon as the last layer has them. The last layer's attention and MLP
        outputs are unused, so they are skipped: a twenty-fourth of a decoder of 24 layers, nearly a
        fifth of one of five.
        """
        self._stops_early = True
        try:
            yield
        except _PrefillComplete:
            pass
        finally:
            self._stops_early = False

    @property
    def capacity(self) -> int:
        return int(self.keys.shape[-2])

    def mark(self) -> Mark:
        """This state, for `rewind`."""
        return self.layers[0].filled, self.cursor

    def rewind(self, mark: Mark) -> None:
        """Remove what was appended since the mark was taken."""
        length, self.cursor = mark
        self.rewind_to(length)

    def rewind_to(self, length: int) -> None:
        """Keep the first `length` tokens of the buffers; the cursor stays."""
        for layer in self.layers:
            layer.hold(length)

    def append(self, keys: Tensor, values: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Append stored keys [L, H, M, Dh] (before rotary embedding) and values, at the positions
        of cos, sin [M, Dh]. For a cache of one row.
        """
        rotated = rotate(keys.to(cos.device), cos, sin).to(self.keys.dtype)
        placed = values.to(device=self.values.device, dtype=self.values.dtype)
        for i, layer in enumerate(self.layers):
            layer.update(rotated[i : i + 1], placed[i : i + 1])

    def stored(
        self, start: int, cos: Tensor, sin: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Keys before rotary embedding, and values, of the tokens from `start` on: two copies [L,
        H, M, Dh] of `dtype`.
        """
        stop = self.layers[0].filled
        keys = unrotate(self.keys[:, 0, :, start:stop], cos, sin).to(dtype)
        return keys, self.values[:, 0, :, start:stop].to(dtype, copy=True)


class LibraryCache(DynamicCache):
    """transformers' own cache with a cursor, for models with sliding or recurrent layers. Nothing
    can be appended to it from storage or removed from it, so every question builds a new one.
    """

    cursor = Cursor()


def join_blocks(blocks: Sequence[KVBlock]) -> KVBlock:
    """One block from several, in the given order. blocks must not be empty."""
    ends = torch.tensor([len(b.offsets) for b in blocks]).cumsum(0) - 1
    counts = torch.cat([b.offsets for b in blocks]).diff()
    within = torch.ones(len(counts), dtype=torch.bool)
    within[ends[:-1]] = False  # boundaries between blocks
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts[within].cumsum(0)])
    keys, values = (
        torch.cat([b.keys for b in blocks], dim=2),
        torch.cat([b.values for b in blocks], dim=2),
    )
    pos = [b.pos for b in blocks if b.pos is not None]
    return KVBlock(keys, values, offsets, torch.cat(pos) if pos else None)
