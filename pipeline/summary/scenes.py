"""The scenes of a film, from what its bank stores: cuts, and one vector for each scene.

A bank of segmenter=scene has cut the film already. Otherwise a cut is where two neighboring frames
are far less similar than the frames around them (SceneTilling of VideoLLaMB, arXiv 2409.01071).
Knows a bank; no words.
"""

from dataclasses import dataclass

import numpy as np

from encoders.segmenters import SceneCuts, depths
from memory.bank import MemoryBank
from memory.bank_catalog import frame_rows
from pipeline.summary.lex_rank import unit

_SCENE_SECONDS = 8.0  # of a film whose frames have no embeddings: a scene is a segment, or so long


@dataclass(frozen=True, slots=True)
class Scenes:
    """The scenes of a stretch of a film."""

    starts: tuple[float, ...]  # seconds, rising; the first is the beginning of the stretch
    # [n, E] unit row of each scene; None where the bank's frames have no embeddings
    rows: np.ndarray | None

    @property
    def cuts(self) -> tuple[float, ...]:
        """Seconds at which one scene ends and the next one begins; none where nobody looked."""
        return self.starts[1:] if self.rows is not None else ()


def scenes(bank: MemoryBank, video_id: str, start: float, end: float) -> Scenes:
    """The scenes from `start` to `end`, in seconds."""
    times, rows = frame_rows(bank.catalog, video_id, start, end)
    segments = bank.catalog.overlapping(video_id, start=start, end=end)
    if not len(times):
        starts = sorted({max(row.start, start) for row in segments})
        return Scenes(tuple(starts) or (start,), None)
    if "SceneCuts" in str(bank.provenance.get("segmenter")):
        inner = [row.start for row in segments if start < row.start < end]
    else:
        inner = [float(times[place]) for place in _cuts(rows)]
    starts = [start, *inner]
    places = [*np.searchsorted(times, starts[1:]).tolist(), len(times)]
    parts, first = [], 0
    kept: list[float] = []
    for begin, stop in zip(starts, places, strict=True):
        if stop > first:  # damaged segments leave scenes without a frame
            parts.append(unit(list(rows[first:stop])))
            kept.append(begin)
        first = stop
    return Scenes((start, *kept[1:]), np.stack(parts))


def _cuts(rows: np.ndarray) -> list[int]:
    """Numbers of the frames that begin a scene. rows: [T, E] unit."""
    if len(rows) < 3:
        return []
    similarity = np.einsum("te,te->t", rows[1:], rows[:-1])
    deep = depths(similarity)
    floor, spread = SceneCuts.floor, SceneCuts.spread
    threshold = max(float(deep.mean() + spread * deep.std(ddof=1)), floor)
    return [place + 1 for place in np.flatnonzero(deep >= threshold).tolist()]
