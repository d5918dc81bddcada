"""A copy of a video's row beside its segments, which restores it if the catalog is lost.

Knows nothing of segments. Layout: <bank>/segments/<video_id>/video.json, written before the
catalog's row. It holds what was pruned, so that this does not count as missing. It does not hold
whether the video is finished: the last segments may be lost together with the catalog, and
encoding a complete video again costs only a look at its end.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encoders.schema import VideoInfo
from memory.storage.atomic import make_folder, write_atomically
from memory.storage.catalog import Pruned, VideoRow
from memory.storage.checksums import of_bytes
from memory.storage.file_access import read_bytes, reason

NAME = "video.json"


def write(folder: Path, row: VideoRow) -> None:
    """Store the row durably; no write if the file holds it already."""
    if problem(folder, row) is None:
        return
    make_folder(folder)
    write_atomically(folder / NAME, _pack(row))


def problem(folder: Path, row: VideoRow) -> str | None:
    """Why the file does not hold this row; None if it does."""
    try:
        return None if read_bytes(folder / NAME) == _pack(row) else "it is not as it was written"
    except OSError as error:
        return reason(error)


def read(folder: Path) -> VideoRow | None:
    """The row, as that of an unfinished video. None if the file is missing or damaged, or of
    another video. PermissionError."""
    try:
        data = json.loads(read_bytes(folder / NAME))
        record = data["row"]
        if data["sum"] != _sum(record) or record["info"]["video_id"] != folder.name:
            return None
        pruned = Pruned(**record["pruned"]) if "pruned" in record else None
        return VideoRow(
            VideoInfo(**record["info"]), record["interval"], finished=False, pruned=pruned
        )
    except PermissionError:
        raise
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _pack(row: VideoRow) -> bytes:
    record: dict[str, Any] = {"info": asdict(row.info), "interval": row.interval}
    if row.pruned is not None:
        record["pruned"] = asdict(row.pruned)
    return (
        json.dumps({"row": record, "sum": _sum(record)}, indent=2, sort_keys=True).encode() + b"\n"
    )


def _sum(record: dict) -> str:
    return of_bytes(json.dumps(record, sort_keys=True).encode())
