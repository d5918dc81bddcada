"""A bank whose beginning goes: when its video was, how it is encoded, and how it is opened."""

from pathlib import Path
from typing import Any

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever

PROVENANCE = {"model": "m", "prefill": "WindowPrefill(dtype=bfloat16, window_frames=6)"}
NOON = 1_795_001_200.0
WHEN = "2026-11-18T12:26:40+01:00"  # NOON
OPTIONS = ("segmenter.seconds=2", "prefill.window_frames=5")
SECONDS = 16  # of the film


def opened(root: Path, retriever: Any = None, provenance: Any = PROVENANCE) -> MemoryBank:
    return MemoryBank.open(root, provenance, retriever or UniformRetriever(), recent_frames=2)
