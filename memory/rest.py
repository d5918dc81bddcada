"""What a segment's numbers become on disk, and how a range of frames comes back: as made, bfloat16, or whole numbers.

Knows records and tensors; no files, no catalog. `freeze` names the tensors of a file, `thaw_*` turns cut tensors back; only
what was cut is dequantised. With int8 or int4 keys and values everything beside them is stored small as well:
    tokens, values     quantised per token; keys per channel, in groups of whole frames           memory/quantise.py
    key_means          per channel, in one group, with the bits of the keys; clip int8 per row
    pos, offsets       as the smallest integers that hold them, exactly
    clip, key_means    one row for frames that repeat each other (VisualTokens.repeats)
Every cut by frames is a cut of codes; the scales of keys are read whole, so a range equals the slice of the whole, bit by bit.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment
from memory import quantise
from memory.quantise import Packed

KV_DTYPES = ("bfloat16", "int8", "int4")
TOKEN_DTYPES = ("bfloat16", "int8")
TOKEN_CHANNELS = 128  # at most, in a group of a visual token's or a clip row's channels
_BITS = {"int8": 8, "int4": 4}
Form = dict[str, str]  # what a file says of itself: {"kv": "int4", "kv_as": "bfloat16"}; empty = as made


@dataclass(frozen=True, slots=True)
class AtRest:
    """The dials kv_dtype and token_dtype of a bank. UserError on other values."""

    kv: str | None = None  # one of KV_DTYPES; None = as the prefill made them
    tokens: str | None = None  # one of TOKEN_DTYPES; None = as the tower made them
    window_frames: int = 0  # newest frames whose keys and values are kept as made while a video is written

    def __post_init__(self) -> None:
        for name, value, known in (("kv_dtype", self.kv, KV_DTYPES), ("token_dtype", self.tokens, TOKEN_DTYPES)):
            if value is not None and value not in known:
                raise UserError(f"{name}={value} is not known; use {', '.join(known)}, or null for as made.")

    def __str__(self) -> str:
        """What a bank's provenance says under "quantisation"; `parse` reads it."""
        values = {"kv": self.kv, "tokens": self.tokens, "window": self.window_frames if self.keeps_window else None}
        return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None) or "none"

    @classmethod
    def parse(cls, told: str) -> "AtRest":
        """UserError on what `str` does not write."""
        parts = dict(part.split("=", 1) for part in told.split(", ") if "=" in part)
        window = parts.get("window", "0")
        found = cls(parts.get("kv"), parts.get("tokens"), int(window) if window.isdecimal() else 0)
        if str(found) != told:
            raise UserError(f"The bank was made with quantisation={told}, which this Reelbank does not know; use a newer one.")
        return found

    @property
    def keeps_window(self) -> bool:
        """Whether stored keys and values are not those that the encoder goes on with."""
        return self.kv is not None and self.window_frames > 0

    @property
    def small(self) -> bool:
        """Whether everything beside keys and values is stored small as well."""
        return self.kv in _BITS

    def settle(self, segment: Segment) -> Segment:
        """A segment that is stored, with the index rows that will be read back: a retriever is fed the same before and after
        a restart."""
        if not self.small:
            return segment
        tensors, form = _freeze_rows(segment, str(self.kv))
        repeats = segment.tokens.repeats
        means = None
        if segment.key_means is not None:
            means = thaw_means(tensors["key_means"], tensors["key_means_scale"], repeats, form)
        return replace(segment, clip=thaw_clip(tensors["clip"], tensors["clip_scale"], repeats), key_means=means)


def freeze(segment: Segment, at_rest: AtRest) -> tuple[dict[str, Tensor], Form]:
    """The tensors of a segment's file by name, and what it must say of itself."""
    seen, block = segment.tokens, segment.kv
    form: Form = {}
    tensors = {"pos": seen.pos, "offsets": seen.offsets, "times": seen.times, "clip": segment.clip}
    if segment.key_means is not None:
        tensors["key_means"] = segment.key_means
    tensors |= _freeze_tokens(seen.tokens, at_rest, form)
    if seen.firsts is not None:
        tensors["firsts"] = seen.firsts
    if seen.repeats is not None:
        tensors["repeats"] = seen.repeats
    if block is not None:
        tensors |= {"kv_offsets": block.offsets} | _freeze_kv(block, at_rest, form)
        if block.pos is not None:
            tensors["kv_pos"] = block.pos
    if at_rest.small:
        tensors |= {name: narrow(tensors[name]) for name in ("pos", "offsets", "kv_offsets", "kv_pos") if name in tensors}
        rows, says = _freeze_rows(segment, str(at_rest.kv))
        tensors |= rows
        form |= says
    return tensors, form


def thaw_tokens(tokens: Tensor, scale: Tensor | None, form: Form) -> Tensor:
    """[n, D] visual tokens from what was cut of `tokens` and `tokens_scale`."""
    if scale is None:
        return tokens
    return quantise.unpack_by_token(Packed(tokens, scale), _BITS[form["tokens"]], _dtype(form["tokens_as"]))


def thaw_values(values: Tensor, scale: Tensor | None, form: Form) -> Tensor:
    """[L, H, n, Dh] from what was cut of `values` and `values_scale`."""
    if scale is None:
        return values
    return quantise.unpack_by_token(Packed(values, scale), _BITS[form["kv"]], _dtype(form["kv_as"]))


def thaw_keys(keys: Tensor, scale: Tensor | None, offsets: Tensor, first: int, stop: int, form: Form) -> Tensor:
    """[L, H, n, Dh] from the keys of frames first..stop-1, the whole `keys_scale` and the whole `kv_offsets`."""
    if scale is None:
        return keys
    edges: list[int] = offsets.tolist()
    where = quantise.group_of(quantise.token_groups(edges))[edges[first] : edges[stop]]
    return quantise.unpack_by_channel(Packed(keys, scale), where, _BITS[form["kv"]], _dtype(form["kv_as"]))


def thaw_clip(clip: Tensor, scale: Tensor | None, repeats: Tensor | None) -> Tensor:
    """[T, E] float32 unit rows from `clip`, `clip_scale` and `repeats`."""
    if scale is None:
        return clip
    return _spread(normalize(quantise.unpack_by_token(Packed(clip, scale), 8, torch.float32), dim=1), repeats)


def thaw_means(means: Tensor, scale: Tensor | None, repeats: Tensor | None, form: Form) -> Tensor:
    """[T, L, H * Dh] float32 from `key_means` and `key_means_scale`."""
    if scale is None:
        return means
    where = torch.zeros(len(means), dtype=torch.int64)
    rows = quantise.unpack_by_channel(Packed(means, scale), where, _BITS[form["rows"]], torch.float32)
    return _spread(rows, repeats).unflatten(1, (int(form["layers"]), -1))


def narrow(numbers: Tensor) -> Tensor:
    """The same integers in the smallest of uint8, int16 and int32 that holds them, or as they are."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if torch.equal(numbers.to(dtype).to(numbers.dtype), numbers):
            return numbers.to(dtype)
    return numbers


def _freeze_tokens(tokens: Tensor, at_rest: AtRest, form: Form) -> dict[str, Tensor]:
    if at_rest.tokens not in _BITS:
        return {"tokens": tokens if at_rest.tokens is None else tokens.to(_dtype(at_rest.tokens))}
    width = quantise.width_for(tokens.shape[1], TOKEN_CHANNELS)
    packed = quantise.pack_by_token(tokens, width, _BITS[at_rest.tokens])
    form |= {"tokens": at_rest.tokens, "tokens_as": _name(tokens.dtype)}
    return {"tokens": packed.codes, "tokens_scale": packed.scale}


def _freeze_kv(block: KVBlock, at_rest: AtRest, form: Form) -> dict[str, Tensor]:
    if at_rest.kv not in _BITS:
        dtype = block.keys.dtype if at_rest.kv is None else _dtype(at_rest.kv)
        return {"keys": block.keys.to(dtype), "values": block.values.to(dtype)}
    bits = _BITS[at_rest.kv]
    keys = quantise.pack_by_channel(block.keys, quantise.token_groups(block.offsets.tolist()), bits)
    values = quantise.pack_by_token(block.values, quantise.width_for(block.values.shape[-1]), bits)
    form |= {"kv": at_rest.kv, "kv_as": _name(block.keys.dtype)}
    return {"keys": keys.codes, "keys_scale": keys.scale, "values": values.codes, "values_scale": values.scale}


def _freeze_rows(segment: Segment, kind: str) -> tuple[dict[str, Tensor], Form]:
    """Index rows of the frames that repeat none. Mean keys differ little from frame to frame beside how channels differ."""
    kept = torch.unique(segment.tokens.stands_for)
    clip = quantise.pack_by_token(segment.clip[kept], quantise.width_for(segment.clip.shape[1], TOKEN_CHANNELS), 8)
    tensors, form = {"clip": clip.codes, "clip_scale": clip.scale}, {"rows": kind}
    if segment.key_means is not None:
        means = segment.key_means[kept].flatten(1)  # [K, L * H * Dh]
        packed = quantise.pack_by_channel(means, [0, len(means)], _BITS[kind])
        tensors |= {"key_means": packed.codes, "key_means_scale": packed.scale}
        form["layers"] = str(segment.key_means.shape[1])
    return tensors, form


def _spread(rows: Tensor, repeats: Tensor | None) -> Tensor:
    """[K, ...] one row for each frame that is no repeat -> [T, ...]."""
    return rows if repeats is None else rows[(~repeats).cumsum(0) - 1]


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
