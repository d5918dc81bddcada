"""A segment as the bytes of one safetensors file, and back; whole, a range of frames, or its index rows alone.

Knows nothing of durability, of the catalog or of what the tensors are for. The file describes itself: the header holds
format version, video id, number, start and end, so a catalog could be rebuilt from the files.
Tensors: tokens [N, D], pos [N, 3], offsets [T + 1], times [T], clip [T, E]; with a KV cache also keys and values
[L, H, M, Dh], kv_offsets [T + 1]; key_means [T, L, H * Dh] where it exists. firsts [T] for models with temporal patches,
kv_pos [M, 3] for models with positions on three axes. Any dtype that torch has.
"""

import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from encoders.schema import KVBlock, Segment, VisualTokens
from memory.schema import SegmentIndex

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Head:
    """What a segment file says about itself."""

    video_id: str
    number: int
    start: float
    end: float


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
    head = {
        "format": FORMAT,
        "video_id": segment.video_id,
        "number": segment.number,
        "start": segment.start,
        "end": segment.end,
    }
    # one metadata key only: safetensors writes several keys in a random order, and equal segments must be equal bytes
    return save(_alone(tensors), {"reelbank": json.dumps(head, sort_keys=True)})


def read_head(path: Path) -> Head:
    with safe_open(path, "pt") as file:
        return _head(file, path)


def read(path: Path) -> Segment:
    """The whole segment, bit-exact."""
    with safe_open(path, "pt") as file:
        head = _head(file, path)
        tokens, pos, offsets, times = (_load(file, name) for name in ("tokens", "pos", "offsets", "times"))
        kv = None
        if "keys" in set(file.keys()):
            keys, values, kv_offsets = (_load(file, name) for name in ("keys", "values", "kv_offsets"))
            kv = KVBlock(keys, values, kv_offsets, _maybe(file, "kv_pos"))
        return Segment(
            video_id=head.video_id,
            number=head.number,
            start=head.start,
            end=head.end,
            tokens=VisualTokens(tokens, pos, offsets, times, _maybe(file, "firsts")),
            clip=_load(file, "clip"),
            kv=kv,
            key_means=_maybe(file, "key_means"),
        )


def read_frames(path: Path, first: int, stop: int, *, kv: bool = True) -> tuple[VisualTokens, KVBlock | None]:
    """Frames first..stop-1 of the segment alone, their frame numbers and offsets starting at 0 again; only these bytes
    are read. kv=False leaves keys and values on the disk."""
    with safe_open(path, "pt") as file:
        _head(file, path)
        offsets = _load(file, "offsets")
        a, b = int(offsets[first]), int(offsets[stop])
        pos = file.get_slice("pos")[a:b].clone()
        pos[:, 0] -= first
        tokens = VisualTokens(
            file.get_slice("tokens")[a:b].clone(),
            pos,
            offsets[first : stop + 1] - a,
            file.get_slice("times")[first:stop].clone(),
            _maybe(file, "firsts", first, stop),
        )
        if not kv or "keys" not in file.keys():  # noqa: SIM118  (safe_open is no dict)
            return tokens, None
        offsets = _load(file, "kv_offsets")
        a, b = int(offsets[first]), int(offsets[stop])
        keys, values = (_compact(file.get_slice(name)[:, :, a:b]) for name in ("keys", "values"))
        return tokens, KVBlock(keys, values, offsets[first : stop + 1] - a, _maybe(file, "kv_pos", a, b))


def read_index(path: Path, first: int, want: Set[str] = frozenset({"clip", "key_means"})) -> SegmentIndex:
    """The rows that a retriever takes in. `first`: ordinal of the first frame, which the file does not know."""
    with safe_open(path, "pt") as file:
        head = _head(file, path)
        there = want & set(file.keys())
        return SegmentIndex(
            head.video_id,
            head.number,
            first,
            times=_load(file, "times"),
            clip=_load(file, "clip") if "clip" in there else None,
            key_means=_load(file, "key_means") if "key_means" in there else None,
        )


def _head(file: Any, path: Path) -> Head:
    head = json.loads((file.metadata() or {}).get("reelbank", "{}"))
    if head.get("format") != FORMAT:
        raise ValueError(f"{path} has segment format {head.get('format')}, not {FORMAT}")
    return Head(head["video_id"], head["number"], head["start"], head["end"])


def _load(file: Any, name: str) -> Tensor:
    # safetensors hands out a view of the mapped file: copy, so that a tensor outlives whatever happens to the file
    tensor: Tensor = file.get_tensor(name)
    return tensor.clone()


def _maybe(file: Any, name: str, first: int = 0, stop: int | None = None) -> Tensor | None:
    """Rows first..stop-1 of a tensor that not every segment has."""
    if name not in file.keys():  # noqa: SIM118  (safe_open is no dict)
        return None
    rows: Tensor = file.get_slice(name)[first:stop]
    return rows.clone()


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
