"""A segment as one safetensors file; reads it whole, by frame range, or its index rows alone.

Knows nothing of durability, of the catalog or of what the tensors are for. The file describes
itself: its header holds format version, video id, number, start, end, wall-clock time if known, and
the checksums of all tensors (memory/storage/segments/tensor_file.py). So the files can rebuild a
catalog. A chain of checksums covers every byte: the seal (in the catalog) covers the header, the
header covers the data. Every read checks what it returns, and only that: a range of frames costs
the checksums of these frames.

Tensors:
    tokens [N, D], pos [N, 3], offsets [T + 1], times [T], clip [T, E]
    keys, values [L, H, M, Dh], kv_offsets [T + 1]    with a KV cache
    key_means [T, L, H * Dh]                          if the segment has mean keys
    firsts [T]                                        for models with temporal patches
    kv_pos [M, 3]                                     for models with positions on three axes
    repeats [T]                                       if a compressor merged frames
    sides [T]                                         for frames in the shape of their film
    carried [D]                                       if the compressor carries a frame on; the
                                                      header says how many segments ago it was
    thumbnails [bytes], thumbnail_offsets [T + 1]     if JPEGs are kept (source.keep=jpeg)
A segment that a question is still to encode has neither tokens nor pos; offsets are those that its
tokens will have at most (memory/encoded/encoded_store.py).
Dtypes: see tensor_file.py beside this file. In a quantized bank (segment_codec.py) tensors are
codes, keys_scale and values_scale are stored beside keys and values where their form has them,
key_means are computed from the keys at every read, and the header names the format.
"""

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders.schema import CarriedFrame, KVBlock, Segment, VisualTokens
from memory.schema import FrameKeys, SegmentIndex
from memory.storage.segments import segment_codec, tensor_file
from memory.storage.segments.codebook import Codebook
from memory.storage.segments.segment_codec import StorageFormat, TensorFormat
from memory.storage.segments.tensor_file import DamagedError, TensorFile, read_seal, seal

# 1 had no checksums; 2 had them in hex, and quantized banks stored scales and mean keys separately
FORMAT = 3
LOSSLESS = StorageFormat()
INDEX_TENSORS = frozenset({"clip", "key_means", "keys"})  # that a retriever may want


@dataclass(frozen=True, slots=True)
class Head:
    """The metadata of a segment file."""

    video_id: str
    number: int
    start: float
    end: float
    # how its tensors are encoded; empty: lossless
    form: TensorFormat = field(compare=False, default_factory=dict)
    wall: float | None = None  # Unix seconds of `start`
    # seal of the file that the bank had before (memory/compaction/); None: this is the first one
    replaces: str | None = None
    carried_segments: int | None = None  # of CarriedFrame

    def is_stored_as(self, storage_format: StorageFormat) -> bool:
        """Whether the file was made from another one in this format."""
        kv, tokens = self.form.get("kv"), self.form.get("tokens")
        same_kv = kv is None or kv == storage_format.kv
        return self.replaces is not None and same_kv and tokens == storage_format.tokens


def pack(
    segment: Segment, storage_format: StorageFormat = LOSSLESS, replaces: str | None = None
) -> bytes:
    """The file's bytes; equal segments give equal bytes. replaces: the seal of the file from which
    this one was made in another format."""
    tensors, form = segment_codec.encode(segment, storage_format)
    head: dict[str, Any] = {
        "format": FORMAT,
        "video_id": segment.video_id,
        "number": segment.number,
        "start": segment.start,
        "end": segment.end,
    }
    if form:
        head["form"] = form
    if segment.wall is not None:
        head["wall"] = segment.wall
    if replaces is not None:
        head["replaces"] = replaces
    if segment.carried is not None:
        head["carried_segments"] = segment.carried.segments
    return tensor_file.pack(tensors, head)


def read_head(path: Path) -> Head:
    with _open(path, None) as (_, head):
        return head


def read(path: Path, expected_seal: str | None = None, codebook: Codebook | None = None) -> Segment:
    """The whole segment, bit-exact. expected_seal: the seal that the file must have. codebook: that
    of the bank. This and the functions below raise DamagedError if the bytes differ from those that
    were written."""
    with _open(path, expected_seal) as (file, head):
        frames = len(file.load("times"))
        kv = _kv(file, head.form, 0, frames, codebook)
        return Segment(
            video_id=head.video_id,
            number=head.number,
            start=head.start,
            end=head.end,
            tokens=_tokens(file, head.form, 0, frames),
            clip=_clip(file, head.form),
            kv=kv,
            key_means=_key_means(file, head.form, codebook, None if kv is None else kv.keys),
            wall=head.wall,
            thumbnails=_thumbnails(file, range(frames)),
            carried=_carried(file, head),
        )


def read_carried(path: Path, expected_seal: str | None = None) -> CarriedFrame | None:
    """What the compressor carried on from this segment; None: nothing."""
    with _open(path, expected_seal) as (file, head):
        return _carried(file, head)


def read_frames(
    path: Path,
    first: int,
    stop: int,
    *,
    kv: bool = True,
    expected_seal: str | None = None,
    codebook: Codebook | None = None,
) -> tuple[VisualTokens, KVBlock | None]:
    """Frames first..stop-1 of the segment; frame numbers and offsets start at 0 again. Only their
    bytes are read. kv=False does not read keys and values."""
    with _open(path, expected_seal) as (file, head):
        block = _kv(file, head.form, first, stop, codebook) if kv else None
        return _tokens(file, head.form, first, stop), block


def read_index(
    path: Path,
    first: int,
    want: Set[str] = INDEX_TENSORS,
    expected_seal: str | None = None,
    codebook: Codebook | None = None,
) -> SegmentIndex:
    """The rows that a retriever indexes. first: ordinal of the first frame, which the file does not
    hold. want: names of the optional tensors. "keys" are those of all frames, as they are stored;
    in a quantized bank, mean keys cost reading them as well.
    """
    with _open(path, expected_seal) as (file, head):
        return SegmentIndex(
            head.video_id,
            head.number,
            first,
            times=file.load("times"),
            clip=_clip(file, head.form) if "clip" in want else None,
            key_means=_key_means(file, head.form, codebook) if "key_means" in want else None,
            keys=_frame_keys(file, head.form, codebook) if "keys" in want else None,
        )


def read_thumbnails(
    path: Path, frames: Sequence[int], expected_seal: str | None = None
) -> tuple[bytes, ...] | None:
    """The JPEGs of some frames, counted within the segment; None if it has none. Only their bytes
    are read."""
    with _open(path, expected_seal) as (file, _):
        return _thumbnails(file, frames)


def read_times(path: Path) -> tuple[Tensor, Tensor]:
    """Times [T] in seconds and offsets [T + 1] of the frames, for a catalog."""
    with _open(path, None) as (file, _):
        return file.load("times"), file.offsets("offsets")


def check(path: Path, expected_seal: str) -> None:
    """Read the whole file. DamagedError names the first damaged tensor, and the frame if it can."""
    with _open(path, expected_seal) as (file, _):
        file.verify()


@contextmanager
def _open(path: Path, expected_seal: str | None) -> Iterator[tuple[TensorFile, Head]]:
    with tensor_file.open_file(path, expected_seal) as file:
        metadata = file.metadata
        if metadata.get("format") != FORMAT:
            raise DamagedError(f"it has segment format {metadata.get('format')}, not {FORMAT}")
        video_id, number = metadata["video_id"], metadata["number"]
        start, end = metadata["start"], metadata["end"]
        yield (
            file,
            Head(
                video_id,
                number,
                start,
                end,
                metadata.get("form", {}),
                metadata.get("wall"),
                metadata.get("replaces"),
                metadata.get("carried_segments"),
            ),
        )


def _tokens(file: TensorFile, form: TensorFormat, first: int, stop: int) -> VisualTokens:
    """Visual tokens of frames first..stop-1."""
    offsets = file.offsets("offsets")[first : stop + 1]
    if "tokens" in file.sums:
        tokens = file.frames("tokens", offsets, first)
        # numbered from the first of these frames
        pos = file.load("pos")[int(offsets[0]) : int(offsets[-1])].to(torch.int32, copy=True)
        pos[:, 0] -= first
    else:  # the segment is still to be encoded
        tokens, pos = torch.zeros(0, 0), torch.zeros(0, 3, dtype=torch.int32)
    firsts, repeats, sides = (file.load_optional(name) for name in ("firsts", "repeats", "sides"))
    return VisualTokens(
        segment_codec.decode_tokens(tokens, form),
        pos,
        offsets - offsets[0],
        file.load("times")[first:stop],
        None if firsts is None else firsts[first:stop],
        None if repeats is None else repeats[first:stop],
        None if sides is None else sides[first:stop],
    )


def _kv(
    file: TensorFile, form: TensorFormat, first: int, stop: int, codebook: Codebook | None
) -> KVBlock | None:
    """Keys and values of frames first..stop-1; None if the segment has none."""
    if "keys" not in file.sums:
        return None
    whole = file.offsets("kv_offsets")
    offsets = whole[first : stop + 1]
    values, scale = file.frames("values", offsets, first), file.load_optional("values_scale")
    pos = file.load_optional("kv_pos")
    return KVBlock(
        _keys(file, form, whole, first, stop, codebook),
        segment_codec.decode_values(
            values,
            form,
            codebook,
            None if scale is None else scale[first:stop],
            offsets.diff(),
        ),
        offsets - offsets[0],
        None if pos is None else pos[int(offsets[0]) : int(offsets[-1])].to(torch.int32),
    )


def _keys(
    file: TensorFile,
    form: TensorFormat,
    whole: Tensor,
    first: int,
    stop: int,
    codebook: Codebook | None,
) -> Tensor:
    """Keys of frames first..stop-1. whole: offsets of all frames."""
    keys = file.frames("keys", whole[first : stop + 1], first)
    return segment_codec.decode_keys(
        keys, file.load_optional("keys_scale"), whole, first, stop, form, codebook
    )


def _thumbnails(file: TensorFile, frames: Sequence[int]) -> tuple[bytes, ...] | None:
    if "thumbnails" not in file.sums:
        return None
    offsets = file.offsets("thumbnail_offsets")
    holders = [segment_codec.holder_of(offsets, frame) for frame in frames]
    data = {
        holder: file.frames("thumbnails", offsets[holder : holder + 2], holder).numpy().tobytes()
        for holder in dict.fromkeys(holders)
    }
    return tuple(data[holder] for holder in holders)


def _carried(file: TensorFile, head: Head) -> CarriedFrame | None:
    direction = file.load_optional("carried")
    if direction is None or head.carried_segments is None:
        return None
    return CarriedFrame(direction, head.carried_segments)


def _clip(file: TensorFile, form: TensorFormat) -> Tensor:
    return segment_codec.decode_clip(file.load("clip"), file.load_optional("repeats"), form)


def _frame_keys(
    file: TensorFile, form: TensorFormat, codebook: Codebook | None
) -> FrameKeys | None:
    """The keys of all frames; None if the segment has none."""
    if "keys" not in file.sums:
        return None
    offsets, repeats = file.offsets("kv_offsets"), file.load_optional("repeats")
    frames = torch.arange(len(offsets) - 1)
    sources = frames if repeats is None else frames.masked_fill(repeats, 0).cummax(0).values
    keys = _keys(file, form, offsets, 0, len(offsets) - 1, codebook)
    return FrameKeys(keys, offsets, sources)


def _key_means(
    file: TensorFile, form: TensorFormat, codebook: Codebook | None, keys: Tensor | None = None
) -> Tensor | None:
    """Mean keys, stored or computed from the keys; None if the segment has none. keys: of all
    frames, if already read."""
    if "key_means" not in form:
        return file.load_optional("key_means")
    offsets, repeats = file.offsets("kv_offsets"), file.load_optional("repeats")
    if keys is None:
        keys = _keys(file, form, offsets, 0, len(offsets) - 1, codebook)
    return segment_codec.key_means(keys, offsets, repeats)


__all__ = [
    "FORMAT",
    "INDEX_TENSORS",
    "LOSSLESS",
    "DamagedError",
    "Head",
    "check",
    "pack",
    "read",
    "read_carried",
    "read_frames",
    "read_head",
    "read_index",
    "read_seal",
    "read_thumbnails",
    "read_times",
    "seal",
]
