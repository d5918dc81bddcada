"""Encodes a segment's tensors for disk, lossless or quantized, and decodes ranges of frames.

Knows records and tensors; no files, no catalog. `encode` names the tensors of a file; `decode_*`
take only what was cut out of one. With int8 or int4 keys and values, everything else is small too:
    tokens, values     quantized per token
    keys               frame by frame, against the channels of a base frame; in banks of before,
                       per channel in groups of whole frames (quantization.py)
    key_means          not stored: computed from the decoded keys
    clip               int8 per row, one row for frames that repeat each other
                       (VisualTokens.repeats)
    pos, offsets       the smallest integer dtypes that hold them, exactly
Thumbnails are JPEGs in every bank; an empty one repeats the one before it.
A cut by frames cuts the codes; the scales of keys are read whole. So a decoded range equals the
slice of the decoded whole, bit by bit.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment
from memory.storage.segments import quantization
from memory.storage.segments.quantization import Packed

KV_DTYPES = ("bfloat16", "int8", "int4")
TOKEN_DTYPES = ("bfloat16", "int8", "int4")
# most channels in a group of a visual token or clip row
TOKEN_CHANNELS = {"int8": 128, "int4": 64}
_BITS = {"int8": 8, "int4": 4}
# a file's "form" metadata, such as {"kv": "int4", "kv_as": "bfloat16"}; empty: lossless
TensorFormat = dict[str, str]


@dataclass(frozen=True, slots=True)
class StorageFormat:
    """How a bank stores segments: its settings kv_dtype and token_dtype. UserError for a value that
    is not supported."""

    kv: str | None = None  # one of KV_DTYPES; None: as the prefill gives them
    tokens: str | None = None  # one of TOKEN_DTYPES; None: as the vision tower gives them
    # newest frames whose exact keys and values the window keeps while a video is written
    window_frames: int = 0
    # a quantized key depends on its own frame and earlier ones alone; False in banks of before
    causal: bool = True

    def __post_init__(self) -> None:
        for name, value, options in (
            ("kv_dtype", self.kv, KV_DTYPES),
            ("token_dtype", self.tokens, TOKEN_DTYPES),
        ):
            if value is not None and value not in options:
                raise UserError(
                    f"{name}={value} is not known; use {', '.join(options)}, or null for as made."
                )

    def __str__(self) -> str:
        """The value of "quantisation" in a bank's provenance; `parse` reads it."""
        values = {
            "kv": self.kv,
            "keys": "causal" if self.is_quantized and self.causal else None,
            "tokens": self.tokens,
            "window": self.window_frames if self.keeps_window else None,
        }
        return (
            ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
            or "none"
        )

    @classmethod
    def parse(cls, text: str) -> "StorageFormat":
        """The inverse of `str`. UserError for any other text."""
        parts = dict(part.split("=", 1) for part in text.split(", ") if "=" in part)
        window = parts.get("window", "0")
        kv, tokens = parts.get("kv"), parts.get("tokens")
        causal = "keys" in parts or kv not in _BITS
        parsed = cls(kv, tokens, int(window) if window.isdecimal() else 0, causal)
        if str(parsed) != text:
            raise UserError(
                f"The bank was made with quantisation={text}, which this Reelbank does not know; "
                "use a newer one."
            )
        return parsed

    @property
    def keeps_window(self) -> bool:
        """True if the encoder needs exact keys and values that the segments do not store."""
        return self.kv is not None and self.window_frames > 0

    @property
    def is_quantized(self) -> bool:
        """True if keys and values are quantized; then the other tensors are stored small too."""
        return self.kv in _BITS

    def as_stored(self, segment: Segment) -> Segment:
        """The segment with the index rows as they read back from disk, so that a retriever indexes
        the same rows before and after a restart."""
        if not self.is_quantized:
            return segment
        clip, form = _encode_clip(segment)
        means = segment.key_means
        if means is not None and segment.kv is not None:
            edges = segment.kv.offsets
            keys = _encode_keys(segment.kv, self, form)
            decoded = decode_keys(keys["keys"], keys["keys_scale"], edges, 0, len(segment), form)
            means = key_means(decoded, edges, segment.tokens.repeats)
        return replace(
            segment, clip=decode_clip(clip, segment.tokens.repeats, form), key_means=means
        )

    def as_read(self, segment: Segment) -> Segment:
        """The segment with visual tokens, keys and values as they read back from disk, so that an
        answer reads the same numbers before and after it is written."""
        if self.kv is None and self.tokens is None:
            return segment
        form: TensorFormat = {}
        tokens = decode_tokens(_encode_tokens(segment.tokens.tokens, self, form), form)
        block = segment.kv
        if block is not None:
            stored = _encode_kv(block, self, form)
            scale, stop = stored.get("keys_scale"), len(segment)
            keys = decode_keys(stored["keys"], scale, block.offsets, 0, stop, form)
            block = replace(block, keys=keys, values=decode_values(stored["values"], form))
        return replace(segment, tokens=replace(segment.tokens, tokens=tokens), kv=block)


def encode(
    segment: Segment, storage_format: StorageFormat
) -> tuple[dict[str, Tensor], TensorFormat]:
    """The tensors of a segment's file by name, and the format to record in it."""
    visual, block = segment.tokens, segment.kv
    form: TensorFormat = {}
    tensors = {
        "pos": visual.pos,
        "offsets": visual.offsets,
        "times": visual.times,
        "clip": segment.clip,
    }
    if segment.key_means is not None:
        tensors["key_means"] = segment.key_means
    tensors["tokens"] = _encode_tokens(visual.tokens, storage_format, form)
    if visual.firsts is not None:
        tensors["firsts"] = visual.firsts
    if visual.repeats is not None:
        tensors["repeats"] = visual.repeats
    if visual.sides is not None:
        tensors["sides"] = visual.sides
    if segment.thumbnails is not None:
        tensors |= _encode_thumbnails(segment.distinct_thumbnails)
    if block is not None:
        tensors |= {"kv_offsets": block.offsets} | _encode_kv(block, storage_format, form)
        if block.pos is not None:
            tensors["kv_pos"] = block.pos
    if storage_format.is_quantized:
        tensors |= {
            name: narrow(tensors[name])
            for name in ("pos", "offsets", "kv_offsets", "kv_pos", "thumbnail_offsets")
            if name in tensors
        }
        tensors["clip"], clip_form = _encode_clip(segment)
        form |= clip_form
        if block is not None and tensors.pop("key_means", None) is not None:
            form["key_means"] = "of keys"
    return tensors, form


def decode_tokens(tokens: Tensor, form: TensorFormat) -> Tensor:
    """[n, D] visual tokens from a cut of the tensor `tokens`."""
    if "tokens" not in form:
        return tokens
    return quantization.unpack_by_token(
        tokens, int(form["tokens_width"]), _BITS[form["tokens"]], _dtype(form["tokens_as"])
    )


def decode_values(values: Tensor, form: TensorFormat) -> Tensor:
    """[L, H, n, Dh] values from a cut of the tensor `values`."""
    if "kv" not in form:
        return values
    return quantization.unpack_by_token(
        values, int(form["values_width"]), _BITS[form["kv"]], _dtype(form["kv_as"])
    )


def decode_keys(
    keys: Tensor, scale: Tensor | None, offsets: Tensor, first: int, stop: int, form: TensorFormat
) -> Tensor:
    """[L, H, n, Dh] keys of frames first..stop-1. keys: a cut of the tensor `keys`. scale, offsets:
    the whole tensors `keys_scale` and `kv_offsets`."""
    if scale is None:
        return keys
    edges: list[int] = offsets.tolist()
    bits, dtype = _BITS[form["kv"]], _dtype(form["kv_as"])
    if "keys" in form:
        base = quantization.base_of(edges, first, stop)
        width = int(form["keys_width"])
        return quantization.unpack_by_base(Packed(keys, scale), base, width, bits, dtype)
    groups, a, b = quantization.token_groups(edges), edges[first], edges[stop]
    g, h = bisect_right(groups, a) - 1, bisect_left(groups, b)  # these tokens are in groups g..h-1
    inside = [min(max(edge, a), b) - a for edge in groups[g : h + 1]]
    return quantization.unpack_by_channel(Packed(keys, scale[..., g:h, :]), inside, bits, dtype)


def decode_clip(clip: Tensor, repeats: Tensor | None, form: TensorFormat) -> Tensor:
    """[T, E] float32 unit rows from `clip` and `repeats`."""
    if "clip_width" not in form:
        return clip
    return _spread(
        normalize(
            quantization.unpack_by_token(clip, int(form["clip_width"]), 8, torch.float32), dim=1
        ),
        repeats,
    )


def holder_of(offsets: Tensor, frame: int) -> int:
    """Number of the frame that holds the bytes of this frame's thumbnail: its own, or the one that
    it repeats. offsets: the tensor `thumbnail_offsets`.
    """
    edges: list[int] = offsets.tolist()
    while frame and edges[frame] == edges[frame + 1]:
        frame -= 1
    return frame


def key_means(keys: Tensor, offsets: Tensor, repeats: Tensor | None) -> Tensor:
    """[T, L, H * Dh] float32: the mean key of each frame. keys: of all frames, cut by `offsets`."""
    edges, exact = offsets.tolist(), keys.float()
    skipped = [False] * (len(edges) - 1) if repeats is None else repeats.tolist()
    rows = [
        exact[:, :, a:b].mean(2)
        for (a, b), skip in zip(pairwise(edges), skipped, strict=True)
        if not skip
    ]
    return _spread(torch.stack(rows).flatten(2), repeats)


def narrow(numbers: Tensor) -> Tensor:
    """The same integers in the smallest of uint8, int16 and int32 that fits, else unchanged."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if torch.equal(numbers.to(dtype).to(numbers.dtype), numbers):
            return numbers.to(dtype)
    return numbers


def _encode_thumbnails(thumbnails: Sequence[bytes]) -> dict[str, Tensor]:
    """JPEGs one behind another. thumbnails: `Segment.distinct_thumbnails`."""
    edges = [0, *accumulate(map(len, thumbnails))]
    joined = np.frombuffer(bytearray(b"".join(thumbnails)), np.uint8)
    return {"thumbnails": torch.from_numpy(joined), "thumbnail_offsets": torch.tensor(edges)}


def _encode_tokens(tokens: Tensor, storage_format: StorageFormat, form: TensorFormat) -> Tensor:
    if storage_format.tokens not in _BITS:
        return tokens if storage_format.tokens is None else tokens.to(_dtype(storage_format.tokens))
    width = quantization.width_for(tokens.shape[1], TOKEN_CHANNELS[storage_format.tokens])
    form |= {
        "tokens": storage_format.tokens,
        "tokens_as": _name(tokens.dtype),
        "tokens_width": str(width),
    }
    return quantization.pack_by_token(tokens, width, _BITS[storage_format.tokens])


def _encode_kv(
    block: KVBlock, storage_format: StorageFormat, form: TensorFormat
) -> dict[str, Tensor]:
    if storage_format.kv not in _BITS:
        dtype = block.keys.dtype if storage_format.kv is None else _dtype(storage_format.kv)
        return {"keys": block.keys.to(dtype), "values": block.values.to(dtype)}
    width = quantization.width_for(block.values.shape[-1])
    form["values_width"] = str(width)
    values = quantization.pack_by_token(block.values, width, _BITS[storage_format.kv])
    return _encode_keys(block, storage_format, form) | {"values": values}


def _encode_keys(
    block: KVBlock, storage_format: StorageFormat, form: TensorFormat
) -> dict[str, Tensor]:
    kind, edges = str(storage_format.kv), block.offsets.tolist()
    form |= {"kv": kind, "kv_as": _name(block.keys.dtype)}
    if storage_format.causal:
        width = quantization.width_for(block.keys.shape[-1])
        form |= {"keys": "causal", "keys_width": str(width)}
        keys = quantization.pack_by_base(block.keys, edges, width, _BITS[kind])
    else:
        groups = quantization.token_groups(edges)
        keys = quantization.pack_by_channel(block.keys, groups, _BITS[kind])
    return {"keys": keys.codes, "keys_scale": keys.scale}


def _encode_clip(segment: Segment) -> tuple[Tensor, TensorFormat]:
    """Rows of the frames that repeat no other."""
    distinct = torch.unique(segment.tokens.representatives)
    width = quantization.width_for(segment.clip.shape[1], TOKEN_CHANNELS["int8"])
    return quantization.pack_by_token(segment.clip[distinct], width, 8), {"clip_width": str(width)}


def _spread(rows: Tensor, repeats: Tensor | None) -> Tensor:
    """[K, ...], one row for each frame that is no repeat -> [T, ...]."""
    return rows if repeats is None else rows[(~repeats).cumsum(0) - 1]


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
