"""`reelbank bank` beyond a look at everything: the segments of a stretch of time, and prune. What they do and print.

Knows no encoder; mistakes are UserErrors, told before anything is changed.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from encoders.errors import UserError
from pipeline.config import units

if TYPE_CHECKING:
    from memory.bank import MemoryBank
    from memory.storage.catalog import VideoRow

_OWN = {
    "ls": ("video", "start", "end", "since", "until"),
    "prune": ("video", "older_than", "max_bytes", "dry_run"),
}


def check(config: DictConfig) -> None:
    """UserError on settings that are wrong in themselves, or that this action does not use."""
    for key in dict.fromkeys(key for keys in _OWN.values() for key in keys):
        if config.get(key) not in (None, "", False) and key not in _OWN.get(config.action, ()):
            users = " and ".join(f"action={action}" for action, keys in _OWN.items() if key in keys)
            raise UserError(
                f"{key}={config[key]} has no effect with action={config.action}; only {users} uses it"
            )
    if config.action == "ls":
        _times(config)
    if config.action == "prune":
        _limits(config)
        if not (config.video or config.older_than or config.max_bytes):
            raise UserError(
                "action=prune deletes what it is told to; give video=ID, older_than=7d or max_bytes=10GB"
            )


def is_of_segments(config: DictConfig) -> bool:
    """Whether `ls` is asked for segments."""
    return any(config[key] not in (None, "") for key in _OWN["ls"])


def list_segments(config: DictConfig, held: "MemoryBank") -> int:
    """The segments that share time with what is asked for."""
    video = video_of(config, held)
    times = _times(config)
    paths = {row.info.video_id: row.info.path for row in held.videos()}
    found: list[dict[str, Any]] = [
        {
            "video_id": row.video_id,
            "path": paths[row.video_id],
            "number": row.number,
            "start": row.start,
            "end": row.end,
            "wall": row.wall,
            "wall_clock": units.written(row.wall) or None,
            "frames": row.frames,
            "nbytes": row.nbytes,
        }
        for row in held.overlapping(None if video is None else video.info.video_id, **times)
    ]
    if config.format == "json":
        print(json.dumps({"bank": config.bank, "segments": found}))
        return 0
    for row in found:
        stretch = f"{units.on_the_clock(row['start'])}-{units.on_the_clock(row['end'])} ({row['start']:.1f}-{row['end']:.1f} s)"
        when = [row["wall_clock"]] if row["wall_clock"] else []
        size = f"{row['nbytes'] / 1e6:.3f} MB"
        print(
            "  ".join(
                [
                    row["video_id"],
                    str(row["number"]),
                    stretch,
                    *when,
                    f"{row['frames']} frames",
                    size,
                    row["path"],
                ]
            )
        )
    if not found:
        print(f"{config.bank}: no segment there")
    return 0


def prune(config: DictConfig, held: "MemoryBank") -> int:
    """Delete what the rules name, or say what would go."""
    from memory.storage.retention import Rule

    video = video_of(config, held)
    before, max_bytes = _limits(config)
    paths = {row.info.video_id: row.info.path for row in held.videos()}
    cuts = held.prune(
        Rule(None if video is None else video.info.video_id, before, max_bytes), config.dry_run
    )
    total = held.nbytes - sum(cut.nbytes for cut in cuts if config.dry_run)
    if config.format == "json":
        table = [asdict(cut) | {"path": paths[cut.video_id]} for cut in cuts]
        print(
            json.dumps(
                {
                    "bank": config.bank,
                    "dry_run": config.dry_run,
                    "pruned": table,
                    "left_bytes": total,
                }
            )
        )
        return 0
    verb = "would delete" if config.dry_run else "deleted"
    for cut in cuts:
        all_of = " (all of it)" if cut.first is None else ""
        size = f"{cut.segments} segments, {cut.seconds:.1f} s, {cut.nbytes / 1e6:.3f} MB"
        print(f"{verb} {cut.video_id}: {size}{all_of}  {paths[cut.video_id]}")
    if not cuts:
        print(f"{config.bank}: nothing to prune")
    if max_bytes is not None and total > max_bytes:
        print(
            f"{config.bank}: {total / 1e6:.3f} MB stay, more than max_bytes={config.max_bytes}: {_why_more(config)}"
        )
    return 0


def _why_more(config: DictConfig) -> str:
    others = "other videos are left alone, and " if config.video else ""
    return f"{others}what an unfinished video's encoder goes on with is kept"


def _limits(config: DictConfig) -> tuple[float | None, float | None]:
    """The moment before which segments go, and the bytes that may stay."""
    before = time.time() - units.age("older_than", config.older_than) if config.older_than else None
    return before, units.size("max_bytes", config.max_bytes) if config.max_bytes else None


def _times(config: DictConfig) -> dict[str, float | None]:
    times = {"start": config.start, "end": config.end}
    times |= {
        key: units.moment(key, config[key]) if config[key] else None for key in ("since", "until")
    }
    for key in ("start", "end"):
        if times[key] is not None and not times[key] >= 0:
            raise UserError(
                f"{key}={config[key]} is before a video begins; give seconds of video time, 0 or more"
            )
    for low, high in (("start", "end"), ("since", "until")):
        if None not in (times[low], times[high]) and not times[low] < times[high]:
            raise UserError(
                f"{low}={config[low]} is not before {high}={config[high]}; give a {low} that comes first"
            )
    return times


def video_of(config: DictConfig, held: "MemoryBank") -> "VideoRow | None":
    """The one video that is meant by id or by path; None when none is named."""
    if not config.video:
        return None
    videos = held.videos()
    known = next((row for row in videos if row.info.video_id == config.video), None)
    if known is not None:
        return known
    path = Path(config.video).absolute()
    found = [row for row in videos if row.info.path and Path(row.info.path).absolute() == path]
    if not found:
        raise UserError(
            f"video={config.video} is not in bank {config.bank}; `reelbank bank bank={config.bank}` lists what is"
        )
    if len(found) > 1:
        ids = ", ".join(row.info.video_id for row in found)
        raise UserError(
            f"video={config.video} is {len(found)} videos of bank {config.bank} ({ids}); give one of these ids"
        )
    return found[0]
