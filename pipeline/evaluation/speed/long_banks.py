"""A bank of many hours with real files, made in minutes out of a short one: its segments again and again, each at its time.

Every file is whole, checked on reading and of the size that an encoder would have written; keys, values and tokens repeat,
while search rows are turned a little, so that no two frames are found alike. Written without waiting for the disk: what is
measured on such a bank is reading and going on, never the making of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.schema import Segment, VideoInfo
from memory.storage import segment_file
from memory.storage.catalog import SegmentRow, VideoRow
from memory.storage.manifest import open_bank_file
from memory.storage.segment_codec import AtRest
from memory.store import DiskStore

_TURN = 0.5  # of a row's length: how far search rows are moved


def grow(
    root: Path,
    provenance: dict[str, str | int | float | None],
    pattern: Sequence[Segment],
    info: VideoInfo,
    seconds: float,
    interval: float,
) -> int:
    """Make a bank at `root` with one unfinished video out of the segments of another; the number of its frames. pattern:
    equally long segments; provenance: of the bank that they are from."""
    stored = open_bank_file(root, provenance, create=True)
    store = DiskStore(root, AtRest.parse(str(stored.get("quantisation") or "none")))
    video = VideoRow(info, interval, False)
    rows: list[SegmentRow] = []
    try:
        store.record(video)
        for segment in _repeated(pattern, info.video_id, seconds):
            data = segment_file.pack(segment, store.at_rest)
            path = store.path(segment.video_id, segment.number)
            path.write_bytes(data)
            rows.append(
                SegmentRow(
                    segment.video_id,
                    segment.number,
                    segment.start,
                    segment.end,
                    frames=len(segment),
                    first=rows[-1].stop if rows else 0,
                    nbytes=len(data),
                    checksum=segment_file.seal(data),
                    times=segment.times.numpy(),
                    tokens=np.diff(segment.tokens.offsets.numpy()),
                )
            )
        store.catalog.add_all([video], rows)
    finally:
        store.close()
    return rows[-1].stop


def _repeated(pattern: Sequence[Segment], video_id: str, seconds: float) -> Iterator[Segment]:
    """The pattern from second 0 on, until so many seconds are full."""
    number, start = 0, 0.0
    while start < seconds:
        old = pattern[number % len(pattern)]
        later = start - old.start
        seen = replace(old.tokens, times=old.tokens.times + later)
        if seen.firsts is not None:
            seen = replace(seen, firsts=seen.firsts + later)
        generator = torch.Generator().manual_seed(number)
        yield replace(
            old,
            video_id=video_id,
            number=number,
            start=start,
            end=old.end + later,
            tokens=seen,
            clip=normalize(_turned(old.clip, generator), dim=-1),
            key_means=None if old.key_means is None else _turned(old.key_means, generator),
            wall=None,
        )
        number, start = number + 1, old.end + later


def _turned(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows with a random part of a share of their own length."""
    random = torch.randn(rows.shape, generator=generator)
    lengths = rows.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True)
    return rows + _TURN * lengths * random
