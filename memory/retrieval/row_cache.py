"""A cache of a retriever's rows beside the bank, so that opening a video reads a few files instead
of every segment.

Knows nothing about what a row means. If the files are damaged, the rows come from the segments
again. Layout of a folder:
    <first row>-<rows>.npy      a block in numpy's format; full blocks never change
    head.json                   number of rows, signature of their segments, checksum of every block
Saving writes new blocks first, then the head, then deletes blocks that the head no longer lists. So
a crash leaves the old head or the new one, and a head that does not fit its blocks counts as no
head. Rows of the first segments stay useful when more segments are added. They are useless once a
segment was dropped, because ordinals move: the signature shows that.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from memory.storage.atomic import make_folder, write_atomically
from memory.storage.checksums import of_bytes
from memory.storage.file_access import read_bytes
from memory.timeline import Timeline

_BLOCK_BYTES = 8 << 20  # approximately
_LOAD_BYTES = 256 << 20  # of blocks in memory while loading
Part = Callable[[int, int], np.ndarray]  # (first, stop) -> [stop - first, *shape]


def save(folder: Path, rows: int, part: Part, timeline: Timeline) -> None:
    """Save the first `rows` rows, which belong to the first segments of this timeline. OSError."""
    if not rows:
        return
    step = max(1, _BLOCK_BYTES // part(0, 1).nbytes)
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
            data = _pack(part(first, stop))
            write_atomically(folder / name, data)
            blocks[name] = of_bytes(data)
    head = {"rows": rows, "signature": _signature(timeline, rows), "blocks": blocks}
    text = json.dumps(head)
    write_atomically(
        folder / "head.json", json.dumps({"head": head, "sum": of_bytes(text.encode())}).encode()
    )
    for path in folder.glob("*.npy"):
        if path.name not in blocks:
            path.unlink(missing_ok=True)


def load(folder: Path, timeline: Timeline) -> Iterator[np.ndarray]:
    """The saved blocks, if they are undamaged and belong to the first segments of this timeline;
    otherwise nothing.

    Every block is checked before the first one is yielded, because a part of the rows would not
    match whole segments. OSError if a block disappears before its turn: then the caller must
    discard the blocks that it got.
    """
    head = _head(folder)
    if head is None or head["signature"] != _signature(timeline, head["rows"]):
        return
    loaded: list[bytes | None] = []
    nbytes = 0
    for name, checksum in head["blocks"].items():
        try:
            data = _read(folder / name, checksum)
        except OSError:
            return
        nbytes += len(data)
        # further blocks are read twice: all of them at once may be too many bytes
        loaded.append(data if nbytes <= _LOAD_BYTES else None)
    for (name, checksum), data_or_none in zip(head["blocks"].items(), loaded, strict=True):
        yield np.load(
            io.BytesIO(_read(folder / name, checksum) if data_or_none is None else data_or_none),
            allow_pickle=False,
        )


def drop(folder: Path) -> None:
    """Delete the saved rows."""
    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path, checksum: str) -> bytes:
    """The bytes of a file. OSError if they do not have this checksum."""
    data = read_bytes(path)
    if of_bytes(data) != checksum:
        raise OSError(f"{path} is not as it was written")
    return data


def _head(folder: Path) -> dict | None:
    try:
        file = json.loads(read_bytes(folder / "head.json"))
        return file["head"] if of_bytes(json.dumps(file["head"]).encode()) == file["sum"] else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _signature(timeline: Timeline, rows: int) -> str | None:
    """Identifies the segments of the first rows; None if these are not whole segments of the
    timeline."""
    edges = timeline.edges
    count = int(np.searchsorted(edges, rows))
    if count >= len(edges) or edges[count] != rows:
        return None
    parts = (edges[: count + 1], timeline.numbers[:count], timeline.seals[:count])
    return of_bytes(b"".join(part.tobytes() for part in parts))


def _pack(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(rows), allow_pickle=False)
    return file.getvalue()
