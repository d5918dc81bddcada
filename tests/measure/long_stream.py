"""What a bank holds in memory while a stream of many hours is written and asked. Draws the plot.

    python -m tests.measure.long_stream --hours 24 stream.png

The segments are made up: 8 s, 8 frames, 6 KB of keys and values a frame. Everything behind
`bank.write` is real: files, catalog, FAISS, row files. A question comes every 40 seconds of video,
and its evidence is held until the next one. The CPU simulates the device: frames are copied as they
would be to a GPU. Knows no model and no pixels.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import normalize

from encoders.prefill import key_means
from encoders.schema import KVBlock, Segment, VideoInfo, VisualTokens
from memory.bank import MemoryBank
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.kv import KVRetriever
from memory.schema import Question, Retriever
from tests.support import measurement_page

FRAMES, TOKENS, TAG, WIDTH, EMBED = 8, 4, 2, 64, 64
LAYERS, HEADS, HEAD = 4, 2, 32
MB = 10**6
RAM, ROWS, DEVICE = 96 * MB, 24 * MB, 8 * MB
ASK_EVERY = 5  # segments


@dataclass
class Curve:
    """What was measured, one number each per sample."""

    hours: list[float] = field(default_factory=list)  # of video
    index: list[int] = field(default_factory=list)  # bytes: rows that are searched
    ram: list[int] = field(default_factory=list)  # bytes: frames
    device: list[int] = field(default_factory=list)  # bytes: frames
    # bytes: anonymous memory of the process, Python and torch included
    process: list[int] = field(default_factory=list)
    write_ms: list[float] = field(default_factory=list)  # median since the last sample
    ask_ms: list[float] = field(default_factory=list)


class Words:
    """A direction for every text."""

    def embed_frames(self, frames: object) -> torch.Tensor:
        raise AssertionError("the memory must not embed frames")

    def embed_text(self, text: str) -> torch.Tensor:
        return normalize(
            torch.randn(EMBED, generator=torch.Generator().manual_seed(len(text))), dim=0
        )


def queries(text: str) -> torch.Tensor:
    return torch.randn(1, LAYERS, HEADS, HEAD, generator=torch.Generator().manual_seed(len(text)))


def segment(number: int) -> Segment:
    """Eight seconds of the stream."""
    g = torch.Generator().manual_seed(number)
    offsets = torch.arange(FRAMES + 1) * TOKENS
    tokens = VisualTokens(
        torch.randn(FRAMES * TOKENS, WIDTH, generator=g).bfloat16(),
        torch.zeros(FRAMES * TOKENS, 3, dtype=torch.int32),
        offsets,
        torch.arange(FRAMES, dtype=torch.float64) + number * FRAMES,
    )
    keys, values = (
        torch.randn(LAYERS, HEADS, FRAMES * (TOKENS + TAG), HEAD, generator=g).bfloat16()
        for _ in range(2)
    )
    block = KVBlock(keys, values, torch.arange(FRAMES + 1) * (TOKENS + TAG))
    clip = normalize(torch.randn(FRAMES, EMBED, generator=g), dim=1)
    start = float(number * FRAMES)
    return Segment("stream", number, start, start + FRAMES, tokens, clip, block, key_means(block))


def anonymous() -> int:
    """Bytes of this process that are in no file."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def stream(root: Path, hours: float, samples: int = 48) -> Curve:
    """Write and ask `hours` of video; AssertionError where a budget does not hold."""
    parts: dict[str, Callable[..., Retriever]] = {
        "clip": ClipRetriever,
        "kv": partial(KVRetriever, ram_bytes=ROWS),
    }
    retriever = FusedRetriever(parts, embedder=Words(), queries=queries)
    curve, segments = Curve(), round(hours * 3600 / FRAMES)
    evidence, writes, asks = None, list[float](), list[float]()
    bank = MemoryBank.open(
        root,
        {"model": "made up", "quantisation": "none"},
        retriever,
        recent_frames=4,
        ram_bytes=RAM,
        device_bytes=DEVICE,
        device=torch.device("cpu"),
        prefetch_frames=16,
    )
    with bank:
        bank.record_video(
            VideoInfo("stream", "stream", hours * 3600.0, "made up"), 1.0, finished=False
        )
        for number in range(segments):
            fresh = segment(number)
            began = time.perf_counter()
            bank.write(fresh)
            writes.append(time.perf_counter() - began)
            if number % ASK_EVERY == 0:
                began = time.perf_counter()
                evidence = bank.recall(
                    Question("?" * (number % 97), "stream"), read_tokens=24 * TOKENS
                )
                asks.append(time.perf_counter() - began)
                assert evidence.frame_count == min(24, FRAMES * (number + 1))
            usage = bank.in_memory()
            assert usage["index"] + usage["ram"] <= RAM and usage["device"] <= DEVICE, (
                number,
                usage,
            )
            if (number + 1) % max(1, segments // samples) == 0:
                curve.hours.append((number + 1) * FRAMES / 3600)
                curve.index.append(usage["index"])
                curve.ram.append(usage["ram"])
                curve.device.append(usage["device"])
                curve.process.append(anonymous())
                curve.write_ms.append(1e3 * sorted(writes)[len(writes) // 2])
                curve.ask_ms.append(
                    1e3 * sorted(asks)[len(asks) // 2] if asks else curve.ask_ms[-1]
                )
                writes, asks = [], []
        del evidence
    return curve


def draw(curve: Curve, target: Path) -> None:
    """Bytes over hours, and what a segment and a question take."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(11, 7), sharex=True, constrained_layout=True
    )
    total = [index + ram for index, ram in zip(curve.index, curve.ram, strict=True)]
    for name, line in (
        ("search rows", curve.index),
        ("search rows + frames in RAM", total),
        ("frames on the device", curve.device),
    ):
        above.plot(curve.hours, [n / MB for n in line], label=name)
    above.plot(
        curve.hours,
        [(n - curve.process[0]) / MB for n in curve.process],
        ":",
        label="growth of the process",
    )
    for budget, name in ((RAM, "RAM budget"), (DEVICE, "device budget")):
        above.axhline(budget / MB, color="black", linewidth=0.8, linestyle="--")
        above.annotate(
            name, (0, budget / MB), textcoords="offset points", xytext=(2, 3), fontsize=8
        )
    above.set(ylabel="MB", title="What a bank holds in memory while a stream is written and asked")
    above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    below.plot(curve.hours, curve.write_ms, label="writing a segment")
    below.plot(curve.hours, curve.ask_ms, label="recalling for a question")
    below.set(xlabel="hours of video", ylabel="ms (median)", ylim=(0, None))
    below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(target, dpi=110)


def report(args: argparse.Namespace) -> None:
    """Play the stream, draw the plot, and print the largest sizes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        curve = stream(Path(folder), args.hours)
    draw(curve, args.picture)
    most = {
        "rows and frames in RAM": max(map(sum, zip(curve.index, curve.ram, strict=True))),
        "on the device": max(curve.device),
    }
    sizes = ", ".join(f"{name} at most {n / MB:.1f} MB" for name, n in most.items())
    grown = (curve.process[-1] - curve.process[len(curve.process) // 24]) / MB
    print(
        f"{curve.hours[-1]:.1f} h, {args.picture}: {sizes} (budgets {RAM / MB:g} and "
        f"{DEVICE / MB:g} MB)"
    )
    print(
        f"process: {grown:+.0f} MB since the first hour, of it search rows "
        f"{curve.index[-1] / MB:.0f} MB"
    )
    for name, ms in (("write", curve.write_ms), ("recall", curve.ask_ms)):
        print(f"{name}: {ms[0]:.1f} ms at first, {ms[-1]:.1f} ms at last (medians)")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--hours", type=float, default=24.0)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
