"""Settings for smaller banks: what each stores and loses, and how fast it writes and reads.

    python -m pipeline.evaluation.bank_sizes [--clips ../shared/data/clips] [--short 100]
        [--long 12] [--out runs/evaluate]

The videos are those of pipeline/evaluation/embedded.py and are shared with it (same --out). Every
setting answers the same questions about them. Columns:

- MB an hour: all segment files of the ten-minute videos (of the short ones with --long 0), scaled
  to 3600 frames. Not counted: the catalog (20 bytes a frame), bank.json, the index (a cache).
- of plain KV: the same, against bfloat16 keys and values of all tokens before compression, time
  tags included. Behind it, the largest share of a single video.
- attention error: |x - x'| / |x| per layer, in per cent. x is the input of the output projection at
  the question's tokens with the keys and values of the encoder, x' with those from the bank.
  Errors of the layers below are included. Mean over questions of the first short videos, all of
  whose frames are recalled.
- needles right: per cent over both kinds of videos, by each reader. reader=kv reads keys and
  values, reader=tokens visual tokens. Then the difference to bf16 on the same questions.
  Intervals are 95 %, bootstrapped over videos.
- write, read: MB of files and frames a second, with keys, values and visual tokens, one thread,
  median of 5. Writing: `put` with fsync of the segments of a video into an empty bank. Reading: all
  their frames back from the page cache.

Prints Markdown and writes it to sizes.md; results.jsonl of each setting holds every question.
Results: docs/measurements/2026-11_bank-sizes_epyc-2core.md.
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

import torch
from torch import Tensor

from encoders.encoder import Encoder
from encoders.models.backbone import Backbone
from encoders.models.video_llm import VideoLLM
from encoders.schema import KVBlock, Segment
from memory.schema import Evidence, Hits, Question, Run
from memory.storage.segments.segment_codec import StorageFormat
from memory.store import DiskStore
from pipeline.answer.schema import local
from pipeline.build import build_local, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.embedded.footage import clips
from pipeline.evaluation.embedded import SEED, Video, make_videos, run_part
from pipeline.needle_world.scoring import ScoredAnswer
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer
from pipeline.scoring import difference, share

SETTINGS: dict[str, tuple[str, ...]] = {  # the first is what the others are compared with
    "bf16": ("kv_dtype=bfloat16", "token_dtype=bfloat16"),
    "int8": ("kv_dtype=int8", "token_dtype=int8"),
    "int4": ("kv_dtype=int4", "token_dtype=int4"),
    "codebook": ("kv_policy=product_quantization", "token_dtype=int8"),
    "pooled, bf16": ("kv_dtype=bfloat16", "token_dtype=bfloat16", "compressor=shrink"),
    "compact": ("experiment=compact",),
}
ATTENTION_VIDEOS = 8  # short videos for attention errors
PARTS = ("short", "long")
READERS = ("kv", "tokens")
TIMED_RUNS = 5  # repetitions for speeds
TIMED_SECONDS = 120.0  # of the first long video


@dataclass(frozen=True, slots=True)
class SettingResult:
    """The measurements of one setting."""

    sizes: list["Size"]  # of each video
    fps: float
    errors: list[float]  # of each layer
    scored: dict[str, list[ScoredAnswer]]  # by reader
    write: tuple[float, float]  # MB and frames a second
    read: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of one video in a bank."""

    name: str  # of its file
    stored: int  # bytes of segment files
    plain: int  # bytes of bfloat16 keys and values of all tokens before compression
    frames: int


def sizes_of(bank: Path, backbone: Backbone) -> list[Size]:
    """Sizes of each video of a bank, counted on the disk."""
    shape = backbone.language_model.kv_shape
    token = 2 * 2 * shape.layers * shape.heads * shape.width
    store, sizes = DiskStore(bank), []
    for video in store.catalog.videos():
        times = [
            t for row in store.catalog.segments(video.info.video_id) for t in row.times.tolist()
        ]
        files = (
            path for path in (bank / "segments" / video.info.video_id).iterdir() if path.is_file()
        )
        stored = sum(path.stat().st_size for path in files)
        plain = (
            sum(backbone.tokens_per_frame + backbone.frame_text_length(t) for t in times) * token
        )
        sizes.append(Size(Path(video.info.path).stem, stored, plain, len(times)))
    store.close()
    return sizes


def encode_segments(
    config: IngestSettings, qa: VideoQA, path: Path, end: float | None = None
) -> Iterator[Segment]:
    """The segments of a video as the encoder returns them, before anything is stored."""
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
    """Collect each layer's input to the output projection, in order: [n, Hq * Dh] float32."""
    outputs: list[Tensor] = []
    hooks = [
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _, args: outputs.append(args[0][0].float())
        )
        for layer in backbone.decoder.layers
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def attention_errors(config: IngestSettings, qa: VideoQA, videos: Sequence[Video]) -> list[float]:
    """Mean error of each layer over the questions of these videos, which `qa`'s bank holds."""
    assert isinstance(qa.backbone, VideoLLM)  # its layers are hooked below
    reader = local(qa.answerer.reader, "the table of sizes")
    errors: list[list[float]] = []
    for _, path, _, questions in videos:
        segments = list(encode_segments(config, qa, path))
        stored = [
            qa.bank.catalog.read_segment(segment.video_id, segment.number).kv
            for segment in segments
        ]
        for text in sorted({one.text for one in questions}):
            both = []
            for blocks in ([segment.kv for segment in segments], stored):
                with attention_outputs(qa.backbone) as outputs:
                    reader.logits(
                        _read_everything(text, segments, blocks), lambda stage: nullcontext()
                    )
                both.append(outputs[-qa.backbone.language_model.kv_shape.layers :])
            errors.append([float((a - b).norm() / a.norm()) for a, b in zip(*both, strict=True)])
    return torch.tensor(errors).mean(0).tolist() if errors else []


def _read_everything(
    text: str, segments: Sequence[Segment], blocks: Sequence[KVBlock | None]
) -> Evidence:
    """Evidence of all frames, with these blocks."""
    runs, first = [], 0
    for segment, block in zip(segments, blocks, strict=True):
        runs.append(Run(segment.video_id, segment.number, first, segment.tokens, block))
        first += len(segment)
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(text, segments[0].video_id), tuple(runs), none, 0, 1.0)


def write_and_read_speeds(
    segments: list[Segment], stored_as: StorageFormat, folder: Path
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(MB and frames written a second), (the same for reading)."""
    frames = sum(len(segment) for segment in segments)
    writing, read = [], []
    for _ in range(TIMED_RUNS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        store = DiskStore(folder, stored_as)
        began = time.perf_counter()
        for segment in segments:
            store.put(segment)
        writing.append(time.perf_counter() - began)
        began = time.perf_counter()
        for segment in segments:
            store.frames(segment.video_id, segment.number, 0, len(segment))
        read.append(time.perf_counter() - began)
        size = sum(
            path.stat().st_size for path in (folder / "segments").rglob("*") if path.is_file()
        )
        store.close()
    shutil.rmtree(folder)
    wrote_in, read_in = statistics.median(writing), statistics.median(read)
    return (size / wrote_in / 1e6, frames / wrote_in), (size / read_in / 1e6, frames / read_in)


def measure(name: str, videos: dict[str, list[Video]], out: Path) -> SettingResult:
    """Measure one setting, from empty banks."""
    folder = out / "sizes" / name.replace(", ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    overrides = SETTINGS[name]
    arms = {reader: (*overrides, f"reader={reader}") for reader in READERS}
    answers = [run_part(part, arms, videos[part], folder) for part in videos if videos[part]]
    parts = [part for part in ("long", "short") if videos[part]]
    config = compose(
        "ask",
        [
            f"bank={folder / ('bank-' + parts[-1])}",
            *("video=-", "question=-", "text=none"),
            *overrides,
        ],
    )
    backbone = build_local(config)
    sizes = sizes_of(folder / f"bank-{parts[0]}", backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        errors = attention_errors(config, qa, videos[parts[-1]][:ATTENTION_VIDEOS])
        segments = list(encode_segments(config, qa, videos[parts[0]][0][1], end=TIMED_SECONDS))
    write, read = write_and_read_speeds(segments, qa.bank.storage_format, folder / "speed")
    for part in parts:
        shutil.rmtree(folder / f"bank-{part}")  # hundreds of MB; the questions stay
    scored = {reader: [one for each in answers for one in each[reader]] for reader in READERS}
    return SettingResult(sizes, float(config.fps), errors, scored, write, read)


def table(rows: dict[str, SettingResult]) -> list[str]:
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
            f"| 1/{plain / stored:.1f} (1/{worst.plain / worst.stored:.1f}: {worst.name}) | "
            f"{errors} | {right} "
            f"| {row.write[0]:.0f} ({row.write[1]:.0f}) | {row.read[0]:.0f} ({row.read[1]:.0f}) |"
        )
    return lines


def _right(row: SettingResult, reference: SettingResult, reader: str) -> str:
    """Two cells: per cent right, and the difference to the reference."""
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
    """Measure every setting and print the table."""
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
    register()
    args.out.mkdir(parents=True, exist_ok=True)
    footage = clips(args.clips, held_out=True) if args.clips.is_dir() else []
    videos = {
        part: list(make_videos(part, count, footage, args.out))
        for part, count in vars(args).items()
        if part in PARTS
    }
    head = (
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}; "
        f"seed {SEED}; {args.short} videos of 16 seconds and {args.long} of ten minutes, "
        f"{len(footage)} held-out clips; "
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
