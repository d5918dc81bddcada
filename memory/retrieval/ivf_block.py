"""A sealed block of rows: an inverted file over them alone, with codes of a byte a number, and the files that keep it beside a
bank.

Knows rows and FAISS; no video, no question's moment. What is trained depends on the rows of the block and on nothing else, so a
block that is in sight as a whole tells nothing of what comes after it. A file is a cache: it is named after the checksum of the
rows, whatever does not fit is trained again.
"""

from collections.abc import Iterable
from pathlib import Path

import faiss
import numpy as np
import torch

from memory.storage.atomic import make_folder, write_atomically
from memory.storage.checksums import of_bytes

LISTS = 256
# On rows of a film's frames (docs/measurements) 16 lists of 256 gave recall 0.999 for texts and 0.995 for frames, 32 gave 1.000 and 0.999
PROBED = 32
# numbers of a code; wider rows are turned onto so many axes first, so that ten million stay within 2 GiB
WIDEST = 128
_ROUNDS, _EACH = 8, 64  # of k-means, and rows that it looks at for every list
_SEEN = 1 << 13  # rows that the axes are found from
_SUM = 32  # hex digits


class Sealed:
    """Searched approximately: some of its lists are looked into, those nearest to the query."""

    def __init__(self, key: str, index: faiss.Index, nbytes: int) -> None:
        self.key = key  # of its rows
        self.nbytes = nbytes
        self._index = index
        # what is worth being scored again beyond what is wanted: a byte a dimension is off by a thousandth, axes by more
        self.spare = 1000 if isinstance(index, faiss.IndexPreTransform) else 32

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @classmethod
    def train(cls, rows: np.ndarray) -> "Sealed":
        """Of rows: [n, E] float32. The same rows give the same block."""
        count, width = rows.shape
        turn, narrow = None, rows
        if width > WIDEST:
            turn = faiss.LinearTransform(width, WIDEST, False)
            faiss.copy_array_to_vector(_axes(rows, WIDEST).ravel(), turn.A)
            turn.is_trained = True
            narrow = turn.apply(rows)
        lists = _lists(faiss.IndexFlatIP(narrow.shape[1]), min(LISTS, max(count // _EACH, 1)))
        lists.train(narrow)
        _, nearest = lists.quantizer.search(narrow, 1)
        used = np.unique(nearest)
        # of a still scene most would be empty, and looked into instead of the one that is not
        if len(used) < lists.nlist:
            coarse = faiss.IndexFlatIP(narrow.shape[1])
            coarse.add(lists.quantizer.reconstruct_batch(used))
            lists = _lists(coarse, len(used))
            lists.train(narrow)
        lists.add(narrow)
        index = lists if turn is None else faiss.IndexPreTransform(turn, lists)
        # while lists grow FAISS takes up to twice the room
        return cls.unpacked(key_of(rows), faiss.serialize_index(index))

    @classmethod
    def unpacked(cls, key: str, data: np.ndarray) -> "Sealed":
        """Of what `packed` gave. RuntimeError where FAISS does not know it."""
        return cls(key, faiss.deserialize_index(data), data.size)

    def packed(self) -> bytes:
        """As a file has it."""
        data: np.ndarray = faiss.serialize_index(self._index)
        return data.tobytes()

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """At most k places int64 within the block with about the largest products with [E] float32, and these products, about:
        float32."""
        scores, places = self._index.search(query[None], k)
        there = places[0] >= 0  # fewer were in the lists
        return places[0][there], scores[0][there]


def _lists(coarse: faiss.Index, count: int) -> faiss.IndexIVF:
    """An inverted file of so many lists; `coarse` may have their centroids."""
    kind = faiss.ScalarQuantizer.QT_8bit
    # not by residual: a query would be compared with another table for every list
    index = faiss.IndexIVFScalarQuantizer(
        coarse, coarse.d, count, kind, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = _ROUNDS, _EACH, 1
    index.nprobe = PROBED
    return index


def _axes(rows: np.ndarray, count: int) -> np.ndarray:
    """[count, E] float32: the axes that keep the most of the rows' products, so not of what differs from their mean."""
    some = torch.from_numpy(rows[:: max(1, len(rows) // _SEEN)]).double()
    # rising; numpy's took ten times as long beside other work
    axes = torch.linalg.eigh(some.T @ some).eigenvectors
    return axes.flip(1)[:, :count].T.float().contiguous().numpy()


def key_of(rows: np.ndarray) -> str:
    """What a block of these rows is called."""
    return of_bytes(np.ascontiguousarray(rows).tobytes())


def save(folder: Path, blocks: Iterable[Sealed]) -> None:
    """Keep these blocks and no others. OSError."""
    names = {f"{block.key}.ivf": block for block in blocks}
    if names:
        make_folder(folder)
    for name, block in names.items():
        if not (folder / name).exists():
            data = block.packed()
            write_atomically(folder / name, of_bytes(data).encode() + data)
    for path in folder.glob("*.ivf"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def load(folder: Path, key: str) -> Sealed | None:
    """The block of these rows, None where it is not kept or not as it was written."""
    try:
        data = (folder / f"{key}.ivf").read_bytes()
        if of_bytes(data[_SUM:]).encode() != data[:_SUM]:
            return None
        return Sealed.unpacked(key, np.frombuffer(data, np.uint8, offset=_SUM))
    except (OSError, RuntimeError):
        # RuntimeError: written by a FAISS that this one does not understand
        return None
