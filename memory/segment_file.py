"""A segment as the bytes of one safetensors file, and back; whole, a range of frames, or its index rows alone.

Knows nothing of durability, of the catalog or of what the tensors are for. The file describes itself: the header holds
format version, video id, number, start and end, so a catalog could be rebuilt from the files.
Tensors: tokens [N, D], pos [N, 3], offsets [T + 1], times [T], clip [T, E]; with a KV cache also keys and values
[L, H, M, Dh], kv_offsets [T + 1]; key_means [T, L, H * Dh] where it exists. firsts [T] for models with temporal patches,
kv_pos [M, 3] for models with positions on three axes; repeats [T] where a compressor merged frames. Any dtype that torch
has. In a quantised bank (memory/rest.py) tensors are codes, NAME_scale lies beside them, and the header says which form.
"""

import json
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from encoders.schema import KVBlock, Segment, VisualTokens
from memory import rest
from memory.rest import AtRest, Form
from memory.schema import SegmentIndex

FORMAT = 1
AS_MADE = AtRest()


@dataclass(frozen=True, slots=True)
class Head:
    """What a segment file says about itself."""

    video_id: str
    number: int
    start: float
    end: float
    form: Form = field(default_factory=dict, compare=False)  # how its tensors are stored; empty: as made


def pack(segment: Segment, at_rest: AtRest = AS_MADE) -> bytes:
    """The file's bytes; the same segment always gives the same bytes."""
    tensors, form = rest.freeze(segment, at_rest)
    head: dict[str, Any] = {
        "format": FORMAT,
        "video_id": segment.video_id,
        "number": segment.number,
        "start": segment.start,
        "end": segment.end,
    }
    if form:
        head["form"] = form
    # one metadata key only: safetensors writes several keys in a random order, and equal segments must be equal bytes
    return save(_alone(tensors), {"reelbank": json.dumps(head, sort_keys=True)})


def read_head(path: Path) -> Head:
    with safe_open(path, "pt") as file:
        return _head(file, path)


def read(path: Path) -> Segment:
    """The whole segment, bit-exact."""
    with safe_open(path, "pt") as file:
        head = _head(file, path)
        frames = len(_load(file, "times"))
        repeats = _maybe(file, "repeats")
        return Segment(
            video_id=head.video_id,
            number=head.number,
            start=head.start,
            end=head.end,
            tokens=_tokens(file, head.form, 0, frames),
            clip=rest.thaw_clip(_load(file, "clip"), _maybe(file, "clip_scale"), repeats),
            kv=_kv(file, head.form, 0, frames),
            key_means=_key_means(file, head.form, repeats),
        )


def read_frames(path: Path, first: int, stop: int, *, kv: bool = True) -> tuple[VisualTokens, KVBlock | None]:
    """Frames first..stop-1 of the segment alone, their frame numbers and offsets starting at 0 again; only these bytes
    are read. kv=False leaves keys and values on the disk."""
    with safe_open(path, "pt") as file:
        form = _head(file, path).form
        return _tokens(file, form, first, stop), _kv(file, form, first, stop) if kv else None


def read_index(path: Path, first: int, want: Set[str] = frozenset({"clip", "key_means"})) -> SegmentIndex:
    """The rows that a retriever takes in. `first`: ordinal of the first frame, which the file does not know."""
    with safe_open(path, "pt") as file:
        head = _head(file, path)
        there = want & set(file.keys())
        repeats = _maybe(file, "repeats")
        return SegmentIndex(
            head.video_id,
            head.number,
            first,
            times=_load(file, "times"),
            clip=rest.thaw_clip(_load(file, "clip"), _maybe(file, "clip_scale"), repeats) if "clip" in there else None,
            key_means=_key_means(file, head.form, repeats) if "key_means" in there else None,
        )


def _head(file: Any, path: Path) -> Head:
    head = json.loads((file.metadata() or {}).get("reelbank", "{}"))
    if head.get("format") != FORMAT:
        raise ValueError(f"{path} has segment format {head.get('format')}, not {FORMAT}")
    return Head(head["video_id"], head["number"], head["start"], head["end"], head.get("form", {}))


def _tokens(file: Any, form: Form, first: int, stop: int) -> VisualTokens:
    """Visual tokens of frames first..stop-1."""
    offsets = _load(file, "offsets").long()
    a, b = int(offsets[first]), int(offsets[stop])
    pos = file.get_slice("pos")[a:b].to(torch.int32, copy=True)
    pos[:, 0] -= first
    return VisualTokens(
        rest.thaw_tokens(file.get_slice("tokens")[a:b].clone(), _maybe(file, "tokens_scale", a, b), form),
        pos,
        offsets[first : stop + 1] - a,
        file.get_slice("times")[first:stop].clone(),
        _maybe(file, "firsts", first, stop),
        _maybe(file, "repeats", first, stop),
    )


def _kv(file: Any, form: Form, first: int, stop: int) -> KVBlock | None:
    """Keys and values of frames first..stop-1; None when the segment has none."""
    if "keys" not in file.keys():  # noqa: SIM118  (safe_open is no dict)
        return None
    offsets = _load(file, "kv_offsets").long()
    a, b = int(offsets[first]), int(offsets[stop])
    keys, values = (_compact(file.get_slice(name)[:, :, a:b]) for name in ("keys", "values"))
    values_scale = _compact(file.get_slice("values_scale")[:, :, a:b]) if "kv" in form else None
    pos = _maybe(file, "kv_pos", a, b)
    return KVBlock(
        rest.thaw_keys(keys, _maybe(file, "keys_scale"), offsets, first, stop, form),
        rest.thaw_values(values, values_scale, form),
        offsets[first : stop + 1] - a,
        None if pos is None else pos.to(torch.int32),
    )


def _key_means(file: Any, form: Form, repeats: Tensor | None) -> Tensor | None:
    means = _maybe(file, "key_means")
    return None if means is None else rest.thaw_means(means, _maybe(file, "key_means_scale"), repeats, form)


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
