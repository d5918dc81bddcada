"""An inverted file over one block of rows, with codes of one byte per number, and its files beside
a bank.

Knows rows and FAISS; no video, no question's moment. Training depends only on the rows of the
block, so a visible block tells nothing about later rows. The files are a cache, named after the
checksum of the rows: a file that does not fit is trained again. FAISS is imported with the first
block: banks of less than 36 hours have none.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from memory.storage.atomic import make_folder, write_atomically
from memory.storage.checksums import of_bytes
from memory.storage.file_access import read_bytes

if TYPE_CHECKING:
    import faiss

N_LISTS = 256
# On rows of a film's frames, 16 of 256 lists gave recall 0.999 for texts and 0.995 for frames; 32
# gave 1.000 and 0.999 (docs/measurements)
N_PROBE = 32
# numbers of a code; wider rows are projected to this many axes first, so that ten million rows stay
# within 2 GiB
MAX_WIDTH = 128
_ITERATIONS, _ROWS_PER_LIST = 8, 64  # of k-means, and its training rows for every list
_AXES_ROWS = 1 << 13  # rows that the axes are computed from
_CHECKSUM_DIGITS = 32  # hexadecimal


class IvfBlock:
    """Searched approximately: only the N_PROBE lists nearest to the query are scanned."""

    def __init__(self, key: str, index: "faiss.Index", nbytes: int) -> None:
        import faiss

        self.key = key  # of its rows
        self.nbytes = nbytes
        self._index = index
        # how many candidates beyond k to score again: codes of a byte are off by a thousandth,
        # projected rows by more
        self.rerank_margin = 1000 if isinstance(index, faiss.IndexPreTransform) else 32

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @classmethod
    def train(cls, rows: np.ndarray) -> "IvfBlock":
        """rows: [n, E] float32. Equal rows give an equal block."""
        import faiss

        count, width = rows.shape
        projection, narrow = None, rows
        if width > MAX_WIDTH:
            projection = faiss.LinearTransform(width, MAX_WIDTH, False)
            faiss.copy_array_to_vector(_axes(rows, MAX_WIDTH).ravel(), projection.A)
            projection.is_trained = True
            narrow = projection.apply(rows)
        lists = _lists(
            faiss.IndexFlatIP(narrow.shape[1]), min(N_LISTS, max(count // _ROWS_PER_LIST, 1))
        )
        lists.train(narrow)
        _, nearest = lists.quantizer.search(narrow, 1)
        nonempty = np.unique(nearest)
        # in a still scene most lists would be empty, and would be probed instead of the one that is
        # not
        if len(nonempty) < lists.nlist:
            coarse = faiss.IndexFlatIP(narrow.shape[1])
            coarse.add(lists.quantizer.reconstruct_batch(nonempty))
            lists = _lists(coarse, len(nonempty))
            lists.train(narrow)
        lists.add(narrow)
        index = lists if projection is None else faiss.IndexPreTransform(projection, lists)
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


def _axes(rows: np.ndarray, count: int) -> np.ndarray:
    """[count, E] float32: the axes that keep most of the rows' inner products (no mean is
    subtracted)."""
    sample = torch.from_numpy(rows[:: max(1, len(rows) // _AXES_ROWS)]).double()
    # rising eigenvalues; numpy took ten times as long beside other work
    axes = torch.linalg.eigh(sample.T @ sample).eigenvectors
    return axes.flip(1)[:, :count].T.float().contiguous().numpy()


def key_of(rows: np.ndarray) -> str:
    """The name of a block of these rows: their checksum."""
    return of_bytes(np.ascontiguousarray(rows).tobytes())


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
