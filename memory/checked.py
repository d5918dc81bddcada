"""A safetensors file whose tensors are checked as they are read: whatever is handed out is what was written.

Knows neither segments nor what the tensors are for. The file's metadata holds one JSON record, `told`, and in it under
"sums" the checksums of all tensors (memory/sums.py). Of a tensor that is read by frame range only those frames are checked.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from memory import sums
from memory.sums import Sums

_KEY = "reelbank"  # one metadata key only: safetensors writes several in a random order, and equal records must be equal bytes


class DamagedError(Exception):
    """The bytes of a file are not those that were written; says which."""


def packed(tensors: dict[str, Tensor], told: dict[str, Any]) -> bytes:
    """The file's bytes, with the sums added to `told`; the same input always gives the same bytes."""
    alone = _alone(tensors)
    return save(alone, {_KEY: json.dumps(told | {"sums": sums.of(alone)}, sort_keys=True)})


def seal(data: bytes) -> str:
    """The checksum of a packed file's header, which holds those of the data behind it."""
    return sums.of_bytes(data[: 8 + int.from_bytes(data[:8], "little")])


def read_seal(path: Path) -> str:
    """The same of a file: a few kB are read."""
    with path.open("rb") as file:
        length = file.read(8)
        more = int.from_bytes(length, "little")
        if more > path.stat().st_size:  # as damaged: reading would ask for so much memory
            raise DamagedError("its header is longer than the file")
        return sums.of_bytes(length + file.read(more))


@dataclass(frozen=True, slots=True)
class Checked:
    """An open file."""

    file: Any
    told: dict[str, Any]

    @property
    def sums(self) -> Sums:
        found: Sums = self.told["sums"]
        return found

    @property
    def names(self) -> set[str]:
        """Of the tensors that are really there; `sums` says which should be."""
        return set(self.file.keys())

    def load(self, name: str) -> Tensor:
        # safetensors hands out a view of the mapped file: copy, so that a tensor outlives whatever happens to the file
        tensor: Tensor = self.file.get_tensor(name).clone()
        if not sums.whole(name, tensor, self.sums):
            raise DamagedError(f"its {name} are not those that were written")
        return tensor

    def maybe(self, name: str) -> Tensor | None:
        """A tensor that not every file has; the small ones are read whole."""
        return self.load(name) if name in self.sums else None

    def offsets(self, name: str) -> Tensor:
        """[T + 1] int64, whatever integers the file keeps."""
        return self.load(name).long()

    def frames(self, name: str, offsets: Tensor, first: int = 0) -> Tensor:
        """The frames from number `first` on of a tensor that offsets (of these frames, and the end) cut."""
        a, b = int(offsets[0]), int(offsets[-1])
        cut = (*[slice(None)] * sums.BY_FRAME[name][1], slice(a, b))
        tensor: Tensor = self.file.get_slice(name)[cut].clone(memory_format=torch.contiguous_format)
        wrong = sums.frames(name, tensor, offsets, first, self.sums)
        if wrong is not None:
            raise DamagedError(f"its {name} of frame {wrong} are not those that were written")
        return tensor

    def maybe_frames(self, name: str, offsets: Tensor, first: int = 0) -> Tensor | None:
        """The same of a tensor that not every file has."""
        return self.frames(name, offsets, first) if name in self.sums else None

    def all(self) -> None:
        """Read everything."""
        for name in sorted(self.sums):
            if name in sums.BY_FRAME:
                self.frames(name, self.offsets(sums.BY_FRAME[name][0]))
            else:
                self.load(name)


@contextmanager
def opened(path: Path, sealed: str | None = None) -> Iterator[Checked]:
    """The file and what it says of itself. sealed: the seal that it must carry. The libraries have an error of their own for
    each way in which bytes can be wrong; all of them become one."""
    try:
        if sealed is not None and read_seal(path) != sealed:
            raise DamagedError("its header is not the one that was written")
        with safe_open(path, "pt") as file:
            yield Checked(file, json.loads((file.metadata() or {}).get(_KEY, "{}")))
    except (SafetensorError, ValueError, TypeError, LookupError, RuntimeError, OverflowError) as error:
        raise DamagedError(f"it cannot be read: {str(error).splitlines()[0]}") from error


def _alone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor contiguous, on the CPU and with memory of its own: safetensors refuses shared memory, and two of
    ours may share it (a segment without time tags has the same offsets twice)."""
    seen: set[int] = set()
    alone = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        alone[name] = tensor
    return alone
