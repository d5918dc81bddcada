"""Wall time, CPU time and peak memory of a call. Knows nothing of what is measured.

Peak memory is the growth of the process's RAM (Linux: VmHWM, which /proc/self/clear_refs resets)
after freed memory went back to the system. Giving memory back makes the next call fault it in
again, so memory is measured in calls whose time does not count.
"""

import ctypes
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


class Stopwatch:
    """Seconds of the block that `stopwatch` opened; 0 while it runs."""

    wall_s = 0.0
    cpu_s = 0.0


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """`with stopwatch() as took: ...; took.wall_s`."""
    took = Stopwatch()
    used, began = time.process_time(), time.perf_counter()
    try:
        yield took
    finally:
        took.wall_s, took.cpu_s = time.perf_counter() - began, time.process_time() - used


class PeakMemory:
    """Largest growth of the process during a block, in bytes; None where the system has no such
    number.
    """

    nbytes: int | None = None


@contextmanager
def peak_memory(since: int | None = None) -> Iterator[PeakMemory]:
    """`with peak_memory() as most: ...; most.nbytes`

    since: bytes to count from, from `resident_bytes`; None = now.
    """
    most = PeakMemory()
    since = resident_bytes() if since is None else since
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    try:
        yield most
    finally:
        high = _status("VmHWM")
        most.nbytes = None if high is None or since is None else max(high - since, 0)


def resident_bytes() -> int | None:
    """Bytes of this process in RAM, after freed memory went back to the system."""
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def median_range(values: Sequence[float], digits: int = 1, scale: float = 1.0) -> str:
    """ "1.2 (1.1-1.5)": median, least and most; a single value stands alone."""
    if not values:
        return "-"
    one = f"{scale * statistics.median(values):.{digits}f}"
    return (
        one
        if len(values) == 1
        else f"{one} ({scale * min(values):.{digits}f}-{scale * max(values):.{digits}f})"
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _status(name: str) -> int | None:
    with suppress(OSError, IndexError):
        return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024
    return None
