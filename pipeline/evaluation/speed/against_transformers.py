"""The first part of the benchmark: Reelbank beside transformers alone, and encoding from a file.

Builds the arms, measures them at each length, and turns the rows into tables. Knows the
configuration.
"""

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.schema import Frames, FrameSource
from pipeline.build import open_video
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed import machine, operations, ready_frames
from pipeline.evaluation.speed.baselines import (
    KeptCache,
    TransformersModel,
    WholePrompt,
    fastest_chunk,
)
from pipeline.evaluation.speed.clocks import median_range, stopwatch
from pipeline.evaluation.speed.reelbank_arm import ReelbankArm
from pipeline.evaluation.speed.rounds import Limits, Rounds
from pipeline.evaluation.speed.schema import BASELINES, BenchArm, BenchRow, Recompose, Table
from pipeline.frame_embedder import build_clip
from pipeline.provenance import provenance

KEPT, WHOLE = BASELINES["kv_kept"], BASELINES["whole_prompt"]
_ARM_PREFIX = "ours, "  # before the name of an arm, in tables
_KEEPS_ALL = "encoders.compressors.NoCompression"  # the compressor that changes no number of tokens


def measure(
    config: BenchSettings,
    backbone: LlavaOneVision,
    recompose: Recompose,
    work: Path,
    rows: list[BenchRow],
) -> None:
    """Measure everything of this part; rows are added to `rows` as they come.

    recompose: overrides -> the configuration with them on top. UserError on arms that cannot be
    compared, before anything is measured.
    """
    frames = _frames(config, backbone, max(config.lengths))
    arms = _reelbank_arms(config, backbone, recompose, work)
    arms += _baselines(config, backbone, frames, rows)
    kinds = {"bfloat16": torch.bfloat16, str(backbone.dtype).removeprefix("torch."): backbone.dtype}

    def rates() -> dict[str, float]:
        rates_by_dtype = {}
        for name, dtype in kinds.items():
            rates_by_dtype[name], rates_by_dtype[f"{name}, CPU"] = machine.matmul_rate(
                dtype, backbone.device, config.matmul_side
            )
        return rates_by_dtype

    run = Rounds(
        config.rounds,
        config.questions,
        Limits(config.round_seconds, config.memory_mb * 1e6),
        rates,
        rows,
    )
    for length in sorted(config.lengths):
        run.measure(_with_id(frames.part(0, length), length), arms)
    rows += _count_operations(config, backbone, recompose, rows)
    rows += _from_file(config, backbone, recompose, work)


def _baselines(
    config: BenchSettings, backbone: LlavaOneVision, frames: Frames, rows: list[BenchRow]
) -> list[BenchArm]:
    """The configured baselines; adds the row of the chosen chunk size."""
    arms: list[BenchArm] = []
    if not config.plain:
        return arms
    model = TransformersModel(backbone, config.new_tokens)
    if "kv_kept" in config.plain:
        first = frames.part(0, min(len(frames), config.tune_frames))
        chunk, seconds = fastest_chunk(model, first, list(config.chunk_frames))
        by_chunk = {str(size): value for size, value in seconds.items()}
        rows.append({"kind": "chunk", "arm": KEPT, "chosen": chunk, "seconds": by_chunk})
        arms.append(KeptCache(model, chunk, KEPT))
    if "whole_prompt" in config.plain:
        arms.append(WholePrompt(model, WHOLE))
    return arms


def _count_operations(
    config: BenchSettings, backbone: LlavaOneVision, recompose: Recompose, rows: Sequence[BenchRow]
) -> list[BenchRow]:
    """Operations of encoding each length, and the rate that was reached."""
    counted: list[BenchRow] = []
    for length, arm in sorted(
        {(row["frames"], row["arm"]) for row in rows if row["kind"] == "encode"}
    ):
        did = _operations_of(
            backbone,
            None if arm == KEPT else recompose(list(config.ours[arm.removeprefix(_ARM_PREFIX)])),
            length,
        )
        if did is None:
            continue
        timed = [
            row
            for row in rows
            if row["kind"] == "encode" and (row["arm"], row["frames"]) == (arm, length)
        ]
        row: BenchRow = {
            "kind": "operations",
            "arm": arm,
            "frames": length,
            "operations": asdict(did) | {"total": did.total},
        }
        row["reached"] = statistics.median(did.total / one["wall_s"] for one in timed)
        row["reached, CPU"] = statistics.median(did.total / one["cpu_s"] for one in timed)
        row["peaks"] = {
            name: max(r[name] for r in rows if r["kind"] == "rate")
            for kind in ("bfloat16", str(backbone.dtype).removeprefix("torch."))
            for name in (kind, f"{kind}, CPU")
        }
        counted.append(row)
    return counted


def _operations_of(
    backbone: LlavaOneVision, own: BenchSettings | None, frames: int
) -> operations.Operations | None:
    """Operations of encoding: by Reelbank as configured or (own=None) by a kept cache.

    None where they depend on the frames' content, or where nothing is prefilled.
    """
    sink = len(backbone.prompt.preamble_ids())
    if own is None:
        return operations.encode_growing(
            backbone.config, frames, tokens=backbone.tokens_per_frame, sink=sink
        )
    if (
        own.compressor["_target_"] != _KEEPS_ALL
        or "window_frames" not in own.prefill
        or "seconds" not in own.segmenter
    ):
        return None
    return operations.encode_windowed(
        backbone.config,
        frames,
        tokens=backbone.tokens_per_frame + backbone.frame_text_length(),
        sink=sink,
        segment=max(1, round(own.segmenter["seconds"] * own.fps)),
        window=own.prefill["window_frames"],
    )


def tables(rows: Sequence[BenchRow]) -> list[Table]:
    """The tables of these rows.

    Ratios are taken round by round, to the baseline that keeps its cache, or without it to the
    first arm.
    """
    all_tables: list[Table] = []
    arms = _arms(rows)
    if not arms:
        return all_tables
    reference = KEPT if KEPT in arms else arms[0]
    for length in sorted({row["frames"] for row in rows if row["kind"] in ("warm_up", "left_out")}):
        own = [row for row in rows if row.get("frames") == length]
        all_tables += [
            _encoding_table(own, length, reference),
            _question_table(own, length, reference),
        ]
    all_tables += [
        _stage_table(rows, "encode", "frame"),
        _stage_table(rows, "ask", "question"),
        _operations_table(rows),
        _file_table(rows),
    ]
    return [table for table in all_tables if table.rows]


# ---- making


def _frames(config: BenchSettings, backbone: LlavaOneVision, count: int) -> Frames:
    if config.video:
        return ready_frames.first_frames(_source(config, backbone), count, config.video)
    return ready_frames.noise_frames(count, config.fps, backbone.frame_size)


def _source(config: BenchSettings, backbone: LlavaOneVision) -> FrameSource:
    source: FrameSource = open_video(
        config, backbone, config.video, start=config.start, end=config.end
    )
    return source


def _with_id(frames: Frames, length: int) -> Frames:
    return Frames(f"bench-{length}", frames.pixels, frames.times)


def _reelbank_arms(
    config: BenchSettings,
    backbone: LlavaOneVision,
    recompose: Callable[[list[str]], BenchSettings],
    work: Path,
) -> list[BenchArm]:
    """The configured arms; arms with the same encoding share a bank."""
    leaders: dict[str, ReelbankArm] = {}
    arms: list[BenchArm] = []
    for name, overrides in config.ours.items():
        own = recompose(list(overrides))
        if own.backbone != config.backbone:
            raise UserError(
                f"ours.{name} changes the backbone, and all arms have the same weights; run bench "
                "twice instead."
            )
        encoding = str(provenance(own, backbone, build_clip(own)))
        leader = leaders.get(encoding)
        bank = work / f"bank-{len(leaders) if leader is None else list(leaders).index(encoding)}"
        arm = ReelbankArm(_ARM_PREFIX + name, own, backbone, bank, leader)
        leaders.setdefault(encoding, arm)
        arms.append(arm)
    return arms


def _from_file(
    config: BenchSettings, backbone: LlavaOneVision, recompose: Recompose, work: Path
) -> list[BenchRow]:
    """Decoding alone, and encoding from the file, to see the share of the slowest stage."""
    if not config.film_seconds and not config.video:
        return []
    rows: list[BenchRow] = []
    own = recompose([])
    if not own.video:
        own.video = str(work / "film.mp4")
        ready_frames.write_film(
            Path(own.video), config.film_seconds, (config.film_width, config.film_height)
        )
    if config.film_seconds and own.end is None:
        own.end = float(config.film_seconds)
    arm = ReelbankArm("from file", own, backbone, work / "from-file")
    for number in range(config.rounds + 1):  # the first one warms up
        source = _source(own, backbone)
        with stopwatch() as decoding:
            count = sum(len(batch) for batch in source.frames())
        arm.drop()
        shutil.rmtree(work / "from-file", ignore_errors=True)
        took = arm.ingest(_source(own, backbone))
        if number:
            rows.append(
                {
                    "kind": "file",
                    "round": number - 1,
                    "frames": count,
                    "decode_s": decoding.wall_s,
                    "wall_s": took.wall_s,
                }
                | {"cpu_s": took.cpu_s, "stages": took.stages}
            )
    arm.drop()
    return rows


# ---- tables


def _arms(rows: Sequence[BenchRow]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows if row["kind"] in ("warm_up", "left_out")))


def _first_row(rows: Sequence[BenchRow], kind: str, arm: str) -> BenchRow | None:
    return next((row for row in rows if row["kind"] == kind and row.get("arm") == arm), None)


def _ratios(
    rows: Sequence[BenchRow], kind: str, arm: str, reference: str, key: str = "wall_s"
) -> list[float]:
    """How many times as long the reference took, for each pair of the same round."""
    values = [
        [row[key] for row in rows if row["kind"] == kind and row["arm"] == name]
        for name in (arm, reference)
    ]
    return (
        [theirs / own for own, theirs in zip(*values, strict=False)]
        if len(values[0]) == len(values[1])
        else []
    )


def _mb(nbytes: float | None) -> str:
    return "-" if nbytes is None else f"{nbytes / 1e6:.0f}"


def _once(value: str) -> str:
    return f"{value}, once"


def _encoding_table(rows: Sequence[BenchRow], length: int, reference: str) -> Table:
    lines = []
    for arm in _arms(rows):
        warm, skipped = _first_row(rows, "warm_up", arm), _first_row(rows, "left_out", arm)
        timed = [row for row in rows if row["kind"] == "encode" and row["arm"] == arm]
        if skipped is not None:
            lines.append([arm, f"left out: {skipped['why']}", "", "", "", "", ""])
        elif warm is not None and timed:
            each = 1e3 / length
            ratios, used = (
                median_range(_ratios(rows, "encode", arm, reference, key), 2)
                for key in ("wall_s", "cpu_s")
            )
            times = (
                median_range([row["wall_s"] for row in timed], 2, each),
                median_range([row["cpu_s"] for row in timed], 2, each),
            )
            rate = median_range([length / row["wall_s"] for row in timed], 1)
            lines.append([arm, *times, rate, ratios, used, _mb(warm["encode_bytes"])])
        elif warm is not None and warm["keeps"]:
            once = (
                f"{1e3 * warm['encode_s'] / length:.2f}",
                f"{1e3 * warm['encode_cpu_s'] / length:.2f}",
            )
            rate = f"{length / warm['encode_s']:.1f}"
            lines.append(
                [arm, *map(_once, once), rate, "too slow for rounds", "", _mb(warm["encode_bytes"])]
            )
    return Table(
        f"Encoding {length} frames",
        "Frames in memory, decoded before. Medians of the rounds, in brackets the least and the "
        "most; ratios are of each "
        "round. An arm that is not here asks the bank of another one.",
        [
            "arm",
            "ms a frame",
            "CPU ms a frame",
            "frames/s",
            f"times as fast as {reference}",
            "in CPU time",
            "peak MB",
        ],
        lines,
    )


def _question_table(rows: Sequence[BenchRow], length: int, reference: str) -> Table:
    lines = []
    for arm in _arms(rows):
        warm = _first_row(rows, "warm_up", arm)
        timed = [row for row in rows if row["kind"] == "ask" and row["arm"] == arm]
        if timed and warm is not None:
            columns = [
                median_range([row[key] for row in timed], digits, 1e3)
                for key, digits in (
                    ("wall_s", 0),
                    ("cpu_s", 0),
                    ("first_token_s", 0),
                    ("per_token_s", 2),
                )
            ]
            ratios = [
                median_range(_ratios(rows, "ask", arm, reference, key), 2)
                for key in ("wall_s", "cpu_s", "first_token_s", "per_token_s")
            ]
            lines.append([arm, *columns, *ratios, _mb(warm["ask_bytes"])])
        elif warm is not None:
            keys = (("ask_s", 0), ("ask_cpu_s", 0), ("first_token_s", 0), ("per_token_s", 2))
            columns = [_once(f"{1e3 * warm[key]:.{digits}f}") for key, digits in keys]
            lines.append([arm, *columns, "too slow for rounds", "", "", "", _mb(warm["ask_bytes"])])
    return Table(
        f"A question over {length} frames",
        "The same questions for all arms, none twice; every answer has as many new tokens. Peak: "
        "since before encoding.",
        [
            "arm",
            "ms",
            "CPU ms",
            "first token ms",
            "ms a token",
            f"times as fast as {reference}",
            "in CPU time",
            "first token",
            "a token",
            "peak MB",
        ],
        lines,
    )


def _stage_table(rows: Sequence[BenchRow], kind: str, unit: str) -> Table:
    """Median milliseconds of each stage."""
    names = list(
        dict.fromkeys(name for row in rows if row["kind"] == kind for name in row["stages"])
    )
    lines = []
    for length in sorted({row["frames"] for row in rows if row["kind"] == kind}):
        own = [row for row in rows if row["kind"] == kind and row["frames"] == length]
        for arm in dict.fromkeys(row["arm"] for row in own):
            per = length if kind == "encode" else 1
            timed = [row["stages"] for row in own if row["arm"] == arm]
            cells = [
                f"{1e3 / per * statistics.median(s[name] for s in timed):.2f}"
                if name in timed[0]
                else ""
                for name in names
            ]
            lines.append([str(length), arm, *cells])
    return Table(
        f"Stages of {'encoding' if kind == 'encode' else 'a question'}, ms a {unit}",
        "Medians. What stands under a name with `beside` ran in another thread meanwhile."
        if kind == "encode"
        else "Medians. `decode` is all tokens behind the first one.",
        ["frames", "arm", *names],
        lines,
    )


def _operations_table(rows: Sequence[BenchRow]) -> Table:
    lines = []
    for row in rows:
        if row["kind"] == "operations":
            did, per = row["operations"], 1e9 * row["frames"]
            parts = [
                f"{did[name] / per:.3f}" for name in ("tower", "decoder", "attention", "total")
            ]
            shares = "; ".join(
                f"{100 * row['reached, CPU' if name.endswith('CPU') else 'reached'] / rate:.0f} % "
                f"of {name}"
                for name, rate in row["peaks"].items()
            )
            lines.append(
                [str(row["frames"]), row["arm"], *parts, f"{row['reached'] / 1e9:.1f}", shares]
            )
    rated = [row for row in rows if row["kind"] == "rate"]
    names = [key for key in (rated[0] if rated else {}) if key not in ("kind", "frames", "round")]
    measured = "; ".join(f"{name} {max(row[name] for row in rated) / 1e9:.0f}" for name in names)
    return Table(
        "Operations of encoding",
        "Counted from the configuration (pipeline/evaluation/speed/operations.py), in 10^9 a "
        "frame. Measured rates of square matrix "
        f"products, the best of the run, in 10^9 a second: {measured}. CPU: a second of CPU time, "
        "of all threads together.",
        ["frames", "arm", "tower", "decoder", "attention", "all", "reached, 10^9/s", "share"],
        lines,
    )


def _file_table(rows: Sequence[BenchRow]) -> Table:
    own = [row for row in rows if row["kind"] == "file"]
    if not own:
        return Table("From a file", "", [], [])
    each = 1e3 / own[0]["frames"]
    # the last two wait for others
    stages = [name for name in own[0]["stages"] if name not in ("other", "wait", "write")]
    slowest = [max(row["stages"][name] for name in stages) / row["wall_s"] for row in own]
    cells = [median_range([row["stages"][name] for row in own], 2, each) for name in stages]
    whole = [median_range([row[key] for row in own], 2, each) for key in ("decode_s", "wall_s")]
    return Table(
        "From a file, ms a sampled frame",
        "Decoding alone, then encoding from the file with every stage on the clock; "
        f"{own[0]['frames']} sampled frames.",
        ["decoding alone", "encoding, whole", *stages, "slowest stage of the whole, %"],
        [[*whole, *cells, median_range(slowest, 0, 100)]],
    )
