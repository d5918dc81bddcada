"""Reading a bank's frames, and plain files, from the disk."""

import os
import time
from pathlib import Path

from memory.store import DiskStore

CHUNK = 1 << 20


def drop_page_cache(files: list[Path]) -> None:
    """Ask the system to drop the files from its page cache."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_frames(bank: Path, wanted: int) -> tuple[int, float]:
    """(frames, seconds) of recalling evenly spread frames with keys and values.

    Opening the bank does not count.
    """
    store = DiskStore(bank)
    rows = list(store.catalog.all_segments())
    places = [(row, t) for row in rows for t in range(row.frames)]
    step = max(len(places) / wanted, 1.0)
    chosen = [places[int(i * step)] for i in range(min(wanted, len(places)))]
    began = time.perf_counter()
    for row, t in chosen:
        store.frames(row.video_id, row.number, t, t + 1)
    seconds = time.perf_counter() - began
    store.close()
    return len(chosen), seconds


def read_files(files: list[Path]) -> tuple[int, float]:
    """(bytes, seconds) of reading the files from end to end."""
    buffer, total = bytearray(CHUNK), 0
    began = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(buffer):
                total += size
    return total, time.perf_counter() - began
