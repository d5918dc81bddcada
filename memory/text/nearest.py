"""Text lines whose vectors are nearest to a question's: the same meaning in other words.

Knows rows and vectors, no model. Lines that the filter excludes are skipped, and the search goes
deeper until enough are left. No look-ahead: a line's vector depends on that line alone, so later
lines change no score.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memory.text.bm25 import LineFilter, RankedLine
from memory.text.rows import TextRows
from memory.text.vectors import TextVectors

MIN_COSINE = 0.3  # two sentences with a lower cosine are unrelated


def search(
    rows: TextRows,
    vectors: TextVectors,
    query: np.ndarray,
    line_filter: LineFilter,
    most: int,
    least: float = MIN_COSINE,
) -> list[RankedLine]:
    """The best lines, at most `most`, best first; ties by id. `score` is the cosine.
    query: [E] unit. least: lines with a lower cosine are left out."""
    if not rows.has_text:
        return []
    among = _ids(rows, line_filter)
    depth = 4 * most if _is_selective(line_filter) else most
    while True:
        ids, scores = vectors.search(query, depth, among)
        lines = rows.lines(ids)
        ranked = []
        for id_, score in zip(ids, scores, strict=True):
            line = lines.get(id_)
            if line is None or score < least or not line_filter.passes(line):
                continue
            end = min(line.end, line_filter.moment(line.video_id))
            line = replace(line, end=end)
            ranked.append(RankedLine(line, score, min(score, 1.0), line.start, end))
        if len(ranked) >= most or len(ids) < depth or scores[-1] < least:
            return ranked[:most]
        depth *= 4


def _ids(rows: TextRows, line_filter: LineFilter) -> Sequence[range] | None:
    """Ids of the lines of the filter's videos; None: all videos."""
    if line_filter.video_id is not None:
        return [run.ids for run in rows.runs(line_filter.video_id)]
    if line_filter.within:
        return [run.ids for video_id in sorted(line_filter.within) for run in rows.runs(video_id)]
    return None


def _is_selective(line_filter: LineFilter) -> bool:
    times = (line_filter.start, line_filter.end, line_filter.asked_at)
    return bool(line_filter.kinds or line_filter.within) or times != (0.0, math.inf, math.inf)
