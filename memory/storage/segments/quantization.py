"""Asymmetric group quantization of keys, values and visual tokens, after KIVI (arXiv 2402.02750).

Knows tensors only; nothing of segments, files or models. Keys vary most from channel to channel
(some channels are large for every token), so a group of keys is one channel over many tokens.
Values vary most from token to token, so a group of values is some channels of one token. Keys are
quantized before rotary embedding, which would mix the channels.

Keys of new banks are quantized frame by frame (`pack_by_base`), so that a stored key depends on its
own frame and on earlier ones alone (law 3). Per-channel scales for every frame would double the
bytes of small frames. So a base frame has a center and a spread for each channel: the first frame
of a segment, and every frame with at least TOKENS_IN_GROUP tokens. Frames between are measured
against the base before them, with one step for each token:
    x ~ center + spread * step * (code - (2^bits - 1) / 2)
Spread and step are one byte each, rounded up to eighths of an octave. In a large frame, a number is
off by half a step of its channel's range at most, times 2^(1/4) for the rounding (of a quarter of
the mean range, where its own is smaller). Errors and bytes beside the older way stand in
docs/measurements. Banks of before have groups of frames (`pack_by_channel`):

A group stores `low` and `step` in float16, and one code per number: x ~ low + step * code. `low` is
rounded down and `step` up, so that every number of the group lies between the first and the last
code: |x - x'| <= step / 2, before x' is rounded to the output dtype. 4-bit codes are packed two per
byte along the last axis: of the n numbers of a group or token, code i is in the low half of a byte
and code i + n/2 in the high half. The other axes are unchanged and can be cut anywhere. Keys have
their scales in a separate tensor, as a group spans many tokens; the scales of a token follow its
codes, group by group.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

BITS = (4, 8)
# least tokens in a group of keys: more cost precision, fewer cost scales (4 bytes a group)
TOKENS_IN_GROUP = 128
CHANNELS_IN_GROUP = 64  # most channels in a group of one token's values
SCALE_BYTES = 4  # low and step of a group
# what a byte of a step and of a spread stands for: eighths of an octave. From a table, as a power
# can come out differently in different places of a tensor
_STEPS = torch.tensor([2.0 ** ((byte - 160) / 8) for byte in range(256)])  # 1e-6 to 4e3
_SPREADS = torch.tensor([2.0 ** ((byte - 128) / 8) for byte in range(256)])  # 2e-5 to 6e4


@dataclass(frozen=True, slots=True)
class Packed:
    """Quantized keys. Along its last axis, `scale` has `low`, then `step`."""

    codes: Tensor  # [..., n * bits / 8] uint8
    scale: Tensor  # [..., 2 * groups] float16

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scale.nbytes


def pack_by_channel(x: Tensor, groups: Sequence[int], bits: int) -> Packed:
    """Quantize keys x [..., M, n], one scale for each channel and group of tokens; group g is
    groups[g]:groups[g + 1].

    Returns codes [..., M, n * bits / 8] and scale [..., groups, 2n]. ValueError if numbers exceed
    float16, or for odd n with 4 bits.
    """
    parts = [x[..., a:b, :].float() for a, b in pairwise(groups)]
    least, most = (
        torch.stack([f(part, dim=-2) for part in parts], dim=-2) for f in (torch.amin, torch.amax)
    )
    low, step = _scale(least, most, bits)  # [..., groups, n]
    where = group_of(groups)
    codes = _codes(x.float(), low[..., where, :], step[..., where, :], bits)
    return Packed(_to_bytes(codes, bits), torch.cat([low, step], dim=-1))


def unpack_by_channel(
    packed: Packed, groups: Sequence[int], bits: int, dtype: torch.dtype
) -> Tensor:
    """Keys [..., M, n] of dtype. groups: as above, of these tokens."""
    scale = packed.scale.float()
    if len(groups) > 2:  # one group alone broadcasts over all tokens
        scale = scale[..., group_of(groups), :]
    low, step = scale.chunk(2, dim=-1)
    return (low + step * _from_bytes(packed.codes, bits)).to(dtype)


def pack_by_token(x: Tensor, width: int, bits: int) -> Tensor:
    """Quantize values or visual tokens x [..., n], one scale for each token and `width` channels;
    width divides n.

    Returns uint8 [..., n / width * (width * bits / 8 + 4)]: codes, low and step of each group.
    ValueError as above.
    """
    grouped = x.float().unflatten(-1, (-1, width))  # [..., groups, width]
    low, step = _scale(grouped.amin(-1), grouped.amax(-1), bits)
    codes = _to_bytes(_codes(grouped, low[..., None], step[..., None], bits), bits)
    scale = torch.stack([low, step], dim=-1).view(torch.uint8)  # [..., groups, 4]
    return torch.cat([codes, scale], dim=-1).flatten(-2)


def unpack_by_token(packed: Tensor, width: int, bits: int, dtype: torch.dtype) -> Tensor:
    """Values or tokens [..., n] of dtype."""
    groups = packed.unflatten(-1, (-1, width * bits // 8 + SCALE_BYTES))
    # [..., groups, 1]
    low, step = groups[..., -SCALE_BYTES:].contiguous().view(torch.float16).float().chunk(2, dim=-1)
    return (low + step * _from_bytes(groups[..., :-SCALE_BYTES], bits)).flatten(-2).to(dtype)


def base_frames(edges: Sequence[int]) -> list[int]:
    """Numbers of the frames that have a base of their own. edges: of the frames, [T + 1]."""
    numbers: list[int] = []
    for number, (a, b) in enumerate(pairwise(edges)):
        if b - a >= TOKENS_IN_GROUP or (b > a and not numbers):
            numbers.append(number)
    return numbers


def pack_by_base(x: Tensor, edges: Sequence[int], width: int, bits: int) -> Packed:
    """Quantize keys x [..., M, n] of whole frames, each on its own frame's or an earlier base.

    edges: of the frames, [T + 1]. width: channels with a common step; it divides n.
    Returns codes [..., M, n / width * (width * bits / 8 + 1)] uint8, and scale [..., B, 3n] uint8:
    center (float16) and spread of each base frame. ValueError as above.
    """
    bases = base_frames(edges)
    scale = torch.stack(
        [_base(x[..., edges[i] : edges[i + 1], :].float(), TOKENS_IN_GROUP) for i in bases], dim=-2
    )
    scaled = x.to(torch.float32, copy=True)
    for part, center, spread in _by_base(scaled, scale, base_of(edges, 0, len(edges) - 1)):
        part.sub_(center).div_(spread)
    scaled = scaled.unflatten(-1, (-1, width))
    top = 2**bits - 1
    step = torch.bucketize(scaled.abs().amax(-1) * (2 / top), _STEPS)  # [..., M, groups]
    _refuse_unfit(step, scaled)
    codes = (scaled / _STEPS[step][..., None] + top / 2).round_().clamp_(0, top).to(torch.uint8)
    packed = torch.cat([_to_bytes(codes, bits), step.to(torch.uint8)[..., None]], dim=-1)
    return Packed(packed.flatten(-2), scale)


def unpack_by_base(
    packed: Packed, base: Tensor, width: int, bits: int, dtype: torch.dtype
) -> Tensor:
    """Keys [..., M, n] of dtype. base: as `base_of` returns it for these tokens."""
    groups = packed.codes.unflatten(-1, (-1, width * bits // 8 + 1))
    step = _STEPS[groups[..., -1:].long()]
    x = _from_bytes(groups[..., :-1], bits).sub_((2**bits - 1) / 2).mul_(step).flatten(-2)
    for part, center, spread in _by_base(x, packed.scale, base):
        part.mul_(spread).add_(center)
    return x.to(dtype)


def base_of(edges: Sequence[int], first: int, stop: int) -> Tensor:
    """[M] int64: for each token of frames first..stop-1, which of the base frames it is measured
    against."""
    bases = base_frames(edges)
    counts = [b - a for a, b in pairwise(edges[first : stop + 1])]
    numbers = [max(bisect_right(bases, frame) - 1, 0) for frame in range(first, stop)]
    return torch.tensor(numbers).repeat_interleave(torch.tensor(counts))


def _base(x: Tensor, large: int) -> Tensor:
    """[..., 3n] uint8: center and spread of the channels of one frame x [..., m, n].

    The range of a few tokens says little of the next frames: then no channel's spread is below
    twice the mean one, which lost least of what questions read (docs/measurements). A frame of at
    least `large` tokens serves itself, and others of its size have their own.
    """
    low, high = x.amin(-2), x.amax(-2)
    center = ((low + high) / 2).half()
    if not bool(center.isfinite().all()):
        raise ValueError(f"numbers up to {float(x.abs().max()):g} do not fit into float16 scales")
    exact = torch.maximum(high - center, center - low)
    mean = exact.double().square().mean(-1, keepdim=True).sqrt()
    level = center.double().square().mean(-1, keepdim=True).sqrt()  # where the frame is one token
    mean = torch.where(mean > 0, mean, level)
    least = mean * (0.25 if x.shape[-2] >= large else 2.0)
    spread = torch.bucketize(torch.maximum(exact.double(), least).float(), _SPREADS)
    spread = spread.clamp_(max=255).to(torch.uint8)
    return torch.cat([center.view(torch.uint8), spread], dim=-1)


def _by_base(x: Tensor, scale: Tensor, base: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The parts of x [..., M, n] that have a base in common, with its center and spread
    [..., 1, n] float32. base: [M], the base of each token; rising."""
    n = scale.shape[-1] // 3
    center = scale[..., : 2 * n].contiguous().view(torch.float16).float()
    spread = _SPREADS[scale[..., 2 * n :].long()]
    numbers, counts = base.unique_consecutive(return_counts=True)
    at = 0
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        one = slice(number, number + 1)
        yield x[..., at : at + count, :], center[..., one, :], spread[..., one, :]
        at += count


def _refuse_unfit(step: Tensor, scaled: Tensor) -> None:
    if bool((step > 255).any()) or not bool(scaled.isfinite().all()):
        raise ValueError("numbers do not fit into the steps of their base frame")


def width_for(channels: int, most: int = CHANNELS_IN_GROUP) -> int:
    """Channels in a group: the largest divisor of `channels` up to `most`; even if `channels` is
    even, as 4-bit codes are packed two per byte."""
    return max(
        width
        for width in range(1, min(channels, most) + 1)
        if channels % width == 0 and not (width % 2 and channels % 2 == 0)
    )


def token_groups(edges: Sequence[int], least: int = TOKENS_IN_GROUP) -> list[int]:
    """Edges of groups of whole frames with at least `least` tokens each; a remainder joins the last
    group. edges: of the frames, [T + 1], ascending from 0."""
    groups = [edges[0]]
    for edge in edges[1:]:
        if edge - groups[-1] >= least:
            groups.append(edge)
    if len(groups) == 1:
        return [edges[0], edges[-1]]
    return [*groups[:-1], edges[-1]]


def group_of(groups: Sequence[int]) -> Tensor:
    """[M] int64: the group of each token."""
    return torch.arange(len(groups) - 1).repeat_interleave(torch.tensor(groups).diff())


def _scale(least: Tensor, most: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """float16 low and step whose 2^bits codes reach from at most `least` to at least `most`."""
    if bits not in BITS:
        raise ValueError(f"{bits} bits; use one of {BITS}")
    low = _rounded(least, -np.inf)
    step = _rounded((most - low.float()) / (2**bits - 1), np.inf)
    if not (bool(low.isfinite().all()) and bool(step.isfinite().all())):
        raise ValueError(
            f"numbers from {float(least.min()):g} to {float(most.max()):g} do not fit into float16 "
            "scales"
        )
    return low, step


def _rounded(x: Tensor, towards: float) -> Tensor:
    """float32 -> float16, rounded towards an infinity."""
    exact = x.numpy(force=True)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    wrong = half > exact if towards < 0 else half < exact
    return torch.from_numpy(np.where(wrong, np.nextafter(half, np.float16(towards)), half))


def _codes(x: Tensor, low: Tensor, step: Tensor, bits: int) -> Tensor:
    """uint8 codes of float32 numbers. Where step is 0, all numbers of the group are `low`."""
    steps = step.float()
    return (
        ((x - low.float()) / steps.where(steps > 0, 1.0))
        .round_()
        .clamp_(0, 2**bits - 1)
        .to(torch.uint8)
    )


def _to_bytes(codes: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        raise ValueError(f"{codes.shape[-1]} channels cannot lie two in a byte")
    first, second = codes.chunk(2, dim=-1)
    return first | (second << 4)


def _from_bytes(codes: Tensor, bits: int) -> Tensor:
    """float32 codes, one per number."""
    if bits == 4:
        codes = torch.cat([codes & 15, codes >> 4], dim=-1)
    return codes.float()
