"""A bank of many hours with real files, made in minutes by repeating the segments of a short one.

Every file is whole, checked on reading, and of the size that an encoder would have written. Keys,
values and tokens repeat; search rows are perturbed, so that no two frames rank alike. Files are
written without waiting for the disk: only reading such a bank and appending to it are measured.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.schema import Frames, Segment, VideoInfo
from memory.schema import Question
from memory.storage.catalog import SegmentRow, VideoRow
from memory.storage.manifest import open_manifest
from memory.storage.segments import segment_file
from memory.storage.segments.segment_codec import StorageFormat
from memory.store import DiskStore
from pipeline.build import build_qa
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed import ready_frames
from pipeline.evaluation.speed.clocks import median_range, stopwatch
from pipeline.evaluation.speed.components.disk_reads import drop_page_cache
from pipeline.evaluation.speed.reelbank_arm import FIRST_TOKEN_STAGES
from pipeline.evaluation.speed.rounds import question
from pipeline.evaluation.speed.schema import BenchRow, Recompose, Table
from pipeline.qa import VideoQA

_PERTURBATION = 0.5  # of a row's length


def grow(
    root: Path,
    provenance: dict[str, str | int | float | None],
    pattern: Sequence[Segment],
    info: VideoInfo,
    seconds: float,
    interval: float,
) -> int:
    """Make a bank at `root` with one unfinished video; -> the number of its frames.

    pattern: equally long segments of another bank; provenance: of that bank.
    """
    stored = open_manifest(root, provenance, create=True)
    store = DiskStore(root, StorageFormat.parse(str(stored.get("quantisation") or "none")))
    video = VideoRow(info, interval, False)
    rows: list[SegmentRow] = []
    try:
        store.record(video)
        for segment in _repeated(pattern, info.video_id, seconds):
            data = segment_file.pack(segment, store.storage_format)
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
        store.catalog_writer.add_all([video], rows)
    finally:
        store.close()
    return rows[-1].stop


def _repeated(pattern: Sequence[Segment], video_id: str, seconds: float) -> Iterator[Segment]:
    """The pattern repeated from second 0 until so many seconds are full."""
    number, start = 0, 0.0
    while start < seconds:
        old = pattern[number % len(pattern)]
        later = start - old.start
        tokens = replace(old.tokens, times=old.tokens.times + later)
        if tokens.firsts is not None:
            tokens = replace(tokens, firsts=tokens.firsts + later)
        generator = torch.Generator().manual_seed(number)
        yield replace(
            old,
            video_id=video_id,
            number=number,
            start=start,
            end=old.end + later,
            tokens=tokens,
            clip=normalize(_perturbed(old.clip, generator), dim=-1),
            key_means=None if old.key_means is None else _perturbed(old.key_means, generator),
            wall=None,
        )
        number, start = number + 1, old.end + later


def _perturbed(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows plus a random vector of a fixed share of their length."""
    random = torch.randn(rows.shape, generator=generator)
    lengths = rows.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True)
    return rows + _PERTURBATION * lengths * random


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every measurement here needs."""

    config: BenchSettings
    backbone: LlavaOneVision
    recompose: Recompose

    def open(self, root: Path) -> VideoQA:
        """The parts on the bank at `root`."""
        own = self.recompose([])
        own.bank = str(root)
        return build_qa(own, self.backbone)

    def rounds(self) -> Iterator[tuple[int, float]]:
        """(round, hours): each bank once in a round, the order reversed every other round."""
        for number in range(self.config.rounds):
            hours = list(self.config.hours)
            for each in hours if number % 2 == 0 else reversed(hours):
                yield number, each


def measure(
    config: BenchSettings,
    backbone: LlavaOneVision,
    recompose: Recompose,
    pattern: Sequence[Segment],
    provenance: dict[str, str | int | float | None],
    work: Path,
) -> list[BenchRow]:
    """Questions over banks of different lengths, cold and warm, then appending to them; always in
    turn.
    """
    bench = _Bench(config, backbone, recompose)
    roots = {hours: work / f"{hours:g}-hours" for hours in config.hours}
    rows = [_grow_row(bench, roots[hours], hours, pattern, provenance) for hours in roots]
    frames = {row["hours"]: row["frames"] for row in rows}
    for number, hours in bench.rounds():
        # warm: the same question, its files read a moment ago, nothing of them in the bank's RAM
        for temperature in ("cold", "warm"):
            files = list((roots[hours] / "segments").rglob("*.safetensors"))
            drop = files if temperature == "cold" else []
            row = {"kind": "long_ask", "hours": hours, "round": number, "temperature": temperature}
            rows.append(row | _ask_once(bench, roots[hours], hours, number, drop))
    for number, hours in bench.rounds():
        row = {"kind": "append", "hours": hours, "round": number}
        row |= _append(bench, roots[hours], hours)
        tokens = row.pop("tokens")
        rows.append(row | {"frames": frames[hours], "tokens": tokens})
    return rows


def _grow_row(
    bench: _Bench,
    root: Path,
    hours: float,
    pattern: Sequence[Segment],
    provenance: dict[str, str | int | float | None],
) -> BenchRow:
    """Make one bank and let a first question load its search rows."""
    with stopwatch() as growing:
        info = VideoInfo(f"long-{hours:g}", "in memory", 3600 * hours, "none")
        frames = grow(root, provenance, pattern, info, 3600 * hours, 1.0 / bench.config.fps)
    with stopwatch() as loading:  # the search rows are saved when the bank is closed
        _ask_once(bench, root, hours, 0, [])
    return {
        "kind": "long",
        "hours": hours,
        "frames": frames,
        "bytes": sum(path.stat().st_size for path in (root / "segments").rglob("*.safetensors")),
        "making_s": growing.wall_s,
        "taking_in_s": loading.wall_s,
    }


def _ask_once(bench: _Bench, root: Path, hours: float, number: int, drop: list[Path]) -> BenchRow:
    """Open the bank, load the video with one question, and time the next one.

    drop: files to push out of the page cache before that one.
    """
    qa = bench.open(root)
    with qa.bank:
        with stopwatch() as first:
            qa.ask(Question(question(1000 + number), f"long-{hours:g}"))
        drop_page_cache(drop)
        with stopwatch() as took:
            answer = qa.ask(Question(question(number), f"long-{hours:g}"))
    stages = {name: seconds for name, seconds in answer.seconds.items() if name != "total"}
    return {
        "wall_s": took.wall_s,
        "cpu_s": took.cpu_s,
        "first_s": first.wall_s,
        "first_token_s": sum(stages.get(name, 0.0) for name in FIRST_TOKEN_STAGES),
        "stages": stages,
    }


def _append(bench: _Bench, root: Path, hours: float) -> BenchRow:
    """Seconds, CPU seconds and tokens a frame of appending to a bank, without the start-up cost."""
    config, backbone = bench.config, bench.backbone
    qa = bench.open(root)
    video_id = f"long-{hours:g}"
    marks: list[tuple[float, float, float]] = []
    with qa.bank:
        _, start = qa.bank.catalog.next(video_id)
        more = ready_frames.noise_frames(
            config.appended_frames,
            config.fps,
            backbone.frame_size,
            first=round(start * config.fps),
            video_id=video_id,
        )
        source = ready_frames.ReadyFrames(Frames(video_id, more.pixels, more.times), config.fps)
        number, _ = qa.bank.catalog.next(video_id)
        last = number + sum(1 for _ in qa.ingester.segmenter.segments(source.frames())) - 1

        def mark(seconds: float, nbytes: int) -> None:
            marks.append((seconds, time.perf_counter(), time.process_time()))

        qa.ingest(source, mark, until=last)  # the video stays unfinished
        segment = qa.bank.catalog.read_segment(video_id, last)
    offsets = segment.tokens.offsets if segment.kv is None else segment.kv.offsets
    frames = (marks[-1][0] - marks[0][0]) * config.fps
    return {
        "frame_s": (marks[-1][1] - marks[0][1]) / frames,
        "frame_cpu_s": (marks[-1][2] - marks[0][2]) / frames,
        "tokens": offsets[-1].item() / len(segment),
    }


def question_table(rows: Sequence[BenchRow]) -> Table:
    lines = []
    about = [row for row in rows if row["kind"] == "long"]
    for row in about:
        for temperature in ("cold", "warm"):
            timed = _long_asks(rows, row["hours"], temperature)
            least = _long_asks(rows, about[0]["hours"], temperature)
            ratios = [
                median_range(
                    [own[key] / other[key] for own, other in zip(timed, least, strict=True)], 2
                )
                for key in ("wall_s", "cpu_s")
            ]
            keys = ("wall_s", "cpu_s", "first_token_s", "first_s")
            columns = [median_range([one[key] for one in timed], 0, 1e3) for key in keys]
            size = f"{row['frames']:,}", f"{row['bytes'] / 1e9:.2f}"
            lines.append([f"{row['hours']:g} h", *size, temperature, *columns, *ratios])
    words = (
        "Real files of the shapes that encoding writes. The bank is opened, a first question takes "
        "its search rows in, the "
        "next one is timed; the ratio is to the shortest bank in the same round."
    )
    head = [
        "bank",
        "frames",
        "GB",
        "page cache",
        "question ms",
        "CPU ms",
        "first token ms",
        "first question after opening ms",
    ]
    return Table("Long banks", words, [*head, "times the shortest", "the same in CPU time"], lines)


def _long_asks(rows: Sequence[BenchRow], hours: float, temperature: str) -> list[BenchRow]:
    return [
        row
        for row in rows
        if row["kind"] == "long_ask" and row["hours"] == hours and row["temperature"] == temperature
    ]


def append_table(rows: Sequence[BenchRow]) -> Table:
    lines = []
    own = [row for row in rows if row["kind"] == "append"]
    lengths = sorted({row["hours"] for row in own})
    for hours in lengths:
        mine, least = (
            [row for row in own if row["hours"] == length] for length in (hours, lengths[0])
        )
        ratios = [a["frame_s"] / b["frame_s"] for a, b in zip(mine, least, strict=True)]
        used = [a["frame_cpu_s"] / b["frame_cpu_s"] for a, b in zip(mine, least, strict=True)]
        times = (
            median_range([row["frame_s"] for row in mine], 2, 1e3),
            median_range([row["frame_cpu_s"] for row in mine], 2, 1e3),
        )
        lines.append(
            [
                f"{mine[0]['frames']:,}",
                *times,
                median_range(ratios, 3),
                median_range(used, 3),
                f"{mine[-1]['tokens']:.1f}",
            ]
        )
    head = [
        "frames in the bank",
        "ms a frame",
        "CPU ms a frame",
        "times the shortest",
        "the same in CPU time",
        "tokens a frame",
    ]
    words = (
        "In each round some more frames; ratios within a round. Tokens with the time tag, which "
        "is longer for later frames."
    )
    return Table("Encoding on at the end of a bank", words, head, lines)
