"""Keys and values outside and inside the language model: rotary embedding on and off, and a cache
that never moves.

Besides `language_model.py`, the only file here that knows transformers' cache objects. Knows no
pixels, no questions, no disk.

Keys are stored before rotary embedding (un-rotated in float32 on write). On read they are rotated
once, to their final positions; a rotated key is never rotated again. RoPE (arXiv 2104.09864) turns
pairs (a, b) of a head's numbers: a cos - b sin, b cos + a sin. `RotaryTable` knows which numbers
are pairs. With an attention scaling s (YaRN), cos and sin carry s, so the inverse divides by s^2 =
cos^2 + sin^2.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from encoders.models.context.host_context import HostContext
from encoders.models.context.schema import ContextAttention
from encoders.models.positions import Cursor
from encoders.schema import KVBlock

Mark = tuple[int, Cursor]  # number of tokens, and the cursor

# numbers that are rotated at a time, at least one layer's: 16 MB in float32
_ROTATED = 1 << 22


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


class RotaryForm(Enum):
    """Which numbers of a head are pairs, and how a model's table of cosines lies."""

    HALVES = "pairs (i, i + R/2), as in Llama and Qwen"
    INTERLEAVED = "pairs (2i, 2i + 1), and the table alike, as in GLM-4V"
    INTERLEAVED_KEYS = "pairs (2i, 2i + 1), but the table in halves, as in GLM-4"


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Rotary embedding at M positions. R of the Dh numbers of a head are rotated, R <= Dh; the rest
    passes unchanged.
    """

    cos: Tensor  # [M, R] float32
    sin: Tensor  # [M, R] float32
    is_interleaved: bool  # pairs are (2i, 2i + 1); else (i, i + R/2)

    @classmethod
    def of(cls, cos: Tensor, sin: Tensor, form: RotaryForm) -> "RotaryTable":
        """The table of a model, whose form is known."""
        if form is RotaryForm.INTERLEAVED_KEYS:
            half = cos.shape[-1] // 2
            cos, sin = (x[..., :half].repeat_interleave(2, dim=-1) for x in (cos, sin))
        return cls(cos, sin, form is not RotaryForm.HALVES)

    def rows(self, first: int, stop: int | None = None) -> "RotaryTable":
        """The positions first..stop-1 of this table."""
        return RotaryTable(self.cos[first:stop], self.sin[first:stop], self.is_interleaved)

    def rotate(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """x [..., M, Dh] of any dtype, before rotary embedding -> [..., M, Dh] float32 at these
        positions. out: float32 memory for the result, such as a part of a cache.
        """
        return self._turn(x, self.sin, out)

    def unrotate(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The inverse of `rotate`, in float32."""
        out = self._turn(x, -self.sin, out)
        out[..., : self.cos.shape[-1]].div_(self.cos.square() + self.sin.square())
        return out

    def misfit(self, raw: Tensor, rotated: Tensor) -> Tensor:
        """[L] float32: how far `rotate(raw)` is from keys that a model rotated, both [L, H, M, Dh].
        The mean difference of a number relative to its pair: about 0.003 in bfloat16 if the table
        is right.
        """
        ours, rotated = self.rotate(raw), rotated.float()
        size = torch.empty_like(ours)
        first, second = self._pairs(ours)
        for part in self._pairs(size):
            part.copy_(torch.hypot(first, second))
        size[..., self.cos.shape[-1] :] = ours[..., self.cos.shape[-1] :].abs()
        share = (ours - rotated).abs() / size.clamp_(min=torch.finfo(torch.float32).tiny)
        return share.clamp_(max=1.0).mean((1, 2, 3))

    def _turn(self, x: Tensor, sin: Tensor, out: Tensor | None) -> Tensor:
        x = x.float()
        out = torch.empty_like(x) if out is None else out
        first, second = self._pairs(x)
        first_cos, second_cos = self._pairs(self.cos)
        first_sin, second_sin = self._pairs(sin)
        first_out, second_out = self._pairs(out)
        # computed by halves: half of the passes over memory, and the same numbers
        torch.mul(first, first_cos, out=first_out).sub_(second * first_sin)
        torch.mul(second, second_cos, out=second_out).add_(first * second_sin)
        if self.cos.shape[-1] < x.shape[-1]:
            out[..., self.cos.shape[-1] :] = x[..., self.cos.shape[-1] :]
        return out

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the first and of the second numbers of all pairs: two of [..., M, R / 2]."""
        width = self.cos.shape[-1]
        if self.is_interleaved:
            return x[..., 0:width:2], x[..., 1:width:2]
        return x[..., : width // 2], x[..., width // 2 : width]


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
    context_attention: ContextAttention | None = None  # how the context is read; None: whole
    host: HostContext | None = None  # holds the first tokens that are appended, where it has room
    # bool [L, Hq, S]: tokens of the context that a query head of later tokens does not read
    hidden: Tensor | None = None
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

    def append(self, keys: Tensor, values: Tensor, table: RotaryTable) -> None:
        """Append stored keys [L, H, M, Dh] (before rotary embedding) and values, at the positions
        of the table. For a cache of one row. ValueError beyond the capacity.
        """
        if self.host is not None and self.host.room:
            count = min(self.host.room, keys.shape[2])
            self._place_on_host(self.host, keys[:, :, :count], values[:, :, :count], table)
            keys, values, table = keys[:, :, count:], values[:, :, count:], table.rows(count)
        for layers in self._layer_groups(keys[0]):
            self._place(layers, keys[layers], values[layers], table)
        self.rewind_to(self._end(keys.shape[-2]))

    def append_per_layer(
        self, layers: Iterable[tuple[Tensor, Tensor]], tables: Iterable[RotaryTable]
    ) -> None:
        """As `append`, with keys and values [H, M, Dh], and positions, of each layer. M is the same
        for all.
        """
        count = 0
        for layer, ((keys, values), table) in enumerate(zip(layers, tables, strict=True)):
            count = keys.shape[-2]
            self._place(slice(layer, layer + 1), keys[None], values[None], table)
        self.rewind_to(self._end(count))

    def _place(self, layers: slice, keys: Tensor, values: Tensor, table: RotaryTable) -> None:
        """Write keys and values of some layers behind the filled part, which stays as it is."""
        start, stop = self.layers[0].filled, self._end(keys.shape[-2])
        place = self.keys[layers, 0, :, start:stop]
        keys = keys.to(self.keys.device)
        if place.dtype == torch.float32:
            table.rotate(keys, out=place)
        else:
            place.copy_(table.rotate(keys))
        self.values[layers, 0, :, start:stop] = values

    def hold_on_host(self, tokens: int, sink: int) -> None:
        """Memory of the host for the next tokens that are appended. sink: of those that are
        there, the ones that come before them."""
        shape = (len(self.layers), 1, self.keys.shape[2], tokens, self.keys.shape[4])
        keys, values = (torch.empty(shape, dtype=self.keys.dtype) for _ in range(2))
        self.host = self.context_attention = HostContext(keys, values, sink)

    def _place_on_host(
        self, host: HostContext, keys: Tensor, values: Tensor, table: RotaryTable
    ) -> None:
        """Write keys and values behind those that it has."""
        places = slice(host.filled, host.filled + keys.shape[2])
        own = table.rows(0, keys.shape[2])
        for layers in self._layer_groups(keys[0]):
            rotated = own.rotate(keys[layers].to(self.keys.device))
            host.keys[layers, 0, :, places].copy_(rotated)
        host.values[:, 0, :, places].copy_(values)
        host.filled = places.stop

    def _end(self, count: int) -> int:
        """Number of tokens after `count` more. ValueError beyond the capacity."""
        stop = self.layers[0].filled + count
        if stop > self.capacity:
            raise ValueError(f"cache of {self.capacity} tokens cannot hold {stop}")
        return stop

    def _layer_groups(self, layer: Tensor) -> Iterator[slice]:
        """All layers, a few at a time. layer: keys of one, [H, M, Dh]. Rotation computes in
        float32, so all layers of a large model at once would take gigabytes.
        """
        step = max(1, _ROTATED // max(1, layer.numel()))
        for first in range(0, len(self.layers), step):
            yield slice(first, min(first + step, len(self.layers)))

    def stored(self, start: int, table: RotaryTable, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys before rotary embedding, and values, of the tokens from `start` on: two copies [L,
        H, M, Dh] of `dtype`.
        """
        stop = self.layers[0].filled
        rotated, values = self.keys[:, 0, :, start:stop], self.values[:, 0, :, start:stop]
        keys = torch.empty(rotated.shape, dtype=dtype, device=rotated.device)
        for layers in self._layer_groups(rotated[0]):
            if dtype == torch.float32:
                table.unrotate(rotated[layers], out=keys[layers])
            else:
                keys[layers] = table.unrotate(rotated[layers])
        return keys, values.to(dtype, copy=True)


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
