"""Rows of a video's frames, kept beside the bank so that opening it reads one place instead of every segment. A cache.

Knows nothing of what a row means; whatever is wrong with the files, the rows are in the segments. Layout of a folder:
    <first row>-<rows>.npy      a block, as numpy writes it; full blocks never change
    head.json                   how many rows, which segments they are of, the checksum of every block
Saving writes the blocks that are new, then the head, then deletes what the head names no more: a crash leaves the old head
or the new one, and a head that does not fit its blocks is nothing. Rows of the first segments are of use when more have come
since; rows of other segments (one was dropped, and ordinals moved) are not, so the head carries a signature of theirs.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from memory.storage.atomic import make_folder, write_atomically
from memory.storage.checksums import of_bytes
from memory.timeline import Timeline

_BLOCK = 8 << 20  # bytes, about
_HELD = 256 << 20  # bytes of blocks that may wait in memory
Part = Callable[[int, int], np.ndarray]  # (first, stop) -> [stop - first, *shape]


def save(folder: Path, rows: int, part: Part, timeline: Timeline) -> None:
    """Keep the first `rows` rows, which are those of the first segments of this timeline. OSError."""
    if not rows:
        return
    step = max(1, _BLOCK // part(0, 1).nbytes)
    before = _head(folder)
    fits = before is not None and before["signature"] == _signature(timeline, before["rows"])
    blocks: dict[str, str] = {}
    make_folder(folder)
    for first in range(0, rows, step):
        stop = min(first + step, rows)
        name = f"{first:010d}-{stop - first}.npy"
        if before is not None and fits and name in before["blocks"]:
            blocks[name] = before["blocks"][name]
        else:
            data = _packed(part(first, stop))
            write_atomically(folder / name, data)
            blocks[name] = of_bytes(data)
    head = {"rows": rows, "signature": _signature(timeline, rows), "blocks": blocks}
    told = json.dumps(head)
    write_atomically(
        folder / "head.json", json.dumps({"head": head, "sum": of_bytes(told.encode())}).encode()
    )
    for path in folder.glob("*.npy"):
        if path.name not in blocks:
            path.unlink(missing_ok=True)


def load(folder: Path, timeline: Timeline) -> Iterator[np.ndarray]:
    """The blocks of rows that are kept, if they are those of the first segments of this timeline and whole; else nothing.
    Every block is checked before the first is handed out: some rows without the others would be no prefix of segments. OSError
    when one of them is not there any more when its turn comes: then what was handed out is to be thrown away."""
    head = _head(folder)
    if head is None or head["signature"] != _signature(timeline, head["rows"]):
        return
    found: list[bytes | None] = []
    held = 0
    for name, told in head["blocks"].items():
        try:
            data = _checked(folder / name, told)
        except OSError:
            return
        held += len(data)
        # beyond it blocks are read twice: all at once would be too many bytes
        found.append(data if held <= _HELD else None)
    for (name, told), kept in zip(head["blocks"].items(), found, strict=True):
        yield np.load(
            io.BytesIO(_checked(folder / name, told) if kept is None else kept), allow_pickle=False
        )


def drop(folder: Path) -> None:
    """Delete what is kept."""
    shutil.rmtree(folder, ignore_errors=True)


def _checked(path: Path, told: str) -> bytes:
    """The bytes of a file. OSError when they are not those of this checksum."""
    data = path.read_bytes()
    if of_bytes(data) != told:
        raise OSError(f"{path} is not as it was written")
    return data


def _head(folder: Path) -> dict | None:
    try:
        told = json.loads((folder / "head.json").read_bytes())
        return told["head"] if of_bytes(json.dumps(told["head"]).encode()) == told["sum"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _signature(timeline: Timeline, rows: int) -> str | None:
    """Of the segments that the first rows are of; None when these are no whole segments of the timeline."""
    edges = timeline.edges
    count = int(np.searchsorted(edges, rows))
    if count >= len(edges) or edges[count] != rows:
        return None
    return of_bytes(np.concatenate([edges[: count + 1], timeline.numbers[:count]]).tobytes())


def _packed(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(rows), allow_pickle=False)
    return file.getvalue()
