"""How many workers decode a film: `source.workers=`. Knows cores and memory; no decoder."""

import os

from encoders.errors import UserError
from encoders.memory_limits import host_memory

AUTO = "auto"
MOST_WORKERS = 64
# what a decoder holds of a film at most: references, and pictures that wait for their turn
_PICTURES, _BYTES_OF_PIXEL = 24, 3
_MEMORY_SHARE = 0.25  # of the memory that is left, for all decoders


def check_workers(workers: int | str) -> None:
    """UserError for a value of source.workers= that is none."""
    is_number = isinstance(workers, int) and not isinstance(workers, bool)
    if workers != AUTO and not (is_number and 1 <= int(workers) <= MOST_WORKERS):
        raise UserError(
            f"source.workers={workers} does not fit; use auto, or a number from 1 to {MOST_WORKERS}"
        )


def worker_count(workers: int | str, pixels: int) -> int:
    """The number that source.workers= means; "auto": one for each core that this process may use,
    as far as the memory suffices. pixels: of one picture of the film.
    """
    if isinstance(workers, int):
        return workers
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = host_memory()
    if memory is not None:
        fit = int(_MEMORY_SHARE * memory) // (_PICTURES * _BYTES_OF_PIXEL * max(1, pixels))
        usable = min(usable or 1, fit)
    return max(1, min(usable or 1, MOST_WORKERS))
