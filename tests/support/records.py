"""Made-up records for the tests of the memory: seeded, small, and of every shape that real ones
have.

The planted needle is one frame whose embedding is the question's, and whose mean keys are the
question's queries. Every other row is random and beats it with negligible chance (see `PLANTED`).
Knows no model.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.schema import Frames, KVBlock, Segment, VideoInfo, VisualTokens
from memory.bank import MemoryBank
from memory.schema import Retriever, SegmentIndex

DIM, EMBED, LAYERS, HEADS, HEAD = 8, 32, 3, 2, 8
# times the query: its score is 4 |q|^2 = 64 on average, a random row's has deviation |q| = 4
PLANTED = 4.0


def make_segment(
    video_id: str = "v",
    number: int = 0,
    *,
    frames: int = 4,
    start: float | None = None,
    interval: float = 1.0,
    tokens: Sequence[int] | None = None,
    tag: int = 1,
    kv: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    needle: int | None = None,
) -> Segment:
    """Segment `number` of a video that has `frames` frames in every segment.

    tokens: visual tokens of each frame (random 1..3 if None). tag: tokens of a time tag. needle:
    the frame that is planted. The same arguments give the same bytes.
    """
    generator = torch.Generator().manual_seed(hash_of(video_id) + number)
    start = number * frames * interval if start is None else start
    counts = (
        torch.tensor(tokens)
        if tokens is not None
        else torch.randint(1, 4, (frames,), generator=generator)
    )
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    total = int(offsets[-1])
    pos = torch.zeros(total, 3, dtype=torch.int32)
    pos[:, 0] = torch.repeat_interleave(torch.arange(frames), counts)
    times = start + interval * torch.arange(frames, dtype=torch.float64)
    block = total + tag * frames
    keys, values = torch.randn(2, LAYERS, HEADS, block, HEAD, generator=generator).to(dtype)
    clip = normalize(torch.randn(frames, EMBED, generator=generator), dim=-1)
    means = torch.randn(frames, LAYERS, HEADS * HEAD, generator=generator)
    if needle is not None:
        clip[needle] = Words().embed_text("needle")
        means[needle] = PLANTED * queries("needle").flatten(1)
        a, b = int(offsets[needle]) + tag * needle, int(offsets[needle + 1]) + tag * (needle + 1)
        keys[:, :, a:b] = PLANTED * queries("needle")[:, :, None]
    return Segment(
        video_id=video_id,
        number=number,
        start=start,
        end=start + frames * interval,
        tokens=VisualTokens(
            torch.randn(total, DIM, generator=generator).to(dtype), pos, offsets, times
        ),
        clip=clip,
        kv=KVBlock(keys, values, offsets + tag * torch.arange(frames + 1)) if kv else None,
        key_means=means if kv else None,
    )


def make_video(
    video_id: str = "v", segments: int = 5, needle: int | None = None, **options: object
) -> list[Segment]:
    """The segments of one video. needle: ordinal of the planted frame (needs `frames` frames in
    every segment).
    """
    frames = int(options.get("frames", 4))  # type: ignore[call-overload]
    return [
        make_segment(
            video_id,
            number,
            needle=needle - number * frames
            if needle is not None and needle // frames == number
            else None,
            **options,  # type: ignore[arg-type]
        )
        for number in range(segments)
    ]


class Words:
    """A frame embedder that gives every text a direction of its own, and frames none."""

    def embed_frames(self, frames: Frames) -> Tensor:
        raise AssertionError("the memory must not embed frames")

    def embed_text(self, text: str) -> Tensor:
        return normalize(
            torch.randn(EMBED, generator=torch.Generator().manual_seed(hash_of(text))), dim=-1
        )


def queries(text: str) -> Tensor:
    """Queries of a question: [L, H, Dh]."""
    generator = torch.Generator().manual_seed(hash_of(text))
    return torch.randn(LAYERS, HEADS * HEAD, generator=generator).view(LAYERS, HEADS, HEAD)


def token_queries(text: str) -> Tensor:
    """Queries of a question of one token, as many heads as the keys have: [1, L, H, Dh]."""
    return queries(text)[None]


def info(video_id: str = "v") -> VideoInfo:
    return VideoInfo(video_id, f"{video_id}.mp4", 100.0, "decord")


def write_video(bank: MemoryBank, segments: Sequence[Segment], interval: float = 1.0) -> None:
    """Record the video and write its segments."""
    bank.record_video(info(segments[0].video_id), interval, finished=False)
    for segment in segments:
        bank.write(segment)


def feed(retriever: Retriever, segments: Sequence[Segment]) -> Retriever:
    """Let a retriever take in the segments of a video from its beginning."""
    first = 0
    for segment in segments:
        retriever.add(SegmentIndex.of(segment, first))
        first += len(segment)
    return retriever


def same(a: object, b: object) -> bool:
    """Whether two records are equal bit by bit, dtypes included."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b)
    if hasattr(a, "__dataclass_fields__") and type(a) is type(b):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def hash_of(text: str) -> int:
    """The same in every process, unlike hash()."""
    return zlib.crc32(text.encode())


def files(root: Path) -> dict[str, bytes]:
    """The segment files below a folder, by relative path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*.safetensors"))
    }
