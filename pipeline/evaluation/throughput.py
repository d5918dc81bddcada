"""What the bank costs while encoding, and how fast it reads: paired runs and the plain rate of the same disk.

    python -m pipeline.evaluation.throughput video=FILE [pairs=5] [frames=64] [key=value ...]

Encoding: the same video in pairs, once into a new bank (every segment durable before the run counts as done) and once with
a bank that takes segments and does nothing; decoding, the tower and the decoder run in both, in changing order, in one
process after a run that warms up. What counts is the ratio of frames a second, on to off, median of the pairs; the aim is
0.95. One core busy with something else moves a single pair by more than the bank does: that is why they are pairs, and why
the CPU time of the process, which other processes hardly change, stands beside it.
Reading: 64 evenly spread frames with keys and values, as a question recalls them, from new objects each time: warm, and cold
after the files were pushed out of the page cache (posix_fadvise, after fsync; a disk or host may still have them cached).
Beside it the same files read whole from end to end, cold and warm, by plain `read`.
Any further key=value is a setting of `reelbank ask`, such as experiment=compact. Prints Markdown.
"""

import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.schema import Segment
from encoders.sources.container import check_file
from memory.store import DiskStore
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.settings import IngestSettings
from pipeline.evaluation.speed.disk_reads import forget, read_frames, read_plainly


def encode(config: IngestSettings, backbone: Backbone, bank: Path, on: bool) -> tuple[float, float]:
    """(frames a second, CPU milliseconds a frame) of one pass into a new bank; off: what is written goes nowhere."""
    shutil.rmtree(bank, ignore_errors=True)
    config.bank = str(bank)
    source = build_source(config, backbone)
    qa = build_qa(config, backbone)
    with qa.bank:
        write, frames = qa.bank.write, 0

        def counted(segment: Segment) -> int:
            nonlocal frames
            frames += len(segment)
            return write(segment) if on else 0

        qa.bank.write = counted  # type: ignore[method-assign]
        began, used = time.perf_counter(), time.process_time()
        qa.ingest(source)
        return frames / (time.perf_counter() - began), 1e3 * (time.process_time() - used) / frames


def report(config: IngestSettings, pairs: int, frames: int, folder: Path) -> list[str]:
    """Markdown."""
    backbone = build_backbone(config)
    encode(config, backbone, folder / "warm", on=True)
    shutil.rmtree(folder / "warm")
    rates: list[tuple[float, float]] = []  # on, off
    used: list[tuple[float, float]] = []
    for number in range(pairs):
        # neither side always goes first
        order = (True, False) if number % 2 == 0 else (False, True)
        found = {on: encode(config, backbone, folder / ("on" if on else "off"), on) for on in order}
        rates.append((found[True][0], found[False][0]))
        used.append((found[True][1], found[False][1]))
    bank = folder / "on"
    files = sorted((bank / "segments").rglob("*.safetensors"))
    cold, warm, plain_cold, plain_warm = [], [], [], []
    for _ in range(pairs):
        forget(files)
        cold.append(read_frames(bank, frames))
        read_plainly(files)
        warm.append(read_frames(bank, frames))
        forget(files)
        plain_cold.append(read_plainly(files))
        plain_warm.append(read_plainly(files))
    total, count = plain_cold[0][0], sum(1 for _ in files)
    stored = DiskStore(bank)
    each = total / sum(row.frames for row in stored.catalog.all_segments())
    stored.close()
    ratio = statistics.median(on / off for on, off in rates)
    lines = [
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f}; {pairs} pairs; {count} segments, {total / 1e6:.1f} MB, {each / 1e3:.1f} kB a frame.",
        "",
        "| encoding | frames/s | CPU ms a frame |",
        "|---|---|---|",
        f"| bank on | {_spread([on for on, _ in rates], 1)} | {_spread([on for on, _ in used], 1)} |",
        f"| bank off | {_spread([off for _, off in rates], 1)} | {_spread([off for _, off in used], 1)} |",
        f"| on / off, of each pair | {_spread([a / b for a, b in rates], 3)} | {_spread([a / b for a, b in used], 3)} |",
        "",
        f"| reading | ms for {cold[0][0]} frames | MB/s |",
        "|---|---|---|",
    ]
    for name, timed in ((f"{cold[0][0]} frames, cold", cold), (f"{warm[0][0]} frames, warm", warm)):
        rate = statistics.median(n * each / s / 1e6 for n, s in timed)
        lines.append(f"| {name} | {_spread([1e3 * s for _, s in timed], 1)} | {rate:.0f} |")
    for name, read in (
        ("whole files, plain read, cold", plain_cold),
        ("whole files, plain read, warm", plain_warm),
    ):
        lines.append(f"| {name} | | {statistics.median(n / s / 1e6 for n, s in read):.0f} |")
    return [
        *lines,
        "",
        f"median of on / off: {ratio:.3f} ({'reaches' if ratio >= 0.95 else 'misses'} 0.95)",
    ]


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
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
        config = compose(
            "ask", ["question=-", *(a for a in sys.argv[1:] if a.partition("=")[0] not in own)]
        )
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
