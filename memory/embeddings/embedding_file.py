"""The rows of one segment's frames by one further frame embedder, as a safetensors file.

Knows tensors and bytes; no catalog. The file describes itself: its header holds the format, video,
number, embedder, and the seal of the segment whose frames the rows are of. Rows are float16: half
the bytes of float32, and cosines that differ in the fourth digit. Checksums are those of segment
files (memory/storage/segments/tensor_file.py): the seal, which the catalog holds, covers the
header, and the header covers the rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from memory.storage.segments import tensor_file
from memory.storage.segments.tensor_file import DamagedError, TensorFile, seal

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of its rows."""

    video_id: str
    number: int  # of the segment
    embedder: str  # key
    segment: str  # seal of the segment's file


def pack(head: Head, rows: Tensor) -> bytes:
    """The file's bytes; equal rows give equal bytes. rows: [T, E] float16."""
    if rows.dtype != torch.float16:
        raise ValueError(f"rows of a further embedder are float16, not {rows.dtype}")
    metadata = {
        "format": FORMAT,
        "video_id": head.video_id,
        "number": head.number,
        "embedder": head.embedder,
        "segment": head.segment,
    }
    return tensor_file.pack({"rows": rows}, metadata)


def read(path: Path, expected_seal: str) -> Tensor:
    """[T, E] float16, bit-exact. DamagedError if the bytes differ from those that were written;
    OSError."""
    with _open(path, expected_seal) as (file, _):
        return file.load("rows")


def read_head(path: Path) -> tuple[Head, str]:
    """The head of a file, and its seal. DamagedError, OSError."""
    with _open(path, None) as (_, head):
        return head, tensor_file.read_seal(path)


@contextmanager
def _open(path: Path, expected_seal: str | None) -> Iterator[tuple[TensorFile, Head]]:
    with tensor_file.open_file(path, expected_seal) as file:
        known = file.metadata
        if known.get("format") != FORMAT:
            raise DamagedError(f"it has format {known.get('format')}, not {FORMAT}")
        yield file, Head(known["video_id"], known["number"], known["embedder"], known["segment"])


__all__ = ["DamagedError", "Head", "pack", "read", "read_head", "seal"]
