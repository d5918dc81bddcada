"""`reelbank find`: moments of one video or of a whole bank for a few words, without an answer.

Checks the settings, builds the parts, and reports; pipeline/moments/finder.py searches. Only the
channel `kv` and planner=model load a backbone.
"""

import functools
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.schema import VideoInfo
from encoders.text.lines import SentenceEncoder
from memory.bank import MemoryBank
from memory.retrieval.fusion import Moment, fuse, widen
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Retriever
from memory.storage.atomic import write_atomically
from pipeline.build import build_sentence_encoder
from pipeline.commands.output.moments_html import moments_page
from pipeline.commands.output.thumbnails import Thumbnails
from pipeline.commands.videos import find_video
from pipeline.config.parts import call, check, instantiate
from pipeline.config.settings import FindSettings, MomentsFormat
from pipeline.config.units import format_span
from pipeline.frame_embedder import build_clip
from pipeline.moments.finder import Finder
from pipeline.moments.frame_channels import FrameChannels, frame_channels
from pipeline.query.plan import CHANNELS, FRAMES, KV, PICTURE, Planner

_SNIPPET = 120  # characters


@dataclass(frozen=True)
class Result:
    """What a search gave."""

    moments: list[Moment]  # best first
    videos: dict[str, VideoInfo]  # of the moments, by id
    notes: list[str]  # what the user must know
    has_text: bool  # whether any extractor ran on what was searched

    @property
    def paths(self) -> dict[str, str]:
        """Files of the videos, by id."""
        return {video_id: info.path for video_id, info in self.videos.items()}


def run(settings: FindSettings) -> int:
    """reelbank find."""
    _check_settings(settings)
    result = _search(settings)
    _warn(result.notes)
    thumbnails = Thumbnails(result.moments, result.videos)
    match settings.format:
        case MomentsFormat.json:
            _report_json(settings, result, thumbnails)
        case MomentsFormat.html:
            _report_html(settings, result, thumbnails)
        case MomentsFormat.text:
            _report_text(result)
    _warn(thumbnails.notes)
    return 0


def _warn(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"reelbank: warning: {note}", file=sys.stderr)


# ---- check


def _check_settings(settings: FindSettings) -> None:
    """UserError on settings that make no sense."""
    if not str(settings.query).strip():
        raise UserError('The query is empty; give a few words, such as query="rebuilt in granite".')
    unknown = [channel for channel in settings.channels if channel not in (*CHANNELS, KV)]
    if unknown or not settings.channels:
        raise UserError(
            f"channels={list(settings.channels)} are not known; use some of "
            f"{', '.join((*CHANNELS, KV))}"
        )
    if settings.top < 1:
        raise UserError(f"top={settings.top} finds nothing; use 1 or more.")
    if settings.late_lines < 0 or (settings.late_lines and not settings.dense):
        raise UserError(
            f"late_lines={settings.late_lines} needs to be 0 or more, and dense=minilm; "
            "leave it out"
        )
    if not settings.widen >= 0:
        raise UserError(f"widen={settings.widen} is below 0; give seconds, 0 or more.")
    for key in ("start", "end", "asked_at"):
        second = getattr(settings, key)
        if second is not None and not second >= 0:
            raise UserError(
                f"{key}={second} is before a video begins; give seconds of video time, 0 or more"
            )
    if (
        settings.start is not None
        and settings.end is not None
        and not settings.start < settings.end
    ):
        raise UserError(
            f"start={settings.start} is not before end={settings.end}; "
            "give a start that comes first"
        )
    if settings.asked_at is not None and not settings.video:
        raise UserError("asked_at= is a second of one video; give video= as well")
    if settings.format == "html" and not Path(settings.out).absolute().parent.is_dir():
        raise UserError(
            f"out={settings.out} is in a folder that is not there; make it, or choose another path"
        )
    check("planner", settings.planner)
    if PICTURE in settings.channels:
        check("clip", settings.clip)


# ---- run


def _search(settings: FindSettings) -> Result:
    sentence_encoder = build_sentence_encoder(settings.dense)
    backbone = functools.cache(lambda: _load_backbone(settings))
    planner: Planner = call("planner", instantiate("planner", settings.planner), backbone=backbone)
    frames = _frame_channels(settings, backbone)
    with _open(settings, frames.retriever) as bank:
        video_id = _video_id(settings, bank)
        notes = [frames.note, _vectors_note(settings, bank, sentence_encoder)]
        finder = Finder(
            bank, frames.channels, sentence_encoder, settings.late_lines, planner, frames.queries
        )
        plan, limits = finder.plan(settings.query, video_id)
        rankings = finder.rankings(
            plan,
            video_id,
            limits,
            start=settings.start or 0.0,
            end=math.inf if settings.end is None else settings.end,
            asked_at=math.inf if settings.asked_at is None else settings.asked_at,
        )
        videos = {row.info.video_id: row.info for row in bank.catalog.videos()}
        moments = [
            widen(moment, settings.widen, videos[moment.video_id].duration)
            for moment in fuse(rankings, plan.weights)[: settings.top]
        ]
        return Result(
            moments,
            {moment.video_id: videos[moment.video_id] for moment in moments},
            [note for note in (*notes, limits.note, plan.note) if note],
            bool(bank.text.runs(video_id)),
        )


def _open(settings: FindSettings, retriever: Retriever) -> MemoryBank:
    return MemoryBank.open(settings.bank, None, retriever, recent_frames=0, create=False)


def _video_id(settings: FindSettings, bank: MemoryBank) -> str | None:
    """The one video to search; None: all. UserError if the bank has no such video."""
    video = find_video(settings, bank)
    return None if video is None else video.info.video_id


def _frame_channels(settings: FindSettings, backbone: Callable[[], Backbone]) -> FrameChannels:
    channels = tuple(dict.fromkeys(settings.channels))
    if not set(FRAMES) & set(channels):
        return FrameChannels(channels, UniformRetriever(), ())
    # a look at the bank refuses a wrong bank= or video= before any model is loaded
    with _open(settings, UniformRetriever()) as bank:
        _video_id(settings, bank)
        provenance = bank.provenance
    return frame_channels(
        settings.bank,
        provenance,
        channels,
        clip=lambda: build_clip(settings),
        backbone=backbone,
    )


def _load_backbone(settings: FindSettings) -> Backbone:
    check("backbone", settings.backbone)
    backbone: Backbone = instantiate("backbone", settings.backbone)
    return backbone


def _vectors_note(
    settings: FindSettings, bank: MemoryBank, sentence_encoder: SentenceEncoder | None
) -> str:
    """A note if some lines have no vectors. UserError if they have those of another model."""
    if sentence_encoder is None:
        return ""
    bank.text.refuse_other_vectors(sentence_encoder.made_with)
    with_vectors, lines = bank.text.count_vectors()
    if with_vectors == lines:
        return ""
    return (
        f"{lines - with_vectors} of {lines} lines are searched by their words alone; `reelbank "
        f"ingest bank={settings.bank} dense=...` gives them vectors"
    )


# ---- report


def _report_json(settings: FindSettings, result: Result, thumbnails: Thumbnails) -> None:
    shown = thumbnails if settings.thumbnails else None
    moments = [
        _json_moment(moment, result.paths[moment.video_id], shown) for moment in result.moments
    ]
    print(json.dumps({"query": settings.query, "bank": settings.bank, "moments": moments}))


def _json_moment(moment: Moment, path: str, thumbnails: Thumbnails | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "video_id": moment.video_id,
        "path": path,
        "start": round(moment.start, 3),
        "end": round(moment.end, 3),
        "score": moment.score,
        "channels": list(moment.channels),
        "snippet": _snippet(moment),
        "lines": [asdict(line) for line in moment.lines],
        "frame_at": round(moment.at, 3),
    }
    if thumbnails is not None:
        row["thumbnail"] = thumbnails.of(moment)
    return row


def _report_html(settings: FindSettings, result: Result, thumbnails: Thumbnails) -> None:
    page = moments_page(settings.query, result.moments, result.paths, thumbnails)
    # a path may have bytes that are not UTF-8
    write_atomically(Path(settings.out), page.encode(errors="backslashreplace"))
    print(f"{len(result.moments)} moments: {settings.out}")


def _report_text(result: Result) -> None:
    console = Console()
    table = Table()
    for name in ("when", "channels", "score", "words", "video"):
        table.add_column(name, overflow="fold")
    for moment in result.moments:
        cells = (
            format_span(moment.start, moment.end, hours="always"),
            "+".join(moment.channels),
            f"{moment.score:.4f}",
            _snippet(moment),
            result.paths[moment.video_id],
        )
        table.add_row(*cells)
        if not console.is_terminal:
            print("  ".join(cells))
    if console.is_terminal:
        console.print(table)
    if not result.moments:
        hint = "; the bank has no words yet, `reelbank ingest text=[subtitles,ocr]` adds them"
        print(f"nothing found{'' if result.has_text else hint}")


def _snippet(moment: Moment) -> str:
    """The matching words, on one line."""
    text = " / ".join(dict.fromkeys(line.text for line in moment.lines))
    return text if len(text) <= _SNIPPET else text[: _SNIPPET - 1].rstrip() + "\u2026"
