"""`reelbank bank` beyond a look at everything: the segments of a stretch of time, and prune. What they do and print.

Knows no encoder; mistakes are UserErrors, told before anything is changed.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.errors import UserError
from pipeline.config import units
from pipeline.config.settings import BankSettings, FindSettings, RepairSettings

if TYPE_CHECKING:
    from memory.bank import MemoryBank
    from memory.bank_check import Problem
    from memory.storage.catalog import VideoRow

_OWN = {
    "ls": ("video", "start", "end", "since", "until"),
    "prune": ("video", "older_than", "max_bytes", "dry_run"),
}


def check(config: BankSettings) -> None:
    """UserError on settings that are wrong in themselves, or that this action does not use."""
    for key in dict.fromkeys(key for keys in _OWN.values() for key in keys):
        value = getattr(config, key)
        if value not in (None, "", False) and key not in _OWN.get(config.action, ()):
            users = " and ".join(f"action={action}" for action, keys in _OWN.items() if key in keys)
            raise UserError(
                f"{key}={value} has no effect with action={config.action}; only {users} uses it"
            )
    if config.action == "ls":
        _times(config)
    if config.action == "prune":
        _limits(config)
        if not (config.video or config.older_than or config.max_bytes):
            raise UserError(
                "action=prune deletes what it is told to; give video=ID, older_than=7d or max_bytes=10GB"
            )


def is_of_segments(config: BankSettings) -> bool:
    """Whether `ls` is asked for segments."""
    return any(getattr(config, key) not in (None, "") for key in _OWN["ls"])


def list_segments(config: BankSettings, held: "MemoryBank") -> int:
    """The segments that share time with what is asked for."""
    video = video_of(config, held)
    times = _times(config)
    paths = {row.info.video_id: row.info.path for row in held.catalog.videos()}
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
        for row in held.catalog.overlapping(None if video is None else video.info.video_id, **times)
    ]
    if config.format == "json":
        print(json.dumps({"bank": config.bank, "segments": found}))
        return 0
    for row in found:
        stretch = units.format_span(row["start"], row["end"], hours="always")
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


def prune(config: BankSettings, held: "MemoryBank") -> int:
    """Delete what the rules name, or say what would go."""
    from memory.storage.retention import Rule

    video = video_of(config, held)
    before, max_bytes = _limits(config)
    paths = {row.info.video_id: row.info.path for row in held.catalog.videos()}
    cuts = held.prune(
        Rule(None if video is None else video.info.video_id, before, max_bytes), config.dry_run
    )
    total = held.catalog.nbytes() - sum(cut.nbytes for cut in cuts if config.dry_run)
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


def _why_more(config: BankSettings) -> str:
    others = "other videos are left alone, and " if config.video else ""
    return f"{others}what an unfinished video's encoder goes on with is kept"


def _limits(config: BankSettings) -> tuple[float | None, float | None]:
    """The moment before which segments go, and the bytes that may stay."""
    before = time.time() - units.age("older_than", config.older_than) if config.older_than else None
    return before, units.size("max_bytes", config.max_bytes) if config.max_bytes else None


def _times(config: BankSettings) -> dict[str, float | None]:
    times = {"start": config.start, "end": config.end}
    times |= {
        key: units.moment(key, value) if value else None
        for key, value in (("since", config.since), ("until", config.until))
    }
    for key in ("start", "end"):
        second = times[key]
        if second is not None and not second >= 0:
            raise UserError(
                f"{key}={second} is before a video begins; give seconds of video time, 0 or more"
            )
    for low, high in (("start", "end"), ("since", "until")):
        first, last = times[low], times[high]
        if first is not None and last is not None and not first < last:
            raise UserError(
                f"{low}={getattr(config, low)} is not before {high}={getattr(config, high)}; give a {low} that comes first"
            )
    return times


def video_of(config: BankSettings | FindSettings, held: "MemoryBank") -> "VideoRow | None":
    """The one video that is meant by id or by path; None when none is named."""
    if not config.video:
        return None
    videos = held.catalog.videos()
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


def run(config: BankSettings | RepairSettings) -> int:
    """reelbank bank."""
    from memory.bank import MemoryBank
    from memory.bank_check import Problem
    from memory.retrieval.uniform import UniformRetriever
    from memory.storage.database import CatalogDamagedError

    if isinstance(config, RepairSettings):
        return _repair(config)
    if config.action not in ("ls", "verify", "prune"):
        raise UserError(f"action={config.action} is not known; use ls, verify, repair or prune.")
    check(config)
    try:
        with MemoryBank.open(
            config.bank, None, UniformRetriever(), recent_frames=0, create=False
        ) as held:
            if config.action == "prune":
                return prune(config, held)
            if config.action == "ls":
                return (
                    list_segments(config, held) if is_of_segments(config) else _list(config, held)
                )
            return _verified(
                config,
                held.check.verify(),
                sum(
                    len(held.catalog.segments(video.info.video_id))
                    for video in held.catalog.videos()
                ),
            )
    except CatalogDamagedError as error:
        if config.action != "verify":
            raise
        return _verified(
            config, [Problem("catalog", Path(config.bank) / "catalog.sqlite", str(error))], 0
        )


def _list(config: BankSettings, held: "MemoryBank") -> int:
    table: list[dict[str, Any]] = []
    for video in held.catalog.videos():
        rows = held.catalog.segments(video.info.video_id)
        table.append(
            {
                "video_id": video.info.video_id,
                "path": video.info.path,
                "seconds": rows[-1].end if rows else 0.0,
                "segments": len(rows),
                "frames": rows[-1].stop if rows else 0,
                "nbytes": sum(row.nbytes for row in rows),
                "text_nbytes": held.text.nbytes(video.info.video_id),
                "finished": video.finished,
                "gaps": [[gap.start, gap.end] for gap in held.catalog.gaps(video.info.video_id)],
                "pruned_before": None if video.pruned is None else video.pruned.start,
                "broke_at": video.info.broke_at,
                "note": video.info.note,
                "text": [
                    {
                        "extractor": run.extractor,
                        "lines": run.lines,
                        "until": run.until,
                        "finished": run.finished,
                    }
                    for run in held.text.runs(video.info.video_id)
                ],
            }
        )
    if config.format == "json":
        print(json.dumps({"bank": config.bank, "made_with": held.provenance, "videos": table}))
        return 0
    print(
        f"{config.bank}: " + ", ".join(f"{key}={value}" for key, value in held.provenance.items())
    )
    for row in table:
        state = "complete" if row["finished"] else "unfinished"
        if row["broke_at"] is not None:
            state = f"file breaks at {row['broke_at']:.1f} s"
        if row["gaps"]:
            state = "missing " + ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in row["gaps"])
        if row["pruned_before"] is not None:
            state += f", pruned before {units.format_time(row['pruned_before'], hours='always')}"
        words = f" and {row['text_nbytes'] / 1e6:.3f} MB of words" if row["text_nbytes"] else ""
        print(
            f"{row['video_id']}  {units.format_time(row['seconds'])}  {row['segments']} segments  {row['frames']} frames  "
            f"{row['nbytes'] / 1e6:.1f} MB{words}  {state}  {row['path']}"
        )
        for text in row["text"]:
            until = (
                ""
                if text["finished"]
                else f", up to {units.format_time(text['until'], hours='always')}"
            )
            print(f"  {text['extractor']}: {text['lines']} lines{until}")
    if not table:
        print("no video yet; `reelbank ingest video=FILE` adds one")
    return 0


def _verified(config: BankSettings, problems: "Sequence[Problem]", count: int) -> int:
    if config.format == "json":
        print(json.dumps([asdict(problem) | {"path": str(problem.path)} for problem in problems]))
    elif problems:
        print("\n".join(str(problem) for problem in problems))
    else:
        print(f"{config.bank}: all {count} segments are whole")
    return 1 if problems else 0


def _repair(config: RepairSettings) -> int:
    from pipeline.commands.repair import mend

    done = mend(config)
    if config.format == "json":
        print(json.dumps([asdict(each) for each in done]))
    else:
        print(
            "\n".join(
                [
                    *(str(each) for each in done),
                    f"{config.bank}: {_tally([each.whole for each in done])}",
                ]
            )
        )
    return 0 if all(each.whole for each in done) else 1


def _tally(whole: Sequence[bool]) -> str:
    if not whole:
        return "nothing was damaged"
    return f"{sum(whole)} mended" + (
        f", {len(whole) - sum(whole)} missing" if not all(whole) else ", all is whole"
    )
