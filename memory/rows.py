"""Rows that grow at the end, in blocks, within a budget of RAM.

Knows nothing of what a row means. Blocks never move, so a search reads while a writer appends. Beyond the budget new
blocks live in an unlinked temporary file that is mapped (TMPDIR says where): slower when cold, but RAM stays bounded at
any stream length (law 6), and nothing is left behind when the process ends.
"""

import math
import tempfile
import threading
from collections.abc import Iterator

import numpy as np

_BLOCK = 1024  # rows


class RamBudget:
    """Bytes that may be held in RAM, shared by the rows of several videos."""

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> bool:
        """Whether so many bytes were still free; if so, they are taken."""
        with self._lock:
            fits = nbytes <= self._left
            self._left -= nbytes if fits else 0
        return fits

    def give_back(self, nbytes: int) -> None:
        with self._lock:
            self._left += nbytes


class Rows:
    """[n, *shape] float16. Half the bytes of float32: keys need range (Qwen biases reach hundreds), not digits."""

    def __init__(self, shape: tuple[int, ...], budget: RamBudget) -> None:
        self.shape = shape
        self._budget = budget
        self._blocks: list[np.ndarray] = []  # each [_BLOCK, *shape]
        self._count = 0
        self.nbytes = 0  # in RAM, taken from the budget

    def __len__(self) -> int:
        return self._count

    def append(self, rows: np.ndarray) -> None:
        """Add rows: [T, *shape]. One thread at a time."""
        done = 0
        while done < len(rows):
            at = (self._count + done) % _BLOCK
            if at == 0:
                self._blocks.append(self._new_block())
            part = rows[done : done + _BLOCK - at]
            self._blocks[-1][at : at + len(part)] = part
            done += len(part)
        self._count += done  # last: whoever reads the count finds the rows there

    def blocks(self, stop: int) -> Iterator[np.ndarray]:
        """Rows 0..stop-1 as they are held, block by block: [<= 1024, *shape] float16."""
        for at in range(0, stop, _BLOCK):
            yield self._blocks[at // _BLOCK][: stop - at]

    def part(self, first: int, stop: int) -> np.ndarray:
        """Rows first..stop-1 as they are held: [stop - first, *shape] float16."""
        places = range(first // _BLOCK, -(-stop // _BLOCK))
        cuts = [self._blocks[i][max(first - i * _BLOCK, 0) : stop - i * _BLOCK] for i in places]
        return np.concatenate(cuts)

    def release(self) -> None:
        """Give the budget back. The rows are not used afterwards."""
        self._budget.give_back(self.nbytes)
        self.nbytes = 0

    def _new_block(self) -> np.ndarray:
        shape = (_BLOCK, *self.shape)
        nbytes = 2 * math.prod(shape)
        if self._budget.take(nbytes):
            self.nbytes += nbytes
            return np.empty(shape, np.float16)
        with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive after it is closed
            return np.memmap(file, np.float16, "w+", shape=shape)
