"""Checksums of a segment's tensors, fine enough that reading some frames checks those frames and reads nothing more.

Knows tensors by name; no files, no catalog. A tensor that is read by frame range has one sum a frame, every other one sum
in all. A sum covers name, dtype, shape and bytes (xxh3, 64 bits: for accidents, not for attackers).
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
import xxhash
from torch import Tensor

Sums = dict[str, str | list[str]]

# name -> offsets tensor that cuts it into frames, and the axis that is cut
BY_FRAME = {
    "tokens": ("offsets", 0),
    "tokens_scale": ("offsets", 0),  # the scales of keys are not cut: a group may reach over many frames (memory/quantise.py)
    "pos": ("offsets", 0),
    "keys": ("kv_offsets", 2),
    "values": ("kv_offsets", 2),
    "values_scale": ("kv_offsets", 2),
}


def of_bytes(data: bytes) -> str:
    """128 bits, as hex digits."""
    return xxhash.xxh3_128_hexdigest(data)


def of(tensors: Mapping[str, Tensor]) -> Sums:
    """Sums of all tensors of a segment; the same bytes always give the same sums."""
    return {name: _sums(name, tensor, tensors) for name, tensor in sorted(tensors.items())}


def whole(name: str, tensor: Tensor, sums: Sums) -> bool:
    """Whether a tensor is, as a whole, what was written."""
    return sums.get(name) == _sum(name, tensor)


def frames(name: str, tensor: Tensor, offsets: Tensor, first: int, sums: Sums) -> int | None:
    """The first frame whose bytes are not what was written, None if all are. tensor: the frames from number `first` on
    of a tensor in `BY_FRAME`; offsets: where each of them begins in the tensor of all frames, and the end."""
    written = sums.get(name, [])
    there = _by_frame(name, tensor, (offsets - offsets[0]).tolist())
    for number, found in enumerate(there, start=first):
        if number >= len(written) or written[number] != found:
            return number
    return None


def _sums(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> str | list[str]:
    if name not in BY_FRAME:
        return _sum(name, tensor)
    return _by_frame(name, tensor, tensors[BY_FRAME[name][0]].tolist())


def _by_frame(name: str, tensor: Tensor, edges: list[int]) -> list[str]:
    axis = BY_FRAME[name][1]
    return [_sum(name, tensor.narrow(axis, a, b - a)) for a, b in pairwise(edges)]


def _sum(name: str, tensor: Tensor) -> str:
    digest = xxhash.xxh3_64(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    if tensor.numel():
        flat = tensor.contiguous().reshape(-1)
        if flat.stride(0) != 1:  # a single element cut out of a longer row counts as contiguous
            flat = flat.clone(memory_format=torch.contiguous_format)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
