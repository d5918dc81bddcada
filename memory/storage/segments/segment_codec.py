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
With a codebook, keys and values are numbers of its centroids (codebook.py). With heads that are not
whole, keys_scale and values_scale have their means of each frame (head_means.py). Of low-rank keys,
`keys` has the factors in the basis keys_scale (key_factors.py). The rest is the same.
Thumbnails are JPEGs in every bank; an empty one repeats the one before it.
A cut by frames cuts the codes; the scales of keys are read whole. So a decoded range equals the
slice of the decoded whole, bit by bit.
"""

import math
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
from memory.storage.segments.codebook import Codebook
from memory.storage.segments.head_means import HeadMeans
from memory.storage.segments.key_factors import KeyFactors
from memory.storage.segments.quantization import Packed
from memory.storage.segments.tensor_file import DamagedError

KV_DTYPES = ("bfloat16", "int8", "int4")
TOKEN_DTYPES = ("bfloat16", "int8", "int4")
# most channels in a group of a visual token or clip row
TOKEN_CHANNELS = {"int8": 128, "int4": 64}
_BITS = {"int8": 8, "int4": 4}
_CODES = "codes"  # keys and values are numbers of a codebook's centroids
_MEANS = "means"  # some heads have a mean of each frame
_FACTORS = "factors"  # keys are coefficients of a basis
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
    codebook: Codebook | None = None  # of keys and values, in place of `kv`
    heads: HeadMeans | None = None  # that are whole, in place of `kv`
    # of low-rank keys: share of a frame's keys that they may lack, in place of `kv`
    key_loss: float | None = None

    def __post_init__(self) -> None:
        if self.kv is not None and self._has_policy:
            raise UserError(
                f"kv_dtype={self.kv} and kv_policy= both say how keys and values are stored; leave "
                "kv_dtype= out."
            )
        if self.key_loss is not None and not 0 <= self.key_loss < 1:
            raise UserError(f"key_loss={self.key_loss} is no share of keys; use 0 to below 1.")
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
            "codebook": None if self.codebook is None else self.codebook.digest,
            "heads": self.heads,
            "key_loss": self.key_loss,
            "keys": "causal" if self.kv in _BITS and self.causal else None,
            "tokens": self.tokens,
            "window": self.window_frames if self.keeps_window else None,
        }
        return (
            ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
            or "none"
        )

    @classmethod
    def parse(cls, text: str, codebook: Codebook | None = None) -> "StorageFormat":
        """The inverse of `str`. codebook: that of `codebook_digest`. UserError for any other
        text."""
        parts = _parts(text)
        window = parts.get("window", "0")
        kv, tokens = parts.get("kv"), parts.get("tokens")
        causal = "keys" in parts or kv not in _BITS
        heads = HeadMeans.parse(parts["heads"]) if "heads" in parts else None
        try:
            loss = float(parts["key_loss"]) if "key_loss" in parts else None
        except ValueError:
            loss = math.nan
        frames = int(window) if window.isdecimal() else 0
        parsed = cls(kv, tokens, frames, causal, codebook, heads, loss)
        if str(parsed) != text:
            raise UserError(
                f"The bank was made with quantisation={text}, which this Reelbank does not know; "
                "use a newer one."
            )
        return parsed

    @property
    def keeps_window(self) -> bool:
        """True if the encoder needs exact keys and values that the segments do not store."""
        return (self.kv is not None or self._has_policy) and self.window_frames > 0

    @property
    def is_quantized(self) -> bool:
        """True if keys and values are quantized; then the other tensors are stored small too."""
        return self.kv in _BITS or self._has_policy

    @property
    def _has_policy(self) -> bool:
        return not (self.codebook is None and self.heads is None and self.key_loss is None)

    def as_stored(self, segment: Segment) -> Segment:
        """The segment with the index rows as they read back from disk, so that a retriever indexes
        the same rows before and after a restart."""
        if not self.is_quantized or segment.tokens.is_planned:
            return segment
        clip, form = _encode_clip(segment)
        means = segment.key_means
        if means is not None and segment.kv is not None:
            edges = segment.kv.offsets
            decoded = _keys_as_read(segment.kv, self, form)
            means = key_means(decoded, edges, segment.tokens.repeats)
        return replace(
            segment, clip=decode_clip(clip, segment.tokens.repeats, form), key_means=means
        )

    def as_read(self, segment: Segment) -> Segment:
        """The segment with visual tokens, keys and values as they read back from disk, so that an
        answer reads the same numbers before and after it is written."""
        if self.kv is None and self.tokens is None and not self._has_policy:
            return segment
        form: TensorFormat = {}
        tokens = decode_tokens(_encode_tokens(segment.tokens.tokens, self, form), form)
        block = segment.kv
        if block is not None:
            keys = _keys_as_read(block, self, form)
            stored = _encode_values(block, self, form)
            scale, counts = stored.get("values_scale"), block.offsets.diff()
            values = decode_values(stored["values"], form, self.codebook, scale, counts)
            block = replace(block, keys=keys, values=values)
        return replace(segment, tokens=replace(segment.tokens, tokens=tokens), kv=block)


def encode(
    segment: Segment, storage_format: StorageFormat
) -> tuple[dict[str, Tensor], TensorFormat]:
    """The tensors of a segment's file by name, and the format to record in it."""
    visual, block = segment.tokens, segment.kv
    if visual.is_planned:
        # what is still to be encoded has neither tokens nor places, and is lossless in every bank
        storage_format = StorageFormat()
    form: TensorFormat = {}
    tensors = {
        "offsets": visual.offsets,
        "times": visual.times,
        "clip": segment.clip,
    }
    if segment.key_means is not None:
        tensors["key_means"] = segment.key_means
    if not visual.is_planned:
        tensors["pos"] = visual.pos
        tensors["tokens"] = _encode_tokens(visual.tokens, storage_format, form)
    if visual.firsts is not None:
        tensors["firsts"] = visual.firsts
    if visual.repeats is not None:
        tensors["repeats"] = visual.repeats
    if visual.sides is not None:
        tensors["sides"] = visual.sides
    if segment.carried is not None:
        tensors["carried"] = segment.carried.direction
    if segment.thumbnails is not None:
        tensors |= _encode_thumbnails(segment.distinct_thumbnails)
    if block is not None:
        tensors |= {"kv_offsets": block.offsets} | _encode_keys(block, storage_format, form)
        tensors |= _encode_values(block, storage_format, form)
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


def codebook_digest(text: str) -> str | None:
    """The digest of the codebook that a bank's "quantisation" names; None if it names none."""
    return _parts(text).get("codebook")


def decode_values(
    values: Tensor,
    form: TensorFormat,
    codebook: Codebook | None = None,
    scale: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """[L, H, n, Dh] values from a cut of the tensor `values`. codebook: that of the bank. scale,
    counts: of these frames, rows of the tensor `values_scale` and numbers of tokens."""
    if "kv" not in form:
        return values
    if form["kv"] == _CODES:
        book = _own(codebook, form)
        return book.decode(values, book.values)
    if form["kv"] == _MEANS:
        return _joined(values, scale, counts, form)
    if form["kv"] == _FACTORS:
        return values
    return quantization.unpack_by_token(
        values, int(form["values_width"]), _BITS[form["kv"]], _dtype(form["kv_as"])
    )


def decode_keys(
    keys: Tensor,
    scale: Tensor | None,
    offsets: Tensor,
    first: int,
    stop: int,
    form: TensorFormat,
    codebook: Codebook | None = None,
) -> Tensor:
    """[L, H, n, Dh] keys of frames first..stop-1. keys: a cut of the tensor `keys`. scale, offsets:
    the whole tensors `keys_scale` and `kv_offsets`. codebook: that of the bank."""
    if form.get("kv") == _CODES:
        book = _own(codebook, form)
        return book.decode(keys, book.keys)
    if form.get("kv") == _MEANS:
        means = None if scale is None else scale[first:stop]
        return _joined(keys, means, offsets[first : stop + 1].diff(), form)
    if form.get("kv") == _FACTORS:
        if scale is None:
            raise DamagedError("it lacks the basis of its keys")
        factors = KeyFactors(keys, scale, tuple(map(int, form["ranks"].split())))
        return factors.keys(offsets[first : stop + 1].diff(), int(form["kv_heads"]), first)
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


def _encode_values(
    block: KVBlock, storage_format: StorageFormat, form: TensorFormat
) -> dict[str, Tensor]:
    """The tensors `values` and, with heads that are not whole, `values_scale`."""
    if storage_format.codebook is not None:
        return {
            "values": storage_format.codebook.encode(block.values, storage_format.codebook.values)
        }
    if storage_format.heads is not None:
        values, means = storage_format.heads.split(block.values, block.offsets)
        return {"values": values, "values_scale": means}
    if storage_format.key_loss is not None:
        return {"values": block.values}
    if storage_format.kv not in _BITS:
        dtype = block.values.dtype if storage_format.kv is None else _dtype(storage_format.kv)
        return {"values": block.values.to(dtype)}
    width = quantization.width_for(block.values.shape[-1])
    form |= {"values_width": str(width), "kv": storage_format.kv}
    form["kv_as"] = _name(block.keys.dtype)
    return {"values": quantization.pack_by_token(block.values, width, _BITS[storage_format.kv])}


def _encode_keys(
    block: KVBlock, storage_format: StorageFormat, form: TensorFormat
) -> dict[str, Tensor]:
    """The tensors `keys` and, except with a codebook, `keys_scale` if they are no plain numbers."""
    if storage_format.codebook is not None:
        form |= {"kv": _CODES, "codebook": storage_format.codebook.digest}
        return {"keys": storage_format.codebook.encode(block.keys, storage_format.codebook.keys)}
    if storage_format.heads is not None:
        form |= {"kv": _MEANS, "heads": str(storage_format.heads)}
        keys, means = storage_format.heads.split(block.keys, block.offsets)
        return {"keys": keys, "keys_scale": means}
    if storage_format.key_loss is not None:
        factors = KeyFactors.of(block.keys, block.offsets, storage_format.key_loss)
        form |= {"kv": _FACTORS, "kv_heads": str(block.keys.shape[1])}
        form["ranks"] = " ".join(map(str, factors.ranks))
        return {"keys": factors.coefficients, "keys_scale": factors.basis}
    if storage_format.kv not in _BITS:
        dtype = block.keys.dtype if storage_format.kv is None else _dtype(storage_format.kv)
        return {"keys": block.keys.to(dtype)}
    kind, edges = storage_format.kv, block.offsets.tolist()
    form |= {"kv": kind, "kv_as": _name(block.keys.dtype)}
    if storage_format.causal:
        width = quantization.width_for(block.keys.shape[-1])
        form |= {"keys": "causal", "keys_width": str(width)}
        packed = quantization.pack_by_base(block.keys, edges, width, _BITS[kind])
    else:
        groups = quantization.token_groups(edges)
        packed = quantization.pack_by_channel(block.keys, groups, _BITS[kind])
    return {"keys": packed.codes, "keys_scale": packed.scale}


def _keys_as_read(block: KVBlock, storage_format: StorageFormat, form: TensorFormat) -> Tensor:
    """[L, H, M, Dh] keys of a whole block as they read back."""
    stored = _encode_keys(block, storage_format, form)
    scale, stop = stored.get("keys_scale"), len(block.offsets) - 1
    return decode_keys(stored["keys"], scale, block.offsets, 0, stop, form, storage_format.codebook)


def _joined(
    whole: Tensor, means: Tensor | None, counts: Tensor | None, form: TensorFormat
) -> Tensor:
    """Keys or values of some frames. whole: of the whole heads. means: of the others, a row a
    frame. counts: tokens of each frame."""
    if means is None or counts is None:
        raise DamagedError("it lacks the means of its heads")
    return HeadMeans.parse(form["heads"]).join(whole, means, counts)


def _own(codebook: Codebook | None, form: TensorFormat) -> Codebook:
    """The codebook that a file was made with. DamagedError where the bank has another one."""
    if codebook is None or codebook.digest != form["codebook"]:
        raise DamagedError(f"its keys and values need the codebook {form['codebook']}")
    return codebook


def _parts(text: str) -> dict[str, str]:
    """The names and values in a bank's "quantisation"."""
    return dict(part.split("=", 1) for part in text.split(", ") if "=" in part)


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
