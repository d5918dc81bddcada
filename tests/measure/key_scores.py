"""What each score of conf/block_score costs: bytes and time of a frame's row, and time of a search.

    python -m tests.measure.key_scores [--frames 800] [--rounds 3]

Random keys of real shapes, one thread, CPU time of this process. "each head" votes by softmax, and
so compares every query head apart.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from memory.retrieval.block_score.channel_subset import ChannelSubset
from memory.retrieval.block_score.hadamard_sketch import HadamardSketch
from memory.retrieval.block_score.key_centroids import KeyCentroids
from memory.retrieval.block_score.mean_key import MeanKey
from memory.retrieval.block_score.representative_keys import RepresentativeKeys
from memory.retrieval.block_score.schema import BlockScore
from memory.retrieval.kv import KVRetriever
from memory.schema import FrameKeys, Question, SegmentIndex, Stretch

# name -> layers, KV heads, query heads, width, tokens of a frame
SHAPES = {"embedded": (5, 2, 4, 64, 23), "0.6 B": (24, 2, 14, 64, 203)}
SCORES: dict[str, Callable[[], BlockScore]] = {
    "mean_key": MeanKey,
    "representative": RepresentativeKeys,
    "kmeans": KeyCentroids,
    "kmeans, keep=1": lambda: KeyCentroids(keep=1.0),
    "channel_subset": ChannelSubset,
    "hadamard": HadamardSketch,
    "hadamard, dot": lambda: HadamardSketch(distance="dot"),
}
SEGMENT = 8  # frames


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| shape | score | bytes a frame | row, ms a frame | search, ms | each head, ms |")
    print("|---" * 6 + "|")
    for shape in SHAPES:
        for name in SCORES:
            print(row(shape, name, args.frames, args.rounds), flush=True)


def row(shape: str, name: str, frames: int, rounds: int) -> str:
    """A line of the table."""
    layers, heads, query_heads, width, tokens = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(layers, heads, SEGMENT * tokens, width, generator=generator)
    offsets = torch.arange(SEGMENT + 1) * tokens
    means = keys.unflatten(2, (SEGMENT, tokens)).mean(3).permute(2, 0, 1, 3).flatten(2)
    own = FrameKeys(keys.bfloat16(), offsets, torch.arange(SEGMENT))
    index = SegmentIndex("v", 0, 0, torch.arange(float(SEGMENT)), None, means, {}, own)
    score = SCORES[name]()
    made = score.rows(index)
    assert made is not None
    making = timed(lambda: score.rows(index), rounds) / SEGMENT
    queries = torch.randn(12, layers, query_heads, width, generator=generator)
    searches = []
    for vote in ("head", "softmax"):
        retriever = KVRetriever(queries=lambda text: queries, block_score=score, normalize=vote)
        for number in range(frames // SEGMENT):
            times = number * SEGMENT + torch.arange(float(SEGMENT))
            retriever.add(SegmentIndex("v", number, number * SEGMENT, times, None, means, {}, own))
        whole = [Stretch("v", 0, retriever.frame_count("v"))]
        searches.append(timed(partial(retriever.search, Question("x", "v"), 24, whole), rounds))
    nbytes = made.shape[1] * made.shape[2] * np.dtype(score.dtype).itemsize
    cells = (shape, name, nbytes, f"{making:.2f}", *(f"{each:.0f}" for each in searches))
    return "| " + " | ".join(map(str, cells)) + " |"


def timed(call: Callable[[], object], rounds: int) -> float:
    """Median milliseconds of CPU time."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - began))
    return statistics.median(times)


if __name__ == "__main__":
    main()
