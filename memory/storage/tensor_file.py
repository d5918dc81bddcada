"""A safetensors file whose tensors are checked as they are read: whatever is handed out is what was written.

Knows neither segments nor what the tensors are for. The file's metadata holds one JSON record, `metadata`, and in it under
"sums" the checksums of all tensors (memory/storage/checksums.py). Of a tensor that is read by frame range only those frames are checked.

Read by plain `pread`, not through safetensors: a file that is cut short while it is read is an error, where a mapped one
kills the process; and a scattered read costs a few calls. What a header says is parsed once for equal bytes and kept;
the bytes of the header are read and checked at every opening.
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

# one metadata key only: safetensors writes several in a random order, and equal records must be equal bytes
_KEY = "reelbank"
_AT_ONCE = 1 << 14  # bytes that are read first; most headers are shorter
_HEADERS = 512  # parsed ones that are kept, about 10 kB each: an hour of segments of 8 s
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
    """The bytes of a file are not those that were written; says which."""


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """Where a tensor lies in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    metadata: dict[str, Any]
    sums: Sums
    slots: dict[str, TensorSlot]
    size: int  # of the whole file, in bytes


def pack(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> bytes:
    """The file's bytes, with the sums added to `metadata`; the same input always gives the same bytes."""
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
    """The checksum of a packed file's header, which holds those of the data behind it."""
    return checksums.of_bytes(data[: 8 + int.from_bytes(data[:8], "little")])


def read_seal(path: Path) -> str:
    """The same of a file: a few kB are read."""
    with _handle(path) as handle:
        return checksums.of_bytes(_header_bytes(handle))


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open file."""

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
        """Of the tensors that are really there; `sums` says which should be."""
        return set(self.header.slots)

    def load(self, name: str) -> Tensor:
        """A whole tensor."""
        slot = self.header.slots[name]
        data = self._read(prod(slot.shape) * slot.dtype.itemsize, [slot.begin])
        if not checksums.is_intact(name, slot.dtype, slot.shape, data, self.sums):
            raise DamagedError(f"its {name} are not those that were written")
        return torch.from_numpy(data).view(slot.dtype).reshape(slot.shape)

    def load_optional(self, name: str) -> Tensor | None:
        """A tensor that not every file has; the small ones are read whole."""
        return self.load(name) if name in self.sums else None

    def offsets(self, name: str) -> Tensor:
        """[T + 1] int64, whatever integers the file keeps."""
        return self.load(name).long()

    def frames(self, name: str, offsets: Tensor, first: int = 0) -> Tensor:
        """The frames from number `first` on of a tensor that offsets (of these frames, and the end) cut."""
        slot, axis, edges = self.header.slots[name], checksums.BY_FRAME[name][1], offsets.tolist()
        before, length, behind = slot.shape[:axis], slot.shape[axis], slot.shape[axis + 1 :]
        a, b = edges[0], edges[-1]
        if not 0 <= a <= b <= length:
            raise DamagedError(f"its {name} are not as long as its frames")
        row, shape = prod(behind) * slot.dtype.itemsize, (*before, b - a, *behind)
        begins = [slot.begin + (each * length + a) * row for each in range(prod(before))]
        data = self._read(len(begins) * (b - a) * row, begins if b - a < length else begins[:1])
        wrong = checksums.first_damaged_frame(
            name, slot.dtype, shape, data, edges, first, self.sums
        )
        if wrong is not None:
            raise DamagedError(f"its {name} of frame {wrong} are not those that were written")
        return torch.from_numpy(data).view(slot.dtype).reshape(shape)

    def verify(self) -> None:
        """Read everything."""
        for name in sorted(self.sums):
            if name in checksums.BY_FRAME:
                self.frames(name, self.offsets(checksums.BY_FRAME[name][0]))
            else:
                self.load(name)

    def _read(self, size: int, begins: Sequence[int]) -> np.ndarray:
        """[size] uint8 in equal pieces that begin at these bytes of the file."""
        data = np.empty(size, np.uint8)
        if size:
            into, each = data.data, size // len(begins)
            for number, begin in enumerate(begins):
                _fill(self.handle, into[number * each : (number + 1) * each], begin)
        return data


@contextmanager
def open_file(path: Path, expected_seal: str | None = None) -> Iterator[TensorFile]:
    """The file and what it says of itself. expected_seal: the seal that it must carry. Bytes can be wrong in many ways, and each
    has an error of its own; all of them become one."""
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


@contextmanager
def _handle(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _header_bytes(handle: int) -> bytes:
    """The length of the header and the header."""
    data = os.pread(handle, _AT_ONCE, 0)
    length = 8 + int.from_bytes(data[:8], "little")
    if length <= len(data):
        return data[:length]
    if length > os.fstat(handle).st_size:  # as damaged: reading would ask for so much memory
        raise DamagedError("its header is longer than the file")
    more = np.empty(length, np.uint8)
    _fill(handle, more.data, 0)
    return more.tobytes()


@lru_cache(maxsize=_HEADERS)
def _parse_header(data: bytes) -> Header:
    """What the bytes of a header say. Any error of a dict or a number when they say nothing."""
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
    """Bytes of the file from `at` on."""
    while len(into):
        count = os.preadv(handle, [into], at)
        if not count:
            raise DamagedError("it ends too early")
        into, at = into[count:], at + count


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor contiguous, on the CPU and with memory of its own: safetensors refuses shared memory, and two of
    ours may share it (a segment without time tags has the same offsets twice)."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        unshared[name] = tensor
    return unshared
