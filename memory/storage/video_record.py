"""A copy of what is known of a video beside its segments, for the day when the catalog is lost.

Knows nothing of segments. Layout: <bank>/segments/<video_id>/video.json; written before the catalog's row. Whether the video
is finished is not in it: the last segments may be lost together with the catalog, and encoding a video again that turns
out to be whole costs a look at its end. What was deleted of its beginning on purpose is in it: it is not missing.
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
    """Keep path, interval and so on durably. Writes nothing where they are kept already."""
    told: dict[str, Any] = {"info": asdict(row.info), "interval": row.interval}
    if row.pruned is not None:
        told["pruned"] = asdict(row.pruned)
    data = json.dumps({"row": told, "sum": _sum(told)}, indent=2, sort_keys=True).encode() + b"\n"
    path = folder / NAME
    if path.is_file() and path.read_bytes() == data:
        return
    make_folder(folder)
    write_atomically(path, data)


def read(folder: Path) -> VideoRow | None:
    """What is known, as a video that is not finished. None when the file is missing or damaged."""
    try:
        data = json.loads((folder / NAME).read_bytes())
        told = data["row"]
        if data["sum"] != _sum(told):
            return None
        pruned = Pruned(**told["pruned"]) if "pruned" in told else None
        return VideoRow(VideoInfo(**told["info"]), told["interval"], finished=False, pruned=pruned)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sum(told: dict) -> str:
    return of_bytes(json.dumps(told, sort_keys=True).encode())
