"""Banks of made-up segments, and what a recall must hold to."""

from pathlib import Path
from typing import Any

import numpy as np

from encoders.schema import Segment
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Evidence
from tests.support.records import same

PROVENANCE: dict[str, str | int | float | None] = {"model": "m", "fps": 1.0, "quantisation": None}


def opened(root: Path, retriever: Any = None, **options: Any) -> MemoryBank:
    options = {"recent_frames": 2} | options
    return MemoryBank.open(root, PROVENANCE, retriever or UniformRetriever(), **options)


def ordinals(evidence: Evidence) -> list[int]:
    return [ordinal for run in evidence.runs for ordinal in run.ordinals]


def spent(evidence: Evidence) -> int:
    return sum(len(run.tokens.tokens) for run in evidence.runs)


def check(evidence: Evidence, video: list[Segment], read_tokens: int) -> None:
    """What holds for every evidence. The frames are those of the segments, bit by bit, in time
    order and without repeats. None comes after the question's moment, and all fit the budget.
    Whatever is cited was there.
    """
    frames = ordinals(evidence)
    assert frames == sorted(set(frames)) and evidence.frame_count == len(frames)
    assert spent(evidence) <= read_tokens
    edges = np.cumsum([0, *(len(segment) for segment in video)]).tolist()
    for run in evidence.runs:
        segment, at = video[run.segment], run.first - edges[run.segment]
        stop = at + len(run.ordinals)
        assert same(run.tokens, segment.tokens.frames(at, stop))
        assert run.kv is None or (
            segment.kv is not None and same(run.kv, segment.kv.frames(at, stop))
        )
        assert run.tokens.times.max() <= evidence.question.asked_at
    if evidence.per_layer is not None:
        assert set(evidence.per_layer.flatten().tolist()) <= set(range(len(frames)))
        for layer in evidence.per_layer.tolist():
            assert layer == sorted(set(layer))
            assert set(range(len(frames))[len(frames) - evidence.recent :]) <= set(layer)
