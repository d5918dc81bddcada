"""Settings for fewer bytes: what each stores, what it loses, how fast it writes and reads.

    python -m pipeline.evaluation.bank_sizes [--clips ../shared/data/clips] [--short 100] [--long 12] [--out runs/evaluate]

The videos are those of pipeline/evaluation/embedded.py and are shared with it (same --out); every setting answers the same
questions about them. Columns:
bytes an hour   all segment files of the ten-minute videos (of the short ones with --long 0), scaled to 3600 frames; the
                catalog (20 bytes a frame), bank.json and the index (a cache, rebuilt when it is gone) are not counted
of plain KV     the same, against bfloat16 keys and values of all tokens before compression: visual tokens and time tags; the
                largest share of a single video, and which, behind it
attention       for each layer |x - x'| / |x| in per cent: x what attention hands to the output projection at the question's
                tokens with keys and values as they were made, x' with those that come back from the bank; errors of the
                layers below included; mean over questions of the first short videos, all of whose frames are recalled
needles         per cent right over both kinds of videos, by each reader: reader=kv reads keys and values, reader=tokens
                reads visual tokens; difference to bf16, same questions in pairs, 95 % interval bootstrapped over videos
write, read     MB of files and frames a second, keys, values and visual tokens, one thread, median of 5: `put` with fsync
                of the segments of a video into an empty bank, and all their frames back from the page cache
Prints Markdown and leaves it in sizes.md; results.jsonl of each setting keeps every question.
"""

import argparse
import os
import platform
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders.encoder import Encoder
from encoders.models.backbone import Backbone
from encoders.models.video_llm import VideoLLM
from encoders.schema import KVBlock, Segment
from memory.schema import Evidence, Hits, Question, Run
from memory.storage.segment_codec import AtRest
from memory.store import DiskStore
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config import settings
from pipeline.config.compose import compose
from pipeline.embedded.footage import clips
from pipeline.evaluation.embedded import SEED, Video, make_videos, run_part
from pipeline.needle_world.scoring import Scored
from pipeline.provenance import at_rest
from pipeline.runtime.stage_timer import StageTimer
from pipeline.scoring import difference, share

SETTINGS: dict[str, tuple[str, ...]] = {  # the first is what the others are compared with
    "bf16": ("kv_dtype=bfloat16", "token_dtype=bfloat16"),
    "int8": ("kv_dtype=int8", "token_dtype=int8"),
    "int4": ("kv_dtype=int4", "token_dtype=int4"),
    "pooled, bf16": ("kv_dtype=bfloat16", "token_dtype=bfloat16", "compressor=shrink"),
    "compact": ("experiment=compact",),
}
PROBED = 8  # short videos for attention errors
PARTS = ("short", "long")
READERS = ("kv", "tokens")
TIMED = 5  # repetitions for speeds
TIMED_SECONDS = 120.0  # of the first long video


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one setting."""

    sizes: list["Size"]  # of each video
    fps: float
    errors: list[float]  # of each layer
    scored: dict[str, list[Scored]]  # by reader
    write: tuple[float, float]  # MB and frames a second
    read: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Size:
    """Of one video in a bank."""

    name: str  # of its file
    stored: int  # bytes of segment files
    plain: int  # bytes of bfloat16 keys and values of all tokens before compression
    frames: int


def sizes_of(bank: Path, backbone: Backbone) -> list[Size]:
    """Of each video of a bank, counted on the disk."""
    shape = backbone.kv_shape
    token = 2 * 2 * shape.layers * shape.heads * shape.width
    store, found = DiskStore(bank), []
    for video in store.catalog.videos():
        times = [
            t for row in store.catalog.segments(video.info.video_id) for t in row.times.tolist()
        ]
        files = (
            path for path in (bank / "segments" / video.info.video_id).iterdir() if path.is_file()
        )
        stored = sum(path.stat().st_size for path in files)
        plain = sum(backbone.tokens_per_frame + backbone.tag_length(t) for t in times) * token
        found.append(Size(Path(video.info.path).stem, stored, plain, len(times)))
    store.close()
    return found


def encoded(config: Any, qa: Any, path: Path, end: float | None = None) -> Iterator[Segment]:
    """The segments of a video as the encoder makes them, before anything is stored."""
    config.video, config.end = str(path), end
    source = build_source(config, qa.backbone)
    encoder = Encoder(
        qa.backbone,
        qa.ingester.compressor,
        qa.ingester.new_prefill(),
        qa.ingester.clip,
        qa.ingester.interval,
    )
    for number, frames in enumerate(qa.ingester.segmenter.segments(source.frames(0.0))):
        yield encoder.encode(frames, number, StageTimer())


@contextmanager
def attention_outputs(backbone: VideoLLM) -> Iterator[list[Tensor]]:
    """Collects [n, Hq * Dh] float32 of each layer, in order, as it enters the output projection."""
    caught: list[Tensor] = []
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _, args: caught.append(args[0][0].float())
        )
        for layer in backbone.decoder.layers
    ]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def attention_errors(config: Any, qa: Any, videos: Sequence[Video]) -> list[float]:
    """Of each layer, over the questions of these videos; the bank of `qa` holds them."""
    found: list[list[float]] = []
    for _, path, _, asked in videos:
        made = list(encoded(config, qa, path))
        stored = [
            qa.bank.catalog.read_segment(segment.video_id, segment.number).kv for segment in made
        ]
        for text in sorted({one.text for one in asked}):
            both = []
            for blocks in ([segment.kv for segment in made], stored):
                with attention_outputs(qa.backbone) as caught:
                    qa.answerer.reader.logits(
                        _all_of(text, made, blocks), lambda stage: nullcontext()
                    )
                both.append(caught[-qa.backbone.kv_shape.layers :])
            found.append([float((a - b).norm() / a.norm()) for a, b in zip(*both, strict=True)])
    return torch.tensor(found).mean(0).tolist() if found else []


def _all_of(text: str, made: Sequence[Segment], blocks: Sequence[KVBlock | None]) -> Evidence:
    runs, first = [], 0
    for segment, block in zip(made, blocks, strict=True):
        runs.append(Run(segment.number, first, segment.tokens, block))
        first += len(segment)
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(text, made[0].video_id), tuple(runs), none, 0, 1.0)


def speeds(
    made: list[Segment], stored_as: AtRest, folder: Path
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(MB and frames written a second), (the same read): see the head of this file."""
    frames = sum(len(segment) for segment in made)
    wrote, read = [], []
    for _ in range(TIMED):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        store = DiskStore(folder, stored_as)
        began = time.perf_counter()
        for segment in made:
            store.put(segment)
        wrote.append(time.perf_counter() - began)
        began = time.perf_counter()
        for segment in made:
            store.frames(segment.video_id, segment.number, 0, len(segment))
        read.append(time.perf_counter() - began)
        size = sum(
            path.stat().st_size for path in (folder / "segments").rglob("*") if path.is_file()
        )
        store.close()
    shutil.rmtree(folder)
    wrote_in, read_in = statistics.median(wrote), statistics.median(read)
    return (size / wrote_in / 1e6, frames / wrote_in), (size / read_in / 1e6, frames / read_in)


def measure(name: str, videos: dict[str, list[Video]], out: Path) -> Row:
    """One setting, from empty banks."""
    folder = out / "sizes" / name.replace(", ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    overrides = SETTINGS[name]
    arms = {reader: (*overrides, f"reader={reader}") for reader in READERS}
    answers = [run_part(part, arms, videos[part], folder) for part in videos if videos[part]]
    parts = [part for part in ("long", "short") if videos[part]]
    config = compose(
        "ask", [f"bank={folder / ('bank-' + parts[-1])}", "video=-", "question=-", *overrides]
    )
    backbone = build_backbone(config)
    sizes = sizes_of(folder / f"bank-{parts[0]}", backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        errors = attention_errors(config, qa, videos[parts[-1]][:PROBED])
        made = list(encoded(config, qa, videos[parts[0]][0][1], end=TIMED_SECONDS))
    write, read = speeds(made, at_rest(config, backbone), folder / "speed")
    for part in parts:
        shutil.rmtree(folder / f"bank-{part}")  # hundreds of MB; the questions stay
    scored = {reader: [one for each in answers for one in each[reader]] for reader in READERS}
    return Row(sizes, float(config.fps), errors, scored, write, read)


def table(rows: dict[str, Row]) -> list[str]:
    """Markdown, one setting a line."""
    reference = next(iter(rows.values()))
    lines = [
        "| setting | MB an hour | of plain KV (worst video) | attention error, layers 1.. (%) "
        + "".join(
            f"| {reader} reader: needles right (%) | less bf16 (points) " for reader in READERS
        )
        + "| write MB/s (frames/s) | read MB/s (frames/s) |",
        "|---" * 10 + "|",
    ]
    for name, row in rows.items():
        errors = (
            " ".join(f"{100 * error:.2f}" for error in row.errors) if any(row.errors) else "as made"
        )
        stored, plain, frames = (
            sum(getattr(size, what) for size in row.sizes) for what in ("stored", "plain", "frames")
        )
        worst = max(row.sizes, key=lambda size: size.stored / size.plain)
        right = " | ".join(_right(row, reference, reader) for reader in READERS)
        lines.append(
            f"| {name} | {stored / frames * 3600 * row.fps / 1e6:.1f} "
            f"| 1/{plain / stored:.1f} (1/{worst.plain / worst.stored:.1f}: {worst.name}) | {errors} | {right} "
            f"| {row.write[0]:.0f} ({row.write[1]:.0f}) | {row.read[0]:.0f} ({row.read[1]:.0f}) |"
        )
    return lines


def _right(row: Row, reference: Row, reader: str) -> str:
    """Two cells: per cent right, and what that is less than the reference."""
    right, against = (
        [(one.video, one.right) for one in each.scored[reader]] for each in (row, reference)
    )
    mean, low, high, count = share(right)
    cell = f"{100 * mean:.1f} ({100 * low:.1f}-{100 * high:.1f}), n={count}"
    if row is reference:
        return f"{cell} | -"
    change, least, most, _ = difference(right, against)
    return f"{cell} | {100 * change:+.1f} ({100 * least:+.1f} to {100 * most:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/clips"))
    parser.add_argument("--short", type=int, default=100, help="videos of 16 seconds")
    parser.add_argument("--long", type=int, default=12, help="videos of ten minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluate"))
    args = parser.parse_args()
    if args.short + args.long < 1:
        parser.error("--short and --long are both 0: there is nothing to measure")
    settings.register()
    args.out.mkdir(parents=True, exist_ok=True)
    footage = clips(args.clips, held_out=True) if args.clips.is_dir() else []
    videos = {
        part: list(make_videos(part, count, footage, args.out))
        for part, count in vars(args).items()
        if part in PARTS
    }
    head = (
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"seed {SEED}; {args.short} videos of 16 seconds and {args.long} of ten minutes, {len(footage)} held-out clips; "
        "intervals 95 %, bootstrapped over videos."
    )
    rows = {}
    for name in SETTINGS:
        rows[name] = measure(name, videos, args.out)
        print("\n".join(table(rows)[-1:]), flush=True)
    report = [head, "", *table(rows)]
    print("\n" + "\n".join(report))
    (args.out / "sizes.md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
