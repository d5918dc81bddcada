"""Memory and time of laying stored keys out in a cache, and time of searching frames by their keys.

    python -m tests.measure.kv_layout [--rounds 5]

Random numbers of real shapes, one thread. The peak is that of the process (VmHWM, Linux) above its
size before the first call, with the cache's own buffers in place.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from encoders.models.kv_cache import FixedCache, KVShape, RotaryTable
from memory.retrieval.kv import KVRetriever
from memory.schema import Question, SegmentIndex, Stretch

# name -> shape, dtype, tokens of a context of 24 frames, frames that are searched
SHAPES = {
    "embedded": (KVShape(5, 2, 64), torch.float32, 24 * 23, 36_000),
    "Qwen2.5-VL-7B": (KVShape(28, 4, 128), torch.bfloat16, 24 * 144, 7_200),
    "Qwen3-VL-8B": (KVShape(36, 8, 128), torch.bfloat16, 24 * 160, 3_600),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| shape | lay out: peak MB | lay out, ms | take out, ms | search, ms |")
    print("|---|---|---|---|---|")
    for name in SHAPES:  # each in a process of its own, whose heap holds nothing yet
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            print(pool.submit(row, name, rounds).result(), flush=True)


def row(name: str, rounds: int) -> str:
    """The row of a shape."""
    torch.set_num_threads(1)
    shape, dtype, tokens, frames = SHAPES[name]
    peak, laid, taken = lay_out(shape, dtype, tokens, rounds)
    found = search(shape, frames, rounds)
    return f"| {name} | {peak / 1e6:.0f} | {laid} | {taken} | {found} |"


def lay_out(shape: KVShape, dtype: torch.dtype, tokens: int, rounds: int) -> tuple[int, str, str]:
    """Peak bytes and milliseconds of `append`, milliseconds of `stored`."""
    keys, values = (
        torch.randn(shape.layers, shape.heads, tokens, shape.width).to(dtype) for _ in range(2)
    )
    angles = torch.randn(tokens, shape.width // 2).repeat(1, 2)
    table = RotaryTable(angles.cos(), angles.sin(), False)
    cache = FixedCache.empty(
        shape.layers, shape.heads, tokens, shape.width, dtype, torch.device("cpu")
    )
    cache.keys.zero_()
    cache.values.zero_()

    def append() -> None:
        cache.rewind_to(0)
        cache.append(keys, values, table)

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _memory("VmRSS")
    append()
    peak = _memory("VmHWM") - before
    return peak, timed(append, rounds), timed(lambda: cache.stored(0, table, dtype), rounds)


def search(shape: KVShape, frames: int, rounds: int) -> str:
    """Milliseconds of a search in frames of random keys."""
    queries = torch.randn(1, shape.layers, shape.heads, shape.width)
    retriever = KVRetriever(queries=lambda text: queries)
    for first in range(0, frames, 900):
        means = torch.randn(900, shape.layers, shape.heads * shape.width)
        times = torch.arange(first, first + 900, dtype=torch.float64)
        retriever.add(SegmentIndex("v", first // 900, first, times, key_means=means))
    return timed(
        lambda: retriever.search(Question("x", "v"), 100, [Stretch("v", 0, frames)]), rounds
    )


def timed(call: Callable[[], object], rounds: int) -> str:
    """Median milliseconds, with the smallest and the largest."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


def _memory(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    main()
