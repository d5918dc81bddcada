"""What the C library does with freed memory in a process that makes large tensors. Knows no models.

The layers of a wide model allocate and free tens of megabytes at a time. By default each allocation
is a mapping of its own, and its pages are mapped and zeroed anew: a tenth of the time of encoding.
Each thread gets a heap of its own that is returned as soon as it is empty, so new threads share an
existing heap instead, mostly the main one.

A server has a hundred threads. With a heap for each few of them, what one frees is no use to the
others, so all share two (`share_heaps`).
"""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # glibc's malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int
_SHARED_HEAPS = 2
_retained = 0


def retain_freed(nbytes: int) -> bool:
    """Let the process retain up to `nbytes` of freed memory instead of returning it; -> whether
    that could be set (glibc). Heaps that libraries made for their threads before this call stay,
    and a new thread may get one of them."""
    global _retained
    size = min(nbytes, _LARGEST)
    if _set((_MMAP_THRESHOLD, size), (_TRIM_THRESHOLD, size), (_ARENA_MAX, 1)):
        _retained = size
        return True
    return False


def share_heaps() -> bool:
    """Let threads share two heaps; -> whether that could be set (glibc). Call it before there are
    threads."""
    return _set((_ARENA_MAX, _SHARED_HEAPS))


def return_freed() -> bool:
    """Return the freed pages of all heaps to the system; -> False where nothing can be returned:
    without glibc, and after `retain_freed`."""
    if _retained:
        return False
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
        return True
    return False


def retained_bytes() -> int:
    """The limit that `retain_freed` has set; 0 = the system's default."""
    return _retained


class _Statistics(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


def allocated_bytes() -> int | None:
    """Bytes of all blocks that are not freed, in heaps and in mappings; None where the C library
    does not say."""
    with suppress(AttributeError, OSError):
        statistics = ctypes.CDLL(None).mallinfo2
        statistics.restype = _Statistics
        now = statistics()
        return int(now.uordblks + now.hblkhd)
    return None


def _set(*pairs: tuple[int, int]) -> bool:
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        return all(libc.mallopt(*pair) for pair in pairs)
    return False
