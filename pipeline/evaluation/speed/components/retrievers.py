"""Adding to and searching retrievers alone."""

from collections.abc import Sequence

import numpy as np
import torch

from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.schema import Segment
from memory.schema import Question, Retriever, SegmentIndex, Stretch
from pipeline.config.parts import call, instantiate
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed.clocks import quantile, stopwatch
from pipeline.evaluation.speed.components.frame_index import HITS
from pipeline.evaluation.speed.rounds import question
from pipeline.evaluation.speed.schema import BenchRow, Recompose, Table
from pipeline.frame_embedder import build_clip
from pipeline.query.batched import BatchedQueries, BatchedTextEmbedder

_SEGMENT = 8  # frames of a synthetic segment, about the segmenter's length
_CHUNK = 8192  # synthetic rows at a time


def _random_rows(count: int, width: int, seed: int) -> np.ndarray:
    """[count, width] float32 unit rows: scenes of 30 similar frames, as in a film."""
    rng = np.random.default_rng(seed)
    scenes = rng.standard_normal((count // 30 + 1, width), dtype=np.float32)
    rows = np.repeat(scenes, 30, axis=0)[:count]
    for a in range(0, count, _CHUNK):
        part_ = rows[a : a + _CHUNK]
        part_ += 0.6 * rng.standard_normal(part_.shape, dtype=np.float32)
        part_ /= np.linalg.norm(part_, axis=1, keepdims=True)
    return rows


def measure(
    config: BenchSettings, backbone: LlavaOneVision, recompose: Recompose, like: Segment
) -> list[BenchRow]:
    """Each retriever over so many frames, asked as a question asks it."""
    rows: list[BenchRow] = []
    for name in ("uniform", "clip", "kv", "fused"):
        own = recompose([f"retriever={name}"])
        for count in config.retriever_rows:
            partners = {
                "embedder": BatchedTextEmbedder(build_clip(own)),
                "queries": BatchedQueries(backbone.language_model.queries_of),
            }
            retriever: Retriever = call(
                "retriever", instantiate("retriever", own.retriever), **partners
            )
            _feed(retriever, count, like, config.seed)
            frames = [Stretch("made", 0, count)]
            times = []
            for number in range(config.queries + 2):
                with stopwatch() as took:
                    retriever.search(Question(question(number), "made"), HITS, frames)
                if number >= 2:
                    times.append(took.wall_s)
            row: BenchRow = {
                "kind": "retriever",
                "retriever": name,
                "rows": count,
                "bytes": retriever.nbytes,
            }
            rows.append(
                row
                | {
                    "p50_s": quantile(times, 0.5),
                    "p95_s": quantile(times, 0.95),
                    "queries": len(times),
                }
            )
            retriever.forget("made")
    return rows


def _feed(retriever: Retriever, count: int, like: Segment, seed: int) -> None:
    """Add synthetic frames with the shapes of a real segment."""
    clip = torch.from_numpy(_random_rows(count, like.clip.shape[1], seed))
    for first in range(0, count, _SEGMENT):
        stop = min(first + _SEGMENT, count)
        means = None
        if like.key_means is not None:
            generator = torch.Generator().manual_seed(first)
            means = torch.randn((stop - first, *like.key_means.shape[1:]), generator=generator)
        times = torch.arange(first, stop, dtype=torch.float64)
        retriever.add(
            SegmentIndex("made", first // _SEGMENT, first, times, clip[first:stop], means)
        )


def table(rows: Sequence[BenchRow]) -> Table:
    lines = [
        [
            row["retriever"],
            f"{row['rows']:,}",
            f"{1e3 * row['p50_s']:.2f}",
            f"{1e3 * row['p95_s']:.2f}",
            f"{row['bytes'] / 1e6:.1f}",
        ]
        for row in rows
        if row["kind"] == "retriever"
    ]
    words = (
        f"From the question's text to {HITS} frames, embedding or queries included, none of it "
        "kept between questions."
    )
    return Table(
        "Retrievers", words, ["retriever", "frames", "p50 ms", "p95 ms", "MB of rows"], lines
    )
