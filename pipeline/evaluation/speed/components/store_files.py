"""Writing and reading segment files alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from encoders.schema import Segment, VideoInfo
from memory.storage.catalog import VideoRow
from memory.store import DiskStore
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed.clocks import median_range, stopwatch
from pipeline.evaluation.speed.components.disk_reads import drop_page_cache, read_files, read_frames
from pipeline.evaluation.speed.schema import BenchRow, Table


def measure(config: BenchSettings, pattern: Sequence[Segment], work: Path) -> list[BenchRow]:
    """Writing segments durably, and reading frames spread over them."""
    root, rows = work / "files", list[BenchRow]()
    store = DiskStore(root)
    store.record(VideoRow(VideoInfo("files", "in memory", 0.0, "none"), 1.0 / config.fps, False))
    start = 0.0
    for number in range(max(len(pattern), 16)):
        segment = pattern[number % len(pattern)]
        tokens = replace(segment.tokens, times=segment.tokens.times + start - segment.start)
        end = segment.end + start - segment.start
        copy = replace(
            segment, video_id="files", number=number, start=start, end=end, tokens=tokens
        )
        with stopwatch() as took:
            row = store.put(copy)
        start = end
        rows.append(
            {
                "kind": "write",
                "wall_s": took.wall_s,
                "cpu_s": took.cpu_s,
                "bytes": row.nbytes,
                "frames": row.frames,
            }
        )
    store.close()
    files = sorted((root / "segments").rglob("*.safetensors"))
    each = sum(row["bytes"] for row in rows) / sum(row["frames"] for row in rows)
    for number in range(config.rounds):
        for temperature in ("cold", "warm"):
            if temperature == "cold":
                drop_page_cache(files)
            else:
                read_files(files)
            count, seconds = read_frames(root, config.read_frames)
            rows.append(
                {
                    "kind": "read",
                    "temperature": temperature,
                    "round": number,
                    "wall_s": seconds,
                    "frames": count,
                }
            )
            rows[-1]["bytes"] = count * each
    return rows


def table(rows: Sequence[BenchRow]) -> Table:
    lines = []
    written = [row for row in rows if row["kind"] == "write"]
    if written:
        wall, cpu = (
            median_range([row[key] for row in written], 2, 1e3) for key in ("wall_s", "cpu_s")
        )
        rates = median_range([row["bytes"] / row["wall_s"] / 1e6 for row in written], 0)
        lines.append(
            [f"write a segment of {written[0]['frames']} frames, durable", wall, cpu, rates]
        )
    for temperature in ("cold", "warm"):
        own = [row for row in rows if row["kind"] == "read" and row["temperature"] == temperature]
        if own:
            rates = median_range([row["bytes"] / row["wall_s"] / 1e6 for row in own], 0)
            wall = median_range([row["wall_s"] for row in own], 2, 1e3)
            lines.append([f"read {own[0]['frames']} spread frames, {temperature}", wall, "", rates])
    return Table("Files", "Real segments through the store.", ["", "ms", "CPU ms", "MB/s"], lines)
