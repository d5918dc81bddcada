"""An inverted file over one block of rows, and its files beside a bank.

Narrow rows take a byte per number. Rows of published encoders are wide and lie in a cone away from
texts (Liang et al. 2022, arXiv 2203.02053), and their best products with a text differ in the third
decimal. They take half a byte per number: a projection to fewer numbers loses more than that.

Knows rows and FAISS; no video, no question's moment. Training depends only on the rows of the
block, so a visible block tells nothing about later rows. The files are a cache, named after the
checksum of the rows: a file that does not fit is trained again. FAISS is imported with the first
block: banks of less than 36 hours have none.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memory.storage.atomic import make_folder, write_atomically
from memory.storage.checksums import of_bytes
from memory.storage.file_access import read_bytes

if TYPE_CHECKING:
    import faiss

NARROW = 128  # numbers of a row; one with more is wide
N_LISTS = 256
# On rows of a film's frames, 16 of 256 lists gave recall 0.999 for texts and 0.995 for frames; 32
# gave 1.000 and 0.999 (docs/measurements)
N_PROBE = 32
_ITERATIONS, _ROWS_PER_LIST = 8, 64  # of k-means, and its training rows for every list
# of wide rows: fewer lists, because finding the nearest of 256 takes seconds for a block
_WIDE_LISTS, _WIDE_PROBE, _WIDE_ROWS_PER_LIST = 128, 32, 32
_WIDE_RANGE_ROWS = 1 << 13  # that the ranges of the codes are computed from
_CHECKSUM_DIGITS = 32  # hexadecimal


class IvfBlock:
    """Searched approximately: only the N_PROBE lists nearest to the query are scanned."""

    def __init__(self, key: str, index: "faiss.Index", nbytes: int) -> None:
        self.key = key  # of its rows
        self.nbytes = nbytes
        self._index = index
        # how many candidates beyond k to score again: codes of a byte are off by a thousandth,
        # those of half a byte by more
        self.rerank_margin = 32 if index.d <= NARROW else 1000

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @classmethod
    def train(cls, rows: np.ndarray) -> "IvfBlock":
        """rows: [n, E] float32. Equal rows give an equal block."""
        import faiss

        index = _narrow_lists(rows) if rows.shape[1] <= NARROW else _wide_lists(rows)
        # serialized: while lists grow, FAISS allocates up to twice the memory
        return cls.unpacked(key_of(rows), faiss.serialize_index(index))

    @classmethod
    def unpacked(cls, key: str, data: np.ndarray) -> "IvfBlock":
        """The block that `packed` serialized. RuntimeError if FAISS cannot read it."""
        import faiss

        return cls(key, faiss.deserialize_index(data), data.size)

    def packed(self) -> bytes:
        """The bytes of the block's file, without the checksum."""
        import faiss

        data: np.ndarray = faiss.serialize_index(self._index)
        return data.tobytes()

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """At most k row numbers (int64) with approximately the largest products with the query, and
        these products, approximately (float32). query: [E] float32."""
        scores, rows = self._index.search(query[None], k)
        is_hit = rows[0] >= 0  # FAISS fills up with -1 if the lists have fewer rows
        return rows[0][is_hit], scores[0][is_hit]


def _narrow_lists(rows: np.ndarray) -> "faiss.IndexIVF":
    """The inverted file of narrow rows: by products, a byte a number."""
    import faiss

    count, width = rows.shape
    lists = _lists(faiss.IndexFlatIP(width), min(N_LISTS, max(count // _ROWS_PER_LIST, 1)))
    lists.train(rows)
    _, nearest = lists.quantizer.search(rows, 1)
    nonempty = np.unique(nearest)
    # in a still scene most lists would be empty, and would be probed instead of the one that is not
    if len(nonempty) < lists.nlist:
        coarse = faiss.IndexFlatIP(width)
        coarse.add(lists.quantizer.reconstruct_batch(nonempty))
        lists = _lists(coarse, len(nonempty))
        lists.train(rows)
    lists.add(rows)
    return lists


def _lists(coarse: "faiss.Index", count: int) -> "faiss.IndexIVF":
    """An inverted file with `count` lists; `coarse` may have their centroids."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_8bit
    # not by residual: that would need another lookup table for every list
    index = faiss.IndexIVFScalarQuantizer(
        coarse, coarse.d, count, kind, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = _ITERATIONS, _ROWS_PER_LIST, 1
    index.nprobe = N_PROBE
    return index


def _wide_lists(rows: np.ndarray) -> "faiss.IndexIVF":
    """The inverted file of wide rows: by distance, because in a cone the longest mean would have
    the largest products with all rows; half a byte a number."""
    import faiss

    count, width = rows.shape
    means = faiss.Kmeans(
        width,
        min(_WIDE_LISTS, max(count // _ROWS_PER_LIST, 1)),
        niter=_ITERATIONS,
        max_points_per_centroid=_WIDE_ROWS_PER_LIST,
        seed=1,
    )
    means.train(rows)
    _, nearest = means.index.search(rows, 1)  # [n, 1]
    # in a still scene most lists would be empty, and would be probed instead of the one that is not
    nonempty, list_of = np.unique(nearest, return_inverse=True)
    assert means.centroids is not None
    coarse = faiss.IndexFlatIP(width)
    coarse.add(means.centroids[nonempty])
    kind = faiss.ScalarQuantizer.QT_4bit
    lists = faiss.IndexIVFScalarQuantizer(
        coarse, width, len(nonempty), kind, faiss.METRIC_INNER_PRODUCT, False
    )
    lists.sq.train(np.ascontiguousarray(rows[:: max(1, count // _WIDE_RANGE_ROWS)]))
    lists.is_trained = True
    lists.nprobe = _WIDE_PROBE
    rows, numbers = np.ascontiguousarray(rows), np.arange(count)
    list_of = np.ascontiguousarray(list_of.ravel())
    lists.add_core(count, *map(faiss.swig_ptr, (rows, numbers, list_of)))
    return lists


def key_of(rows: np.ndarray) -> str:
    """The name of a block of these rows: their checksum. Blocks of wide rows that were saved in an
    older form have another name."""
    key = of_bytes(np.ascontiguousarray(rows).tobytes())
    return key if rows.shape[1] <= NARROW else of_bytes(f"{key} half a byte".encode())


def _sum(key: str, data: bytes) -> bytes:
    """Covers the name too: a file that was renamed is another block's."""
    return of_bytes(key.encode() + data).encode()


def save(folder: Path, blocks: Iterable[IvfBlock]) -> None:
    """Save these blocks and delete all others. OSError."""
    names = {f"{block.key}.ivf": block for block in blocks}
    if names:
        make_folder(folder)
    for name, block in names.items():
        if not (folder / name).exists():
            data = block.packed()
            write_atomically(folder / name, _sum(block.key, data) + data)
    for path in folder.glob("*.ivf"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def load(folder: Path, key: str) -> IvfBlock | None:
    """The saved block with this key; None if there is none or its file is damaged."""
    try:
        data = read_bytes(folder / f"{key}.ivf")
        if _sum(key, data[_CHECKSUM_DIGITS:]) != data[:_CHECKSUM_DIGITS]:
            return None
        return IvfBlock.unpacked(key, np.frombuffer(data, np.uint8, offset=_CHECKSUM_DIGITS))
    except (OSError, RuntimeError):
        # RuntimeError: written by a version of FAISS that this one cannot read
        return None
