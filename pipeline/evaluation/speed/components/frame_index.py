"""The frame index alone: time from a question's text to hits, recall, and memory.

Rows come in pieces, and exact hits are computed on the way, so ten million rows need no memory but
the index's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from encoders.schema import FrameEmbedder
from memory.retrieval.frame_index import FrameIndex
from memory.retrieval.row_buffer import RamBudget
from pipeline.config.tasks.evaluation_settings import BenchSettings
from pipeline.evaluation.speed.clocks import quantile, resident_bytes, stopwatch
from pipeline.evaluation.speed.components import cone_rows, film_rows
from pipeline.evaluation.speed.schema import BenchRow, Table

HITS = 64
_PIECE = 1 << 13  # rows
_RAM = 512 << 20  # bytes of rows that stay in RAM, as the retriever has it
_NOISE = 0.3  # of a row's length: how far a query lies from what it is about


def measure(config: BenchSettings, embedder: FrameEmbedder) -> list[BenchRow]:
    """A row of the report for each number of rows and kind of rows."""
    rows: list[BenchRow] = []
    if not config.index_rows:
        return rows
    film: np.ndarray | None = None
    for count in config.index_rows:
        for kind in config.index_kinds:
            if kind in cone_rows.PUBLISHED:
                cones = cone_rows.ConeRows(cone_rows.PUBLISHED[kind], config.seed)
                vectors = cones.texts(config.queries + 2, count)  # two warm up
                asked = _QuerySet(vectors, [False] * len(vectors), None)
                rows.append(_measure_one(kind, count, embedder, asked, cones.pieces(count)))
                continue
            if film is None:
                film = film_rows.film_embeddings(embedder, config.index_frames, config.seed)
            pieces = (
                film_rows.repeated_rows(film, count, config.seed)
                if kind == "film"
                else _random(count, film.shape[1], config.seed)
            )
            texts = film_rows.question_texts(config.queries + 2, config.seed)
            asked = _QuerySet(*_queries(embedder, texts, film, config.seed), texts)
            rows.append(_measure_one(kind, count, embedder, asked, pieces))
    return rows


@dataclass(frozen=True, slots=True)
class _QuerySet:
    """n queries."""

    vectors: np.ndarray  # [n, E] float32 unit rows
    near: list[bool]  # which lie near a frame instead of being a text's
    texts: list[str] | None  # that are embedded; None: the vectors are made up


def _measure_one(
    kind: str, count: int, embedder: FrameEmbedder, asked: _QuerySet, pieces: Iterator[np.ndarray]
) -> BenchRow:
    queries, near, width = asked.vectors, asked.near, asked.vectors.shape[1]
    before = resident_bytes() or 0
    index, exact = FrameIndex(width, RamBudget(_RAM)), _ExactHits(queries)
    adding, longest = 0.0, 0.0
    for rows in pieces:
        with stopwatch() as took:
            index.add(torch.from_numpy(rows))
        adding, longest = adding + took.wall_s, max(longest, took.wall_s)
        exact.see(rows)
    del rows
    grew = (resident_bytes() or 0) - before
    embedding, searching, recalls = [], [], {"text": list[float](), "near": list[float]()}
    for number, vector in enumerate(queries):
        with stopwatch() as embedding_one:
            query = None if asked.texts is None else embedder.embed_text(asked.texts[number])
        if query is None or near[number]:
            query = torch.from_numpy(vector)
        with stopwatch() as searching_one:
            ordinals, _ = index.search(query, HITS, count)
        if number >= 2:
            embedding.append(embedding_one.wall_s)
            searching.append(searching_one.wall_s)
            recalls["near" if near[number] else "text"].append(exact.recall(number, ordinals))
    after = (resident_bytes() or 0) - before
    row: BenchRow = {
        "kind": "index",
        "rows_of": kind,
        "rows": count,
        "width": index.width,
        "approximate": index.is_approximate,
        "bytes": index.nbytes,
        "resident": grew,
        "resident_asked": after,
        "add_s": adding,
        "longest_add_s": longest,
    }
    index.release()
    return row | _quantiles(embedding, searching) | _recalls(recalls) | {"queries": len(searching)}


def _quantiles(embedding: list[float], searching: list[float]) -> BenchRow:
    whole = [a + b for a, b in zip(embedding, searching, strict=True)]
    row: BenchRow = {}
    for name, values in (("embed", embedding), ("search", searching), ("whole", whole)):
        row |= {f"{name}_p50_s": quantile(values, 0.5), f"{name}_p95_s": quantile(values, 0.95)}
    return row


def _recalls(recalls: dict[str, list[float]]) -> BenchRow:
    row: BenchRow = {}
    for name, shares in recalls.items():
        row |= {
            f"recall_{name}": float(np.mean(shares)) if shares else None,
            f"least_{name}": min(shares, default=None),
        }
    return row | {"recall": float(np.mean([*recalls["text"], *recalls["near"]]))}


def table(rows: Sequence[BenchRow]) -> Table:
    lines = []
    for row in rows:
        if row["kind"] == "index":
            times = [
                f"{1e3 * row[f'{n}_{p}_s']:.2f}"
                for n in ("embed", "search", "whole")
                for p in ("p50", "p95")
            ]
            shares = [_recall_cell(row[f"recall_{n}"], row[f"least_{n}"]) for n in ("text", "near")]
            sizes = [f"{row[name] / 1e6:.0f}" for name in ("bytes", "resident_asked")]
            adds = [f"{1e6 * row['add_s'] / row['rows']:.1f}", f"{row['longest_add_s']:.2f}"]
            name = f"{row['rows']:,} x {row['width']}, {row['rows_of']}"
            lines.append(
                [
                    name,
                    "lists" if row["approximate"] else "all",
                    *times,
                    *shares,
                    *sizes,
                    *adds,
                    str(row["queries"]),
                ]
            )
    head = [
        "rows",
        "looks at",
        *(f"{n} {p} ms" for n in ("embed text", "search", "text to hits") for p in ("p50", "p95")),
    ]
    head += [
        f"recall@{HITS} of texts (least)",
        "of what is near a row (least)",
        "MB",
        "MB resident",
        "us to add a row",
    ]
    words = (
        f"{HITS} hits, against exact products. film: frames of a film with cards, really embedded, "
        "that comes again and again, moved a little each time; random: no row is like another, "
        "which no film is. A third of their queries lie near a frame, the others are questions' "
        "texts. clip512 and siglip768: rows and texts made from what is published of such "
        "encoders. Resident: by how much the process grew, after the queries."
    )
    return Table("Index", words, [*head, "longest add s", "queries"], lines)


class _ExactHits:
    """The exact hits of each query, over rows that are seen once."""

    def __init__(self, queries: np.ndarray) -> None:
        """queries: [n, E] float32."""
        self._queries, self._seen = queries, 0
        self._scores = np.full((len(queries), HITS), -np.inf, np.float32)
        self._places = np.full((len(queries), HITS), -1, np.int64)

    def see(self, rows: np.ndarray) -> None:
        """Take the next rows: [T, E]."""
        scores = np.concatenate([self._scores, self._queries @ rows.T], axis=1)
        places = np.broadcast_to(
            np.arange(self._seen, self._seen + len(rows)), (len(self._queries), len(rows))
        )
        places = np.concatenate([self._places, places], axis=1)
        best = np.argpartition(-scores, HITS - 1, axis=1)[:, :HITS]
        self._scores, self._places = (
            np.take_along_axis(scores, best, 1),
            np.take_along_axis(places, best, 1),
        )
        self._seen += len(rows)

    def recall(self, query: int, ordinals: np.ndarray) -> float:
        """Share of a query's exact hits among these."""
        true = self._places[query][self._places[query] >= 0]
        return len(np.intersect1d(true, ordinals)) / len(true)


def _queries(
    embedder: FrameEmbedder, texts: list[str], film: np.ndarray, seed: int
) -> tuple[np.ndarray, list[bool]]:
    """[n, E] float32 unit rows, and which of them lie near a frame instead of being a text's."""
    rng, near = np.random.default_rng(seed), [number % 3 == 0 for number in range(len(texts))]
    queries = np.stack([embedder.embed_text(text).numpy() for text in texts])
    for number in np.flatnonzero(near):
        row = film[int(rng.integers(len(film)))]
        row = row + _NOISE / len(row) ** 0.5 * rng.standard_normal(len(row), dtype=np.float32)
        queries[number] = row / np.linalg.norm(row)
    return queries, near


def _random(count: int, width: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for first in range(0, count, _PIECE):
        rows = rng.standard_normal((min(_PIECE, count - first), width), dtype=np.float32)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _recall_cell(mean: float | None, least: float | None) -> str:
    return "" if mean is None or least is None else f"{mean:.3f} ({least:.2f})"
