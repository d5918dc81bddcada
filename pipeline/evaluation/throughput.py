"""What the bank costs while encoding, and how fast it reads: paired runs, and the plain rate of the
same disk.

    python -m pipeline.evaluation.throughput video=FILE [pairs=5] [frames=64] [key=value ...]

Encoding: the same video in pairs, once into a new bank (every segment durable before the run counts
as done) and once with a bank that takes segments and drops them. Decoding, tower and decoder run in
both, in alternating order, in one process after a warm-up run. The result is the ratio of frames a
second, on to off, median of the pairs; the aim is 0.95. A single busy core moves one pair by more
than the bank does, which is why there are pairs. CPU time of the process stands beside it, because
other processes hardly change it.

Reading: 64 evenly spread frames with keys and values, as a question recalls them, from new objects
each time. Warm, and cold after the files were pushed out of the page cache (posix_fadvise after
fsync; a disk or host may still have them cached). Beside it, the same files read whole by plain
`read`, cold and warm.

Any further key=value is a setting of `reelbank ask`, such as experiment=compact. Prints Markdown.
"""

import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.schema import Segment
from encoders.sources.container import check_file
from memory.store import DiskStore
from pipeline.build import build_local, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.evaluation.speed.components.disk_reads import drop_page_cache, read_files, read_frames


def encode(config: IngestSettings, backbone: Backbone, bank: Path, on: bool) -> tuple[float, float]:
    """(frames a second, CPU milliseconds a frame) of one pass into a new bank.

    on: False drops every segment instead of writing it.
    """
    shutil.rmtree(bank, ignore_errors=True)
    config.bank = str(bank)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        write, frames = qa.bank.write, 0

        def count_and_write(segment: Segment) -> int:
            nonlocal frames
            frames += len(segment)
            return write(segment) if on else 0

        qa.bank.write = count_and_write  # type: ignore[method-assign]
        began, used = time.perf_counter(), time.process_time()
        qa.ingest(source)
        return frames / (time.perf_counter() - began), 1e3 * (time.process_time() - used) / frames


def report(config: IngestSettings, pairs: int, frames: int, folder: Path) -> list[str]:
    """Both measurements as Markdown."""
    encoding = _encode_pairs(config, pairs, folder)
    bank = folder / "on"
    reading = _read_often(bank, pairs, frames)
    files, store = len(_segment_files(bank)), DiskStore(bank)
    per_frame = reading.file_bytes / sum(row.frames for row in store.catalog.all_segments())
    store.close()
    machine = (
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}; {pairs} pairs; "
        f"{files} segments, {reading.file_bytes / 1e6:.1f} MB, {per_frame / 1e3:.1f} kB a frame."
    )
    ratio = statistics.median(on / off for on, off in encoding.rates)
    verdict = "reaches" if ratio >= 0.95 else "misses"
    return [
        machine,
        "",
        *encoding.table(),
        "",
        *reading.table(per_frame),
        "",
        f"median of on / off: {ratio:.3f} ({verdict} 0.95)",
    ]


@dataclass(frozen=True, slots=True)
class Encoding:
    """(bank on, bank off) of each pair."""

    rates: list[tuple[float, float]]  # frames a second
    cpu_ms: list[tuple[float, float]]  # CPU milliseconds a frame

    def table(self) -> list[str]:
        """As Markdown."""
        rates, cpu = self.rates, self.cpu_ms
        return [
            "| encoding | frames/s | CPU ms a frame |",
            "|---|---|---|",
            f"| bank on | {_spread([a for a, _ in rates], 1)} | {_spread([a for a, _ in cpu], 1)} "
            "|",
            f"| bank off | {_spread([b for _, b in rates], 1)} | {_spread([b for _, b in cpu], 1)} "
            "|",
            f"| on / off, of each pair | {_spread([a / b for a, b in rates], 3)} "
            f"| {_spread([a / b for a, b in cpu], 3)} |",
        ]


@dataclass(frozen=True, slots=True)
class Reading:
    """(count, seconds) of each pass: frames of recalls, bytes of plain reads."""

    cold: list[tuple[int, float]]
    warm: list[tuple[int, float]]
    plain_cold: list[tuple[int, float]]
    plain_warm: list[tuple[int, float]]

    @property
    def file_bytes(self) -> int:
        """Of all segment files."""
        return self.plain_cold[0][0]

    def table(self, per_frame: float) -> list[str]:
        """As Markdown; per_frame: bytes of a frame on disk."""
        lines = [f"| reading | ms for {self.cold[0][0]} frames | MB/s |", "|---|---|---|"]
        for name, passes in (("cold", self.cold), ("warm", self.warm)):
            rate = statistics.median(n * per_frame / s / 1e6 for n, s in passes)
            spread = _spread([1e3 * s for _, s in passes], 1)
            lines.append(f"| {passes[0][0]} frames, {name} | {spread} | {rate:.0f} |")
        for name, passes in (("cold", self.plain_cold), ("warm", self.plain_warm)):
            rate = statistics.median(n / s / 1e6 for n, s in passes)
            lines.append(f"| whole files, plain read, {name} | | {rate:.0f} |")
        return lines


def _encode_pairs(config: IngestSettings, pairs: int, folder: Path) -> Encoding:
    backbone = build_local(config)
    encode(config, backbone, folder / "warm", on=True)
    shutil.rmtree(folder / "warm")
    encoding = Encoding([], [])
    for number in range(pairs):
        # neither side always goes first
        order = (True, False) if number % 2 == 0 else (False, True)
        both = {on: encode(config, backbone, folder / ("on" if on else "off"), on) for on in order}
        encoding.rates.append((both[True][0], both[False][0]))
        encoding.cpu_ms.append((both[True][1], both[False][1]))
    return encoding


def _read_often(bank: Path, times: int, frames: int) -> Reading:
    files = _segment_files(bank)
    reading = Reading([], [], [], [])
    for _ in range(times):
        drop_page_cache(files)
        reading.cold.append(read_frames(bank, frames))
        read_files(files)
        reading.warm.append(read_frames(bank, frames))
        drop_page_cache(files)
        reading.plain_cold.append(read_files(files))
        reading.plain_warm.append(read_files(files))
    return reading


def _segment_files(bank: Path) -> list[Path]:
    return sorted((bank / "segments").rglob("*.safetensors"))


def _spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main() -> None:
    """Parse the command line, measure and print."""
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    try:
        own = {"pairs": 5, "frames": 64}
        for key in own:
            for argument in [a for a in sys.argv[1:] if a.startswith(f"{key}=")]:
                value = argument.partition("=")[2]
                if not value.isdigit() or int(value) < 1:
                    raise UserError(f"{argument} does not fit; give a whole number of 1 or more")
                own[key] = int(value)
        overrides = [a for a in sys.argv[1:] if a.partition("=")[0] not in own]
        if not any(override.startswith("text=") for override in overrides):
            overrides.append("text=none")
        config = compose("ask", ["question=-", *overrides])
        if config.is_missing("video") or not config.video:
            raise UserError(
                "video= is missing; say `python -m pipeline.evaluation.throughput video=FILE`"
            )
        check_file(Path(config.video))
        # not /tmp: it may be no disk
        with tempfile.TemporaryDirectory(prefix="reelbank-", dir=Path.cwd()) as folder:
            print("\n".join(report(config, own["pairs"], own["frames"], Path(folder))))
    except UserError as error:
        print(f"reelbank: {' '.join(str(error).splitlines()).rstrip('. ')}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
