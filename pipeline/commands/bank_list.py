"""`reelbank bank action=ls`: the videos of a bank, or the segments of a stretch of time."""

import json
from dataclasses import dataclass
from typing import Any

from encoders.errors import UserError
from encoders.schema import embedder_name
from memory.bank import MemoryBank
from memory.storage.catalog import VideoRow
from pipeline.config import units
from pipeline.config.tasks.bank_settings import BankSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.videos import find_video

Table = list[dict[str, Any]]  # the rows of format=json


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The time of the segments that are listed; None is open."""

    start: float | None  # seconds of video time
    end: float | None
    since: float | None  # Unix seconds
    until: float | None


def check(settings: BankSettings) -> None:
    """UserError on times that are none, or in the wrong order."""
    _stretch(settings)


def run(settings: BankSettings, bank: MemoryBank) -> int:
    """List segments when a video or a time is given, else the videos."""
    limits = (settings.video, settings.start, settings.end, settings.since, settings.until)
    by_segment = any(value not in (None, "") for value in limits)
    if by_segment:
        table = _segment_table(settings, bank)
        result: dict[str, Any] = {"bank": settings.bank, "segments": table}
    else:
        table = [_video_row(video, bank) for video in bank.catalog.videos()]
        result = {"bank": settings.bank, "made_with": bank.provenance, "videos": table}
    if settings.format == OutputFormat.json:
        print(json.dumps(result))
    elif by_segment:
        _print_segments(settings, table)
    else:
        _print_videos(settings, bank, table)
    return 0


def _segment_table(settings: BankSettings, bank: MemoryBank) -> Table:
    video, stretch = find_video(bank, settings.video), _stretch(settings)
    paths = {row.info.video_id: row.info.path for row in bank.catalog.videos()}
    rows = bank.catalog.overlapping(
        None if video is None else video.info.video_id,
        start=stretch.start,
        end=stretch.end,
        since=stretch.since,
        until=stretch.until,
    )
    return [
        {
            "video_id": row.video_id,
            "path": paths[row.video_id],
            "number": row.number,
            "start": row.start,
            "end": row.end,
            "wall": row.wall,
            "wall_clock": units.format_moment(row.wall) or None,
            "frames": row.frames,
            "nbytes": row.nbytes,
            "encoded": _encoded(bank, row.video_id, row.number),
        }
        for row in rows
    ]


def _encoded(bank: MemoryBank, video_id: str, number: int) -> str:
    """How a segment came to have visual tokens."""
    if not bank.encoding.is_on_demand:
        return "at once"
    return "not yet" if bank.encoding.missing(video_id, [number]) else "on demand"


def _print_segments(settings: BankSettings, table: Table) -> None:
    for row in table:
        cells = [
            row["video_id"],
            str(row["number"]),
            units.format_span(row["start"], row["end"], hours="always"),
            row["wall_clock"],
            f"{row['frames']} frames",
            f"{row['nbytes'] / 1e6:.3f} MB",
            None if row["encoded"] == "at once" else f"encoded {row['encoded']}",
            row["path"],
        ]
        print("  ".join(cell for cell in cells if cell is not None))
    if not table:
        print(f"{settings.bank}: no segment there")


def _video_row(video: VideoRow, bank: MemoryBank) -> dict[str, Any]:
    video_id = video.info.video_id
    segments = bank.catalog.segments(video_id)
    return {
        "video_id": video_id,
        "path": video.info.path,
        "seconds": segments[-1].end if segments else 0.0,
        "segments": len(segments),
        "frames": segments[-1].stop if segments else 0,
        "nbytes": sum(segment.nbytes for segment in segments),
        "encoded": len(segments) - len(bank.encoding.missing(video_id)),
        "encoded_nbytes": bank.encoding.nbytes(video_id),
        "text_nbytes": bank.text.nbytes(video_id),
        "finished": video.finished,
        "gaps": [[gap.start, gap.end] for gap in bank.catalog.gaps(video_id)],
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
            for run in bank.text.runs(video_id)
        ],
        "pictures": [
            {
                "embedder": embedder_name(each.embedder),
                "key": each.embedder,
                "frames": each.frames,
                "nbytes": each.nbytes,
            }
            for each in bank.embeddings.counts(video_id)
        ],
    }


def _print_videos(settings: BankSettings, bank: MemoryBank, table: Table) -> None:
    made_with = ", ".join(f"{key}={value}" for key, value in bank.provenance.items())
    print(f"{settings.bank}: {made_with}")
    for row in table:
        words = f" and {row['text_nbytes'] / 1e6:.3f} MB of words" if row["text_nbytes"] else ""
        print(
            f"{row['video_id']}  {units.format_time(row['seconds'])}  "
            f"{row['segments']} segments  {row['frames']} frames  "
            f"{row['nbytes'] / 1e6:.1f} MB{words}  {_state(row)}  {row['path']}"
        )
        if bank.encoding.is_on_demand:
            print(
                f"  encoded on demand: {row['encoded']} of {row['segments']} segments, "
                f"{row['encoded_nbytes'] / 1e6:.1f} MB"
            )
        for text in row["text"]:
            until = f", up to {units.format_time(text['until'], hours='always')}"
            print(
                f"  {text['extractor']}: {text['lines']} lines{'' if text['finished'] else until}"
            )
        for pictures in row["pictures"]:
            print(
                f"  pictures by {pictures['embedder']}: {pictures['frames']} of {row['frames']} "
                f"frames, {pictures['nbytes'] / 1e6:.3f} MB"
            )
    if not table:
        print("no video yet; `reelbank ingest video=FILE` adds one")


def _state(row: dict[str, Any]) -> str:
    """Whether a video is complete, and what it lacks."""
    state = "complete" if row["finished"] else "unfinished"
    if row["broke_at"] is not None:
        state = f"file breaks at {row['broke_at']:.1f} s"
    if row["gaps"]:
        state = "missing " + ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in row["gaps"])
    if row["pruned_before"] is not None:
        state += f", pruned before {units.format_time(row['pruned_before'], hours='always')}"
    return state


def _stretch(settings: BankSettings) -> _Stretch:
    for key in ("start", "end"):
        second = getattr(settings, key)
        if second is not None and not second >= 0:
            raise UserError(
                f"{key}={second} is before a video begins; give seconds of video time, 0 or more"
            )
    stretch = _Stretch(
        settings.start,
        settings.end,
        units.parse_moment("since", settings.since) if settings.since else None,
        units.parse_moment("until", settings.until) if settings.until else None,
    )
    for low, high in (("start", "end"), ("since", "until")):
        first, last = getattr(stretch, low), getattr(stretch, high)
        if first is not None and last is not None and not first < last:
            raise UserError(
                f"{low}={getattr(settings, low)} is not before {high}={getattr(settings, high)}; "
                f"give a {low} that comes first"
            )
    return stretch
