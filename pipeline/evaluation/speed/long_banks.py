"""A bank of many hours with real files, made in minutes out of a short one: its segments again and again, each at its time.

Every file is whole, checked on reading and of the size that an encoder would have written; keys, values and tokens repeat,
while search rows are turned a little, so that no two frames are found alike. Written without waiting for the disk: what is
measured on such a bank is reading and going on, never the making of it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.models.llava_onevision import LlavaOneVision
from encoders.schema import Frames, Segment, VideoInfo
from memory.schema import Question
from memory.storage import segment_file
from memory.storage.catalog import SegmentRow, VideoRow
from memory.storage.manifest import open_bank_file
from memory.storage.segment_codec import AtRest
from memory.store import DiskStore
from pipeline.build import build_qa
from pipeline.config.settings import BenchSettings
from pipeline.evaluation.speed import footage
from pipeline.evaluation.speed.clocks import middle, watch
from pipeline.evaluation.speed.disk_reads import forget
from pipeline.evaluation.speed.ours import TO_FIRST
from pipeline.evaluation.speed.rounds import question
from pipeline.evaluation.speed.schema import Recompose, Row, Table
from pipeline.qa import VideoQA

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


def _long_banks(
    config: BenchSettings,
    backbone: LlavaOneVision,
    recompose: Recompose,
    pattern: Sequence[Segment],
    provenance: dict[str, str | int | float | None],
    work: Path,
) -> list[Row]:
    """Questions over banks of different lengths in turn, cold and warm, then encoding on at their ends, in turn."""
    rows: list[Row] = []
    banks: dict[float, tuple[Path, int]] = {}
    for hours in config.hours:
        root = work / f"{hours:g}-hours"
        with watch() as took:
            info = VideoInfo(f"long-{hours:g}", "in memory", 3600 * hours, "none")
            frames = grow(root, provenance, pattern, info, 3600 * hours, 1.0 / config.fps)
        banks[hours] = root, frames
        with watch() as taking:  # the search rows are saved when the bank is closed
            _ask_once(config, backbone, recompose, root, hours, 0, [])
        nbytes = sum(path.stat().st_size for path in (root / "segments").rglob("*.safetensors"))
        rows.append(
            {
                "kind": "long",
                "hours": hours,
                "frames": frames,
                "bytes": nbytes,
                "making_s": took.wall_s,
            }
        )
        rows[-1]["taking_in_s"] = taking.wall_s
    for number in range(config.rounds):
        for hours in config.hours if number % 2 == 0 else reversed(config.hours):
            # warm: the same question, its files read a moment ago, nothing of them in the bank's RAM
            for temperature in ("cold", "warm"):
                cold = (
                    list((banks[hours][0] / "segments").rglob("*.safetensors"))
                    if temperature == "cold"
                    else []
                )
                told = _ask_once(config, backbone, recompose, banks[hours][0], hours, number, cold)
                rows.append(
                    {
                        "kind": "long_ask",
                        "hours": hours,
                        "round": number,
                        "temperature": temperature,
                    }
                    | told
                )
    for number in range(config.rounds if banks else 0):
        for hours in config.hours if number % 2 == 0 else reversed(config.hours):
            each, cpu, tokens = _append(config, backbone, recompose, banks[hours][0], hours)
            rows.append(
                {
                    "kind": "append",
                    "hours": hours,
                    "round": number,
                    "frame_s": each,
                    "frame_cpu_s": cpu,
                }
            )
            rows[-1] |= {"frames": banks[hours][1], "tokens": tokens}
    return rows


def _opened(backbone: LlavaOneVision, recompose: Recompose, root: Path) -> VideoQA:
    own = recompose([])
    own.bank = str(root)
    return build_qa(own, backbone)


def _ask_once(
    config: BenchSettings,
    backbone: LlavaOneVision,
    recompose: Recompose,
    root: Path,
    hours: float,
    number: int,
    cold: list[Path],
) -> Row:
    """Open the bank, let it take the video in with one question, and time the next one. cold: files to push out before it."""
    qa = _opened(backbone, recompose, root)
    with qa.bank:
        with watch() as first:
            qa.ask(Question(question(1000 + number), f"long-{hours:g}"))
        forget(cold)
        with watch() as took:
            answer = qa.ask(Question(question(number), f"long-{hours:g}"))
    stages = {name: seconds for name, seconds in answer.seconds.items() if name != "total"}
    until = sum(stages.get(name, 0.0) for name in TO_FIRST)
    return {
        "wall_s": took.wall_s,
        "cpu_s": took.cpu_s,
        "first_s": first.wall_s,
        "first_token_s": until,
        "stages": stages,
    }


def _append(
    config: BenchSettings, backbone: LlavaOneVision, recompose: Recompose, root: Path, hours: float
) -> tuple[float, float, float]:
    """(seconds, CPU seconds, tokens) a frame of encoding on at the end of a bank; what it costs to begin with is not in it."""
    qa = _opened(backbone, recompose, root)
    video_id = f"long-{hours:g}"
    marks: list[tuple[float, float, float]] = []
    with qa.bank:
        _, start = qa.bank.catalog.next(video_id)
        more = footage.noise(
            config.appended_frames,
            config.fps,
            backbone.frame_size,
            first=round(start * config.fps),
            video_id=video_id,
        )
        source = footage.ReadyFrames(Frames(video_id, more.pixels, more.times), config.fps)
        number, _ = qa.bank.catalog.next(video_id)
        last = number + sum(1 for _ in qa.ingester.segmenter.segments(source.frames())) - 1

        def mark(seconds: float, nbytes: int) -> None:
            marks.append((seconds, time.perf_counter(), time.process_time()))

        qa.ingest(source, mark, until=last)  # the video stays unfinished
        made = qa.bank.catalog.read_segment(video_id, last)
    tokens = (made.tokens.offsets if made.kv is None else made.kv.offsets)[-1].item() / len(made)
    frames = (marks[-1][0] - marks[0][0]) * config.fps
    return (marks[-1][1] - marks[0][1]) / frames, (marks[-1][2] - marks[0][2]) / frames, tokens


def _long_table(rows: Sequence[Row]) -> Table:
    lines = []
    about = [row for row in rows if row["kind"] == "long"]
    for row in about:
        for temperature in ("cold", "warm"):
            asked = _long_asks(rows, row["hours"], temperature)
            least = _long_asks(rows, about[0]["hours"], temperature)
            ratios = [
                middle([own[key] / other[key] for own, other in zip(asked, least, strict=True)], 2)
                for key in ("wall_s", "cpu_s")
            ]
            keys = ("wall_s", "cpu_s", "first_token_s", "first_s")
            columns = [middle([one[key] for one in asked], 0, 1e3) for key in keys]
            size = f"{row['frames']:,}", f"{row['bytes'] / 1e9:.2f}"
            lines.append([f"{row['hours']:g} h", *size, temperature, *columns, *ratios])
    words = (
        "Real files of the shapes that encoding writes. The bank is opened, a first question takes its search rows in, the "
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


def _long_asks(rows: Sequence[Row], hours: float, temperature: str) -> list[Row]:
    return [
        row
        for row in rows
        if row["kind"] == "long_ask" and row["hours"] == hours and row["temperature"] == temperature
    ]


def _append_table(rows: Sequence[Row]) -> Table:
    lines = []
    own = [row for row in rows if row["kind"] == "append"]
    lengths = sorted({row["hours"] for row in own})
    for hours in lengths:
        mine, least = (
            [row for row in own if row["hours"] == wanted] for wanted in (hours, lengths[0])
        )
        ratios = [a["frame_s"] / b["frame_s"] for a, b in zip(mine, least, strict=True)]
        used = [a["frame_cpu_s"] / b["frame_cpu_s"] for a, b in zip(mine, least, strict=True)]
        times = (
            middle([row["frame_s"] for row in mine], 2, 1e3),
            middle([row["frame_cpu_s"] for row in mine], 2, 1e3),
        )
        lines.append(
            [
                f"{mine[0]['frames']:,}",
                *times,
                middle(ratios, 3),
                middle(used, 3),
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
    words = "In each round some more frames; ratios within a round. Tokens with the time tag, which is longer for later frames."
    return Table("Encoding on at the end of a bank", words, head, lines)
