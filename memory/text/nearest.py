"""Lines of text whose vectors are nearest to a question's: the same in other words. Knows rows and vectors, no model.

A line that lacks what is wanted of it (its kind, its time, that it was known by then) is passed over: the search looks deeper
until enough are left. No look-ahead: a line's vector depends on that line alone, so one that comes later changes no score.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memory.text.bm25 import Found, Wanted
from memory.text.rows import TextRows
from memory.text.vectors import TextVectors

LEAST = 0.3  # cosine: below it two sentences have nothing to do with each other


def search(
    rows: TextRows, vectors: TextVectors, query: np.ndarray, wanted: Wanted, most: int
) -> list[Found]:
    """At most so many lines, best first; equal ones by id. query: [E] unit. score: the cosine."""
    if not rows.there:
        return []
    among = _among(rows, wanted)
    deep = most if not _picky(wanted) else 4 * most
    while True:
        ids, scores = vectors.search(query, deep, among)
        lines = rows.lines(ids)
        found = []
        for id_, score in zip(ids, scores, strict=True):
            line = lines.get(id_)
            if (
                line is None
                or score < LEAST
                or not _is_wanted(line.kind, line.start, line.end, line.known, wanted)
            ):
                continue
            if wanted.within and not _is_within(
                line.start, line.end, wanted.within.get(line.video_id, (0.0, 0.0))
            ):
                continue
            end = min(line.end, wanted.asked_at)
            found.append(Found(replace(line, end=end), score, min(score, 1.0), line.start, end))
        if len(found) >= most or len(ids) < deep or scores[-1] < LEAST:
            return found[:most]
        deep *= 4


def _among(rows: TextRows, wanted: Wanted) -> Sequence[range] | None:
    """Ids of the lines of the videos that are asked for."""
    if wanted.video_id is not None:
        return [run.ids for run in rows.runs(wanted.video_id)]
    if wanted.within:
        return [run.ids for video_id in sorted(wanted.within) for run in rows.runs(video_id)]
    return None


def _picky(wanted: Wanted) -> bool:
    return bool(wanted.kinds or wanted.within) or (wanted.start, wanted.end, wanted.asked_at) != (
        0.0,
        math.inf,
        math.inf,
    )


def _is_wanted(kind: str, start: float, end: float, known: float, wanted: Wanted) -> bool:
    if wanted.kinds and kind not in wanted.kinds:
        return False
    return known <= wanted.asked_at and _is_within(start, end, (wanted.start, wanted.end))


def _is_within(start: float, end: float, span: tuple[float, float]) -> bool:
    return start < span[1] and end > span[0]
