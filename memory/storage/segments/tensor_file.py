"""A safetensors file whose tensors are checked as they are read.

Knows neither segments nor what the tensors are for. The safetensors metadata holds one JSON record,
`metadata`. Its key "sums" has the checksums of all tensors (memory/storage/checksums.py). A read by
frame range checks only those frames.

Read by `pread`, not through safetensors: a file that is truncated during a read raises an error,
where a mapped one kills the process, and a scattered read costs only a few calls. Parsed headers
are cached by their bytes; the bytes of the header are read and checked at every opening.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from memory.storage import checksums
from memory.storage.checksums import Sums
from memory.storage.file_access import open_regular

# a single metadata key: safetensors writes several in random order, and equal records must give
# equal bytes
_KEY = "reelbank"
_FIRST_READ = 1 << 14  # bytes; most headers are shorter
_CACHED_HEADERS = 512  # about 10 kB each: an hour of segments of 8 s
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}


class DamagedError(Exception):
    """The bytes of a file differ from those that were written; the message says which."""


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """The place of a tensor in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file


@dataclass(frozen=True, slots=True)
class Header:
    """The parsed header of a file."""

    metadata: dict[str, Any]
    sums: Sums
    slots: dict[str, TensorSlot]
    size: int  # of the whole file, in bytes


def pack(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> bytes:
    """The file's bytes, with the checksums added to `metadata`; equal input gives equal bytes."""
    unshared = _unshared(tensors)
    return save(
        unshared,
        {
            _KEY: json.dumps(
                metadata | {"sums": checksums.to_text(checksums.of(unshared))}, sort_keys=True
            )
        },
    )


def seal(data: bytes) -> str:
    """The checksum of a packed file's header, which itself holds the checksums of the data."""
    return checksums.of_bytes(data[: 8 + int.from_bytes(data[:8], "little")])


def read_seal(path: Path) -> str:
    """The seal of a file on disk; reads a few kB."""
    with _handle(path) as handle:
        return checksums.of_bytes(_header_bytes(handle))


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open file. Every read raises DamagedError if the bytes differ from those written."""

    handle: int
    header: Header

    @property
    def metadata(self) -> dict[str, Any]:
        return self.header.metadata

    @property
    def sums(self) -> Sums:
        return self.header.sums

    @property
    def names(self) -> set[str]:
        """Names of the tensors in the file; `sums` has those that should be there."""
        return set(self.header.slots)

    def load(self, name: str) -> Tensor:
        """A whole tensor."""
        slot = self.header.slots[name]
        data = self._read(prod(slot.shape) * slot.dtype.itemsize, [slot.begin])
        if not checksums.is_intact(name, slot.dtype, slot.shape, data, self.sums):
            raise DamagedError(f"its {name} are not those that were written")
        return _tensor(data, slot.dtype, slot.shape)

    def load_optional(self, name: str) -> Tensor | None:
        """A whole tensor; None if the file has none of this name."""
        return self.load(name) if name in self.sums else None

    def offsets(self, name: str) -> Tensor:
        """[T + 1] int64, from any integer dtype."""
        return self.load(name).long()

    def frames(self, name: str, offsets: Tensor, first: int = 0) -> Tensor:
        """Some frames of a tensor.

        offsets: of these frames, and the end, within the tensor. first: number of the first one.
        """
        slot, axis, edges = self.header.slots[name], checksums.BY_FRAME[name][1], offsets.tolist()
        before, length, after = slot.shape[:axis], slot.shape[axis], slot.shape[axis + 1 :]
        a, b = edges[0], edges[-1]
        if not 0 <= a <= b <= length:
            raise DamagedError(f"its {name} are not as long as its frames")
        row, shape = prod(after) * slot.dtype.itemsize, (*before, b - a, *after)
        begins = [slot.begin + (each * length + a) * row for each in range(prod(before))]
        data = self._read(len(begins) * (b - a) * row, begins if b - a < length else begins[:1])
        damaged = checksums.first_damaged_frame(
            name, slot.dtype, shape, data, edges, first, self.sums
        )
        if damaged is not None:
            raise DamagedError(f"its {name} of frame {damaged} are not those that were written")
        return _tensor(data, slot.dtype, shape)

    def verify(self) -> None:
        """Read and check all tensors."""
        for name in sorted(self.sums):
            if name in checksums.BY_FRAME:
                self.frames(name, self.offsets(checksums.BY_FRAME[name][0]))
            else:
                self.load(name)

    def _read(self, size: int, begins: Sequence[int]) -> np.ndarray:
        """[size] uint8, from equal pieces that begin at these bytes of the file."""
        data = np.empty(size, np.uint8)
        if size:
            into, each = data.data, size // len(begins)
            for number, begin in enumerate(begins):
                _fill(self.handle, into[number * each : (number + 1) * each], begin)
        return data


@contextmanager
def open_file(path: Path, expected_seal: str | None = None) -> Iterator[TensorFile]:
    """Open a file and parse its header. expected_seal: the seal that the header must have.

    Damaged bytes can raise many kinds of errors; all of them become DamagedError.
    """
    try:
        with _handle(path) as handle:
            data = _header_bytes(handle)
            if expected_seal is not None and checksums.of_bytes(data) != expected_seal:
                raise DamagedError("its header is not the one that was written")
            header = _parse_header(data)
            size = os.fstat(handle).st_size
            if size != header.size:
                raise DamagedError(f"it has {size} bytes, and its header speaks of {header.size}")
            yield TensorFile(handle, header)
    except (
        ValueError,
        TypeError,
        LookupError,
        RuntimeError,
        OverflowError,
        AttributeError,
    ) as error:
        raise DamagedError(
            f"it cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error


def _tensor(data: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The tensor of these bytes. No bytes have no view of another dtype."""
    if not len(data):
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(data).view(dtype).reshape(shape)


@contextmanager
def _handle(path: Path) -> Iterator[int]:
    handle = open_regular(path)
    try:
        yield handle
    finally:
        os.close(handle)


def _header_bytes(handle: int) -> bytes:
    """The length of the header, and the header."""
    data = os.pread(handle, _FIRST_READ, 0)
    length = 8 + int.from_bytes(data[:8], "little")
    if length <= len(data):
        return data[:length]
    if length > os.fstat(handle).st_size:  # damage: do not allocate this much memory
        raise DamagedError("its header is longer than the file")
    more = np.empty(length, np.uint8)
    _fill(handle, more.data, 0)
    return more.tobytes()


@lru_cache(maxsize=_CACHED_HEADERS)
def _parse_header(data: bytes) -> Header:
    """Parse a header. Damaged bytes raise one of the errors that `open_file` converts."""
    described = json.loads(data[8:])
    metadata = json.loads(described.pop("__metadata__")[_KEY])
    slots, end = {}, len(data)
    for name, entry in sorted(described.items(), key=lambda item: item[1]["data_offsets"]):
        slot = TensorSlot(
            _DTYPES[entry["dtype"]], tuple(entry["shape"]), len(data) + entry["data_offsets"][0]
        )
        if min(slot.shape, default=0) < 0 or slot.begin != end:
            raise ValueError(f"its {name} do not lie where the tensor before them ends")
        end += prod(slot.shape) * slot.dtype.itemsize
        if end != len(data) + entry["data_offsets"][1]:
            raise ValueError(f"its {name} are not as long as they should be")
        slots[name] = slot
    return Header(metadata, checksums.from_text(metadata["sums"]), slots, end)


def _fill(handle: int, into: memoryview, at: int) -> None:
    """Fill a buffer with the bytes of the file from `at` on."""
    while len(into):
        count = os.preadv(handle, [into], at)
        if not count:
            raise DamagedError("it ends too early")
        into, at = into[count:], at + count


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor contiguous, on the CPU and with its own memory: safetensors refuses shared
    memory, and a segment without time tags has the same offsets twice."""
    pointers: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in pointers:
            tensor = tensor.clone()
        pointers.add(tensor.untyped_storage().data_ptr())
        unshared[name] = tensor
    return unshared
