"""Checksums of a segment's tensors, per frame where frames are read alone.

Knows tensors by name; no files, no catalog. A tensor that is read by frame range has one checksum
per frame, every other tensor has one in all. So reading some frames checks these frames and reads
nothing more. A checksum covers name, dtype, shape and bytes (xxh3, 64 bits: against accidents, not
attackers). Those of a tensor are concatenated, 8 bytes each, and written as base64: half the length
of hex digits.
"""

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod

import numpy as np
import torch
import xxhash
from torch import Tensor

Sums = Mapping[str, bytes]
_BYTES = 8  # of one checksum

# name -> the offsets tensor that cuts it into frames, and the axis that is cut. Not cut: the scales
# of keys, whose groups span frames (memory/storage/segments/quantization.py), and small tensors
BY_FRAME = {
    "tokens": ("offsets", 0),
    "keys": ("kv_offsets", 2),
    "values": ("kv_offsets", 2),
    "thumbnails": ("thumbnail_offsets", 0),
}


def of_bytes(data: bytes) -> str:
    """128 bits of xxh3 as hex digits."""
    return xxhash.xxh3_128_hexdigest(data)


def of(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Checksums of all tensors of a segment; equal bytes give equal checksums."""
    return {name: _sums(name, tensor, tensors) for name, tensor in sorted(tensors.items())}


def to_text(sums: Sums) -> dict[str, str]:
    """Base64, for a JSON header."""
    return {name: base64.b64encode(each).decode() for name, each in sums.items()}


def from_text(texts: Mapping[str, str]) -> dict[str, bytes]:
    """ValueError if a text is not base64."""
    return {name: base64.b64decode(each, validate=True) for name, each in texts.items()}


def is_intact(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], data: np.ndarray, sums: Sums
) -> bool:
    """True if a whole tensor matches its checksum. data: [n] uint8, its bytes."""
    return sums.get(name) == _sum(name, dtype, shape, data)


def first_damaged_frame(
    name: str,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    data: np.ndarray,
    edges: Sequence[int],
    first: int,
    sums: Sums,
) -> int | None:
    """Number of the first frame that does not match its checksum; None if all match.

    dtype, shape, data: of the frames from number `first` on, of a tensor in `BY_FRAME`.
    edges: where each of these frames begins in the whole tensor, and the end.
    """
    expected = sums.get(name, b"")[_BYTES * first :]
    actual = _by_frame(name, dtype, shape, data, edges)
    if actual == expected[: len(actual)]:
        return None
    differ = (
        number for number in range(len(edges) - 1) if _one(actual, number) != _one(expected, number)
    )
    return first + next(differ)


def _one(sums: bytes, number: int) -> bytes:
    return sums[_BYTES * number : _BYTES * (number + 1)]


def _sums(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> bytes:
    shape, data = tuple(tensor.shape), _bytes(tensor)
    if name not in BY_FRAME:
        return _sum(name, tensor.dtype, shape, data)
    return _by_frame(name, tensor.dtype, shape, data, tensors[BY_FRAME[name][0]].tolist())


def _by_frame(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], data: np.ndarray, edges: Sequence[int]
) -> bytes:
    """The checksums of consecutive frames; the data begins at edges[0]."""
    axis = BY_FRAME[name][1]
    before, after = shape[:axis], shape[axis + 1 :]
    if len(edges) == 2:
        return _sum(name, dtype, shape, data)
    row = prod(after) * dtype.itemsize
    # [axes before the cut one, bytes of the cut one and those after]
    rows = data.reshape(prod(before), -1)
    sums = []
    for a, b in pairwise(edges):
        # one call per frame: a copy if its bytes are in pieces
        part = rows[:, (a - edges[0]) * row : (b - edges[0]) * row]
        sums.append(_sum(name, dtype, (*before, b - a, *after), np.ascontiguousarray(part)))
    return b"".join(sums)


def _sum(name: str, dtype: torch.dtype, shape: tuple[int, ...], data: np.ndarray) -> bytes:
    return xxhash.xxh3_64_digest(data.data if data.size else b"", seed=_seed(name, dtype, shape))


@lru_cache(maxsize=4096)
def _seed(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return xxhash.xxh3_64_intdigest(f"{name} {dtype} {shape}".encode())


def _bytes(tensor: Tensor) -> np.ndarray:
    """[n] uint8 in element order, for any memory layout."""
    if not tensor.numel():
        return np.zeros(0, np.uint8)
    flat = tensor.contiguous().reshape(-1)
    if flat.stride(0) != 1:  # a single element cut out of a longer row counts as contiguous
        flat = flat.clone(memory_format=torch.contiguous_format)
    data: np.ndarray = flat.view(torch.uint8).numpy()
    return data
