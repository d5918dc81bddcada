"""What the C library does with memory that is freed, for a process that makes large tensors. Knows no models.

Layers of a wide model take and give back tens of megabytes at a time. As the system does it, each is a mapping of its own whose
pages are made and zeroed anew: a tenth of the time of encoding. Threads get heaps of their own, which are returned as soon as
they are empty, so new threads share those that are there, most often the main one.
"""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # glibc's malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int
_kept = 0


def keep_freed(nbytes: int) -> bool:
    """Let the process keep freed memory up to so many bytes instead of returning it; whether it could be set (glibc). Heaps
    that libraries made for their threads before this call stay, and a new thread may be given one of them."""
    global _kept
    size = min(nbytes, _LARGEST)
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        if all(
            libc.mallopt(*pair)
            for pair in ((_MMAP_THRESHOLD, size), (_TRIM_THRESHOLD, size), (_ARENA_MAX, 1))
        ):
            _kept = size
            return True
    return False


def kept() -> int:
    """Bytes that `keep_freed` was told; 0 = as the system does."""
    return _kept
