"""Rows that are appended in blocks, within a RAM budget.

Knows nothing about what a row means. Blocks never move, so a search reads while a writer appends.
Beyond the budget, new blocks live in an unlinked temporary file that is mapped (in TMPDIR). It is
slower when cold, but RAM stays bounded at any stream length (law 6), and nothing is left behind
when the process ends. Pages of a mapped block are released right after reading; otherwise they
would count as memory of the process.
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
    """Bytes of RAM, shared by the rows of several videos."""

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> bool:
        """Take `nbytes` if they are free; False if not."""
        with self._lock:
            fits = nbytes <= self._left
            self._left -= nbytes if fits else 0
        return fits

    def give_back(self, nbytes: int) -> None:
        with self._lock:
            self._left += nbytes


class RowBuffer:
    """[n, *shape] of `dtype`. float16 takes half the bytes of float32: keys need range (Qwen biases
    reach hundreds), not precision."""

    def __init__(
        self, shape: tuple[int, ...], budget: RamBudget, dtype: type[np.generic] = np.float16
    ) -> None:
        self.shape = shape
        self.block = _BLOCK  # rows per block
        self._budget, self._dtype = budget, np.dtype(dtype)
        self._blocks: list[np.ndarray] = []  # each [_BLOCK, *shape]
        self._maps: list[
            mmap.mmap | None
        ] = []  # the file that each block is mapped from; None: RAM
        self._count = 0
        self.nbytes = 0  # in RAM, taken from the budget

    def __len__(self) -> int:
        return self._count

    def append(self, rows: np.ndarray) -> None:
        """Append rows: [T, *shape]. One thread at a time."""
        done = 0
        while done < len(rows):
            at = (self._count + done) % _BLOCK
            if at == 0:
                self._add_block()
            part = rows[done : done + _BLOCK - at]
            self._blocks[-1][at : at + len(part)] = part
            done += len(part)
            if at + len(part) == _BLOCK:
                self._release_pages(len(self._blocks) - 1)
        self._count += done  # last: a thread that sees the count also finds the rows

    def blocks(self, stop: int, first: int = 0) -> Iterator[np.ndarray]:
        """Rows first..stop-1, block by block: [<= 1024, *shape] views. Each is valid until the next
        one is requested."""
        for index in range(first // _BLOCK, -(-stop // _BLOCK)):
            yield self._blocks[index][max(first - index * _BLOCK, 0) : stop - index * _BLOCK]
            self._release_pages(index)

    def part(self, first: int, stop: int) -> np.ndarray:
        """A copy of rows first..stop-1: [stop - first, *shape]."""
        rows = np.empty((stop - first, *self.shape), self._dtype)
        at = 0
        for block in self.blocks(stop, first):
            rows[at : at + len(block)] = block
            at += len(block)
        return rows

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the rows at these indices: [len(indices), *shape]. indices: rising."""
        rows = np.empty((len(indices), *self.shape), self._dtype)
        blocks, firsts = np.unique(indices // _BLOCK, return_index=True)
        for block, (a, b) in zip(
            blocks.tolist(), pairwise([*firsts.tolist(), len(indices)]), strict=True
        ):
            rows[a:b] = self._blocks[block][indices[a:b] - block * _BLOCK]
            self._release_pages(block)
        return rows

    def release(self) -> None:
        """Return the RAM budget. The rows must not be used afterwards."""
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

    def _release_pages(self, block: int) -> None:
        """Stop counting the pages of a mapped block as this process's memory; they stay in the page
        cache or the file."""
        mapped = self._maps[block]
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)
