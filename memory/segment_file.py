"""A segment as the bytes of one safetensors file, and back; whole, a range of frames, or its index rows alone.

Knows nothing of durability, of the catalog or of what the tensors are for. The file describes itself: the header holds
format version, video id, number, start, end and the checksums of all tensors (memory/sums.py), so a catalog can be rebuilt
from the files. A chain of sums reaches every byte: the seal (kept in the catalog) covers the header, the header the data.
Whatever is read is checked before it is handed out, and only that: a range of frames costs the sums of these frames.
Tensors: tokens [N, D], pos [N, 3], offsets [T + 1], times [T], clip [T, E]; with a KV cache also keys and values
[L, H, M, Dh], kv_offsets [T + 1]; key_means [T, L, H * Dh] where it exists. firsts [T] for models with temporal patches,
kv_pos [M, 3] for models with positions on three axes. Any dtype that torch has.
"""

import json
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from encoders.schema import KVBlock, Segment, VisualTokens
from memory import sums
from memory.schema import SegmentIndex
from memory.sums import Sums

FORMAT = 2  # 1 had no sums


class DamagedError(Exception):
    """The bytes of a segment file are not those that were written; says which."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a segment file says about itself."""

    video_id: str
    number: int
    start: float
    end: float
    sums: Sums = field(compare=False, repr=False, default_factory=dict)


def pack(segment: Segment) -> bytes:
    """The file's bytes; the same segment always gives the same bytes."""
    tensors = {
        "tokens": segment.tokens.tokens,
        "pos": segment.tokens.pos,
        "offsets": segment.tokens.offsets,
        "times": segment.tokens.times,
        "clip": segment.clip,
    }
    if segment.tokens.firsts is not None:
        tensors["firsts"] = segment.tokens.firsts
    if segment.kv is not None:
        tensors |= {"keys": segment.kv.keys, "values": segment.kv.values, "kv_offsets": segment.kv.offsets}
        if segment.kv.pos is not None:
            tensors["kv_pos"] = segment.kv.pos
    if segment.key_means is not None:
        tensors["key_means"] = segment.key_means
    tensors = _alone(tensors)
    head = {
        "format": FORMAT,
        "video_id": segment.video_id,
        "number": segment.number,
        "start": segment.start,
        "end": segment.end,
        "sums": sums.of(tensors),
    }
    # one metadata key only: safetensors writes several keys in a random order, and equal segments must be equal bytes
    return save(tensors, {"reelbank": json.dumps(head, sort_keys=True)})


def seal(data: bytes) -> str:
    """The checksum of a packed segment's header, which holds those of the data behind it."""
    return sums.of_bytes(data[: 8 + int.from_bytes(data[:8], "little")])


def read_seal(path: Path) -> str:
    """The same of a file: a few kB are read."""
    with path.open("rb") as file:
        length = file.read(8)
        rest = int.from_bytes(length, "little")
        if rest > path.stat().st_size:  # as damaged: reading would ask for so much memory
            raise DamagedError("its header is longer than the file")
        return sums.of_bytes(length + file.read(rest))


def read_head(path: Path) -> Head:
    with _opened(path, None) as (_, head):
        return head


def read(path: Path, sealed: str | None = None) -> Segment:
    """The whole segment, bit-exact. sealed: the seal that the file must carry. DamagedError, here and below."""
    with _opened(path, sealed) as (file, head):
        offsets = _load(file, head, "offsets")
        kv = None
        if "keys" in head.sums:
            kv_offsets = _load(file, head, "kv_offsets")
            keys, values = (_frames(file, head, name, kv_offsets) for name in ("keys", "values"))
            kv = KVBlock(keys, values, kv_offsets, _maybe(file, head, "kv_pos"))
        tokens, pos = (_frames(file, head, name, offsets) for name in ("tokens", "pos"))
        return Segment(
            video_id=head.video_id,
            number=head.number,
            start=head.start,
            end=head.end,
            tokens=VisualTokens(tokens, pos, offsets, _load(file, head, "times"), _maybe(file, head, "firsts")),
            clip=_load(file, head, "clip"),
            kv=kv,
            key_means=_maybe(file, head, "key_means"),
        )


def read_frames(
    path: Path, first: int, stop: int, *, kv: bool = True, sealed: str | None = None
) -> tuple[VisualTokens, KVBlock | None]:
    """Frames first..stop-1 of the segment alone, their frame numbers and offsets starting at 0 again; only these bytes
    are read. kv=False leaves keys and values on the disk."""
    with _opened(path, sealed) as (file, head):
        offsets = _load(file, head, "offsets")[first : stop + 1]
        tokens, pos = (_frames(file, head, name, offsets, first) for name in ("tokens", "pos"))
        pos[:, 0] -= first
        times = _load(file, head, "times")[first:stop]
        firsts = _maybe(file, head, "firsts")
        firsts = None if firsts is None else firsts[first:stop]
        seen = VisualTokens(tokens, pos, offsets - offsets[0], times, firsts)
        if not kv or "keys" not in head.sums:
            return seen, None
        offsets = _load(file, head, "kv_offsets")[first : stop + 1]
        keys, values = (_frames(file, head, name, offsets, first) for name in ("keys", "values"))
        kv_pos = _maybe(file, head, "kv_pos")
        kv_pos = None if kv_pos is None else kv_pos[int(offsets[0]) : int(offsets[-1])]
        return seen, KVBlock(keys, values, offsets - offsets[0], kv_pos)


def read_index(
    path: Path, first: int, want: Set[str] = frozenset({"clip", "key_means"}), sealed: str | None = None
) -> SegmentIndex:
    """The rows that a retriever takes in. `first`: ordinal of the first frame, which the file does not know."""
    with _opened(path, sealed) as (file, head):
        there = want & head.sums.keys()
        return SegmentIndex(
            head.video_id,
            head.number,
            first,
            times=_load(file, head, "times"),
            clip=_load(file, head, "clip") if "clip" in there else None,
            key_means=_load(file, head, "key_means") if "key_means" in there else None,
        )


def read_times(path: Path) -> tuple[Tensor, Tensor]:
    """Seconds [T] and offsets [T + 1] of the frames: what a catalog keeps."""
    with _opened(path, None) as (file, head):
        return _load(file, head, "times"), _load(file, head, "offsets")


def check(path: Path, sealed: str) -> None:
    """Read everything. DamagedError names the first tensor, and the frame where it can, that is not as written."""
    with _opened(path, sealed) as (file, head):
        for name in sorted(head.sums):
            if name in sums.BY_FRAME:
                _frames(file, head, name, _load(file, head, sums.BY_FRAME[name][0]))
            else:
                _load(file, head, name)


@contextmanager
def _opened(path: Path, sealed: str | None) -> Iterator[tuple[Any, Head]]:
    """The file and what it says of itself. The libraries have an error of their own for each way in which bytes can be
    wrong; all of them become one."""
    try:
        if sealed is not None and read_seal(path) != sealed:
            raise DamagedError("its header is not the one that was written")
        with safe_open(path, "pt") as file:
            yield file, _head(file)
    except (SafetensorError, ValueError, TypeError, LookupError, RuntimeError, OverflowError) as error:
        raise DamagedError(f"it cannot be read as a segment: {str(error).splitlines()[0]}") from error


def _head(file: Any) -> Head:
    head = json.loads((file.metadata() or {}).get("reelbank", "{}"))
    if head.get("format") != FORMAT:
        raise DamagedError(f"it has segment format {head.get('format')}, not {FORMAT}")
    return Head(head["video_id"], head["number"], head["start"], head["end"], head["sums"])


def _load(file: Any, head: Head, name: str) -> Tensor:
    # safetensors hands out a view of the mapped file: copy, so that a tensor outlives whatever happens to the file
    tensor: Tensor = file.get_tensor(name).clone()
    if not sums.whole(name, tensor, head.sums):
        raise DamagedError(f"its {name} are not those that were written")
    return tensor


def _frames(file: Any, head: Head, name: str, offsets: Tensor, first: int = 0) -> Tensor:
    """The frames from number `first` on of a tensor that offsets (of these frames, and the end) cut."""
    a, b = int(offsets[0]), int(offsets[-1])
    cut = (*[slice(None)] * sums.BY_FRAME[name][1], slice(a, b))
    tensor = _compact(file.get_slice(name)[cut])
    wrong = sums.frames(name, tensor, offsets, first, head.sums)
    if wrong is not None:
        raise DamagedError(f"its {name} of frame {wrong} are not those that were written")
    return tensor


def _maybe(file: Any, head: Head, name: str) -> Tensor | None:
    """A tensor that not every segment has; the small ones are read whole."""
    return _load(file, head, name) if name in head.sums else None


def _compact(view: Tensor) -> Tensor:
    return view.clone(memory_format=torch.contiguous_format)


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
