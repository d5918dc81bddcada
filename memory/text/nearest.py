"""Lines of text whose vectors are nearest to a question's: the same in other words. Knows rows and vectors, no model.

A line that lacks what is line_filter of it (its kind, its time, that it was known by then) is passed over: the search looks deeper
until enough are left. No look-ahead: a line's vector depends on that line alone, so one that comes later changes no score.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memory.text.bm25 import LineFilter, RankedLine
from memory.text.rows import TextRows
from memory.text.vectors import TextVectors

MIN_COSINE = 0.3  # cosine: below it two sentences have nothing to do with each other


def search(
    rows: TextRows, vectors: TextVectors, query: np.ndarray, line_filter: LineFilter, most: int
) -> list[RankedLine]:
    """At most so many lines, best first; equal ones by id. query: [E] unit. score: the cosine."""
    if not rows.has_text:
        return []
    among = _among(rows, line_filter)
    deep = most if not _is_selective(line_filter) else 4 * most
    while True:
        ids, scores = vectors.search(query, deep, among)
        lines = rows.lines(ids)
        found = []
        for id_, score in zip(ids, scores, strict=True):
            line = lines.get(id_)
            if (
                line is None
                or score < MIN_COSINE
                or not _passes(line.kind, line.start, line.end, line.known, line_filter)
            ):
                continue
            if line_filter.within and not _is_within(
                line.start, line.end, line_filter.within.get(line.video_id, (0.0, 0.0))
            ):
                continue
            end = min(line.end, line_filter.asked_at)
            found.append(
                RankedLine(replace(line, end=end), score, min(score, 1.0), line.start, end)
            )
        if len(found) >= most or len(ids) < deep or scores[-1] < MIN_COSINE:
            return found[:most]
        deep *= 4


def _among(rows: TextRows, line_filter: LineFilter) -> Sequence[range] | None:
    """Ids of the lines of the videos that are asked for."""
    if line_filter.video_id is not None:
        return [run.ids for run in rows.runs(line_filter.video_id)]
    if line_filter.within:
        return [run.ids for video_id in sorted(line_filter.within) for run in rows.runs(video_id)]
    return None


def _is_selective(line_filter: LineFilter) -> bool:
    return bool(line_filter.kinds or line_filter.within) or (
        line_filter.start,
        line_filter.end,
        line_filter.asked_at,
    ) != (
        0.0,
        math.inf,
        math.inf,
    )


def _passes(kind: str, start: float, end: float, known: float, line_filter: LineFilter) -> bool:
    if line_filter.kinds and kind not in line_filter.kinds:
        return False
    return known <= line_filter.asked_at and _is_within(
        start, end, (line_filter.start, line_filter.end)
    )


def _is_within(start: float, end: float, span: tuple[float, float]) -> bool:
    return start < span[1] and end > span[0]
