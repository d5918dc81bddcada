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

NAME = "video.json"


def write(folder: Path, row: VideoRow) -> None:
    """Store the row durably; no write if the file holds it already."""
    record: dict[str, Any] = {"info": asdict(row.info), "interval": row.interval}
    if row.pruned is not None:
        record["pruned"] = asdict(row.pruned)
    data = (
        json.dumps({"row": record, "sum": _sum(record)}, indent=2, sort_keys=True).encode() + b"\n"
    )
    path = folder / NAME
    if path.is_file() and path.read_bytes() == data:
        return
    make_folder(folder)
    write_atomically(path, data)


def read(folder: Path) -> VideoRow | None:
    """The row, as that of an unfinished video. None if the file is missing or damaged."""
    try:
        data = json.loads((folder / NAME).read_bytes())
        record = data["row"]
        if data["sum"] != _sum(record):
            return None
        pruned = Pruned(**record["pruned"]) if "pruned" in record else None
        return VideoRow(
            VideoInfo(**record["info"]), record["interval"], finished=False, pruned=pruned
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sum(record: dict) -> str:
    return of_bytes(json.dumps(record, sort_keys=True).encode())
