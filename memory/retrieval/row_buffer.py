"""Rows that grow at the end, in blocks, within a budget of RAM.

Knows nothing of what a row means. Blocks never move, so a search reads while a writer appends. Beyond the budget new
blocks live in an unlinked temporary file that is mapped (TMPDIR says where): slower when cold, but RAM stays bounded at
any stream length (law 6), and nothing is left behind when the process ends. What was read of a mapped block is let go at
once, else the process would seem to hold all that it ever read.
"""

import math
import mmap
import tempfile
import threading
from collections.abc import Iterator
from itertools import pairwise

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
    """[n, *shape] float16, or as `dtype` says. Half the bytes of float32: keys need range (Qwen biases reach hundreds), not
    digits."""

    def __init__(
        self, shape: tuple[int, ...], budget: RamBudget, dtype: type[np.floating] = np.float16
    ) -> None:
        self.shape = shape
        self.block = _BLOCK  # rows that lie together
        self._budget, self._dtype = budget, np.dtype(dtype)
        self._blocks: list[np.ndarray] = []  # each [_BLOCK, *shape]
        self._maps: list[mmap.mmap | None] = []  # what each lies in, None: RAM
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
                self._add_block()
            part = rows[done : done + _BLOCK - at]
            self._blocks[-1][at : at + len(part)] = part
            done += len(part)
            if at + len(part) == _BLOCK:
                self._let_go(len(self._blocks) - 1)
        self._count += done  # last: whoever reads the count finds the rows there

    def blocks(self, stop: int, first: int = 0) -> Iterator[np.ndarray]:
        """Rows first..stop-1 as they are held, block by block: [<= 1024, *shape]. A block is to be used before the next one
        is asked for."""
        for place in range(first // _BLOCK, -(-stop // _BLOCK)):
            yield self._blocks[place][max(first - place * _BLOCK, 0) : stop - place * _BLOCK]
            self._let_go(place)

    def part(self, first: int, stop: int) -> np.ndarray:
        """Rows first..stop-1 as they are held: [stop - first, *shape]."""
        found = np.empty((stop - first, *self.shape), self._dtype)
        at = 0
        for block in self.blocks(stop, first):
            found[at : at + len(block)] = block
            at += len(block)
        return found

    def take(self, places: np.ndarray) -> np.ndarray:
        """The rows at these places, rising: [len(places), *shape]."""
        found = np.empty((len(places), *self.shape), self._dtype)
        blocks, firsts = np.unique(places // _BLOCK, return_index=True)
        for block, (a, b) in zip(
            blocks.tolist(), pairwise([*firsts.tolist(), len(places)]), strict=True
        ):
            found[a:b] = self._blocks[block][places[a:b] - block * _BLOCK]
            self._let_go(block)
        return found

    def release(self) -> None:
        """Give the budget back. The rows are not used afterwards."""
        self._budget.give_back(self.nbytes)
        self.nbytes = 0

    def _add_block(self) -> None:
        shape = (_BLOCK, *self.shape)
        nbytes = self._dtype.itemsize * math.prod(shape)
        if self._budget.take(nbytes):
            self.nbytes += nbytes
            self._maps.append(None)
            self._blocks.append(np.empty(shape, self._dtype))
            return
        # the mapping keeps the file alive after it is closed
        with tempfile.TemporaryFile() as file:
            file.truncate(nbytes)
            mapped = mmap.mmap(file.fileno(), nbytes)
        self._maps.append(mapped)
        self._blocks.append(np.frombuffer(mapped, self._dtype).reshape(shape))

    def _let_go(self, block: int) -> None:
        """Of a mapped block: its pages stay in the page cache or go to the file, and count as this process's no longer."""
        mapped = self._maps[block]
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)
