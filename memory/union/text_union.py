"""The lines of several banks as one, for reading: a search counts and ranks over all of them.

Ids of lines tell the bank: those of the bank with number n begin at n << 54, above all that one
bank gives (memory/text/rows.py). So lines come in the order of the banks, then in that of their own
bank, as if the films of the first bank had been added before those of the second one. Knows rows
and vectors; no ranking.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from encoders.text.lines import TextBlock, TextLine
from memory.text.rows import BlockRow, RunRow, TextRows
from memory.text.store import TextGap, TextStore
from memory.text.vectors import TextVectors
from memory.union.video_places import VideoPlaces

_RUN_BITS = 22  # runs of one bank: four million
_LINE_BITS = 32 + _RUN_BITS


class RowsUnion(TextRows):
    """Runs, blocks and lines of all banks."""

    def __init__(self, rows: Sequence[TextRows], places: VideoPlaces) -> None:
        self._rows, self._places = tuple(rows), places

    def state(self) -> tuple[int, ...]:
        return tuple(part for rows in self._rows for part in rows.state())

    @property
    def has_text(self) -> bool:
        return any(rows.has_text for rows in self._rows)

    def runs(self, video_id: str | None = None) -> list[RunRow]:
        if video_id is not None:
            place = self._places.of(video_id)
            return [_run_outside(place, run) for run in self._rows[place].runs(video_id)]
        runs = [
            _run_outside(place, run)
            for place, rows in enumerate(self._rows)
            for run in self.own_runs(place, rows.runs())
        ]
        return sorted(runs, key=lambda run: (run.video_id, run.extractor))

    def blocks(self, run: RunRow) -> list[BlockRow]:
        place, own = _run_inside(run)
        return [_block_moved(row, place) for row in self._rows[place].blocks(own)]

    def block(self, run: RunRow, row: BlockRow) -> TextBlock:
        place, own = _run_inside(run)
        return self._rows[place].block(own, _block_moved(row, -place))

    def lines(self, ids: Sequence[int]) -> dict[int, TextLine]:
        lines: dict[int, TextLine] = {}
        for place, rows in enumerate(self._rows):
            begin = place << _LINE_BITS
            own = [id_ - begin for id_ in ids if id_ >> _LINE_BITS == place]
            lines |= {begin + id_: line for id_, line in rows.lines(own).items()}
        return lines

    def search_ids(
        self,
        match: str,
        ids: range | None = None,
        known_by: float = math.inf,
        during: tuple[float, float] = (0.0, math.inf),
        *,
        most: int,
    ) -> list[int]:
        found: list[int] = []
        for place, own in self._ranges(ids):
            if len(found) == most:
                break
            part = self._rows[place].search_ids(
                match, own, known_by, during, most=most - len(found)
            )
            found += [(place << _LINE_BITS) + id_ for id_ in part]
        return found

    def count(self, ids: range | None = None, known_by: float = math.inf) -> int:
        return sum(self._rows[place].count(own, known_by) for place, own in self._ranges(ids))

    def visible(self, place: int) -> list[range] | None:
        """Ids of the lines that a bank gives, ascending, as that bank names them; None: all."""
        if not self._places.hidden(place):
            return None
        runs = self.own_runs(place, self._rows[place].runs())
        return [run.ids for run in sorted(runs, key=lambda run: run.id)]

    def own_runs(self, place: int, runs: Sequence[RunRow]) -> list[RunRow]:
        """The runs of the videos that a bank gives."""
        hidden = self._places.hidden(place)
        return [run for run in runs if run.video_id not in hidden]

    def _ranges(self, ids: range | None) -> Iterator[tuple[int, range | None]]:
        """Bank by bank, the ids that are meant, as that bank names them."""
        if ids is not None:
            place = ids.start >> _LINE_BITS
            yield place, _moved(ids, -place)
            return
        for place, rows in enumerate(self._rows):
            if rows.has_text:
                own = self.visible(place)
                yield from ((place, each) for each in (own if own is not None else [None]))


class VectorsUnion(TextVectors):
    """Vectors of the lines of all banks."""

    def __init__(self, vectors: Sequence[TextVectors], rows: RowsUnion) -> None:
        self._vectors, self._rows = tuple(vectors), rows

    @property
    def made_with(self) -> str | None:
        return next(filter(None, (vectors.made_with for vectors in self._vectors)), None)

    @property
    def nbytes(self) -> int:
        return sum(vectors.nbytes for vectors in self._vectors)

    def require_model(self, made_with: str) -> None:
        for vectors in self._vectors:
            vectors.require_model(made_with)

    def missing(self, video_id: str) -> Iterator[tuple[RunRow, BlockRow]]:
        for run in self._rows.runs(video_id):
            place, _ = _run_inside(run)
            for own, row in self._vectors[place].missing(video_id):
                if own.extractor == run.extractor:
                    yield run, _block_moved(row, place)

    def read(self, run: RunRow, row: BlockRow) -> np.ndarray | None:
        place, own = _run_inside(run)
        return self._vectors[place].read(own, _block_moved(row, -place))

    def search(
        self, query: np.ndarray, k: int, among: Sequence[range] | None = None
    ) -> tuple[Sequence[int], Sequence[float]]:
        found: list[tuple[float, int]] = []
        for place, vectors in enumerate(self._vectors):
            own = self._rows.visible(place)
            if among is not None:
                own = [_moved(ids, -place) for ids in among if ids.start >> _LINE_BITS == place]
            if own == []:
                continue
            ids, scores = vectors.search(query, k, own)
            begin = place << _LINE_BITS
            found += [(-score, begin + id_) for id_, score in zip(ids, scores, strict=True)]
        best = sorted(found)[:k]
        return [id_ for _, id_ in best], [-score for score, _ in best]

    def count(self) -> int:
        if all(self._rows.visible(place) is None for place in range(len(self._vectors))):
            return sum(vectors.count() for vectors in self._vectors)
        lacking = sum(
            row.lines
            for video_id in {run.video_id for run in self._rows.runs()}
            for _, row in self.missing(video_id)
        )
        return (self._rows.count() if self._rows.has_text else 0) - lacking


class TextUnion(TextStore):
    """The text of all banks."""

    def __init__(self, stores: Sequence[TextStore], places: VideoPlaces) -> None:
        self._stores, self._places = tuple(stores), places
        self.rows = rows = RowsUnion([store.rows for store in stores], places)
        self.vectors = VectorsUnion([store.vectors for store in stores], rows)

    def missing(self, video_id: str, extractor: str) -> list[TextGap]:
        return self._stores[self._places.of(video_id)].missing(video_id, extractor)

    def nbytes(self, video_id: str) -> int:
        return self._stores[self._places.of(video_id)].nbytes(video_id)


def _run_outside(place: int, run: RunRow) -> RunRow:
    """A run of one bank as the union names it."""
    return replace(run, id=(place << _RUN_BITS) + run.id)


def _run_inside(run: RunRow) -> tuple[int, RunRow]:
    """The number of the bank, and the run as that bank names it."""
    place = run.id >> _RUN_BITS
    return place, replace(run, id=run.id - (place << _RUN_BITS))


def _block_moved(row: BlockRow, places: int) -> BlockRow:
    """A block whose lines have the ids of so many banks later."""
    by = places << _LINE_BITS
    return replace(row, first_id=row.first_id + by, stop_id=row.stop_id + by)


def _moved(ids: range, places: int) -> range:
    by = places << _LINE_BITS
    return range(ids.start + by, ids.stop + by)
