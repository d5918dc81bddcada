"""`reelbank find`: moments of one video or of the whole bank for a few words, without any language model.

What the command checks, builds and prints; the search itself is pipeline/moments/finder.py. A backbone is loaded only for the channel
`kv`, which nobody gets who does not ask for it.
"""

import base64
import functools
import html
import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.text.lines import SentenceEncoder
from memory.bank import MemoryBank
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.fusion import Moment, fuse, widen
from memory.retrieval.kv import KVRetriever
from memory.retrieval.uniform import UniformRetriever
from memory.storage.atomic import write_atomically
from pipeline.build import build_sentence_encoder
from pipeline.commands.bank import video_of
from pipeline.config import units
from pipeline.config.parts import call, check, instantiate
from pipeline.config.settings import FindSettings
from pipeline.moments.finder import Finder
from pipeline.query.batched import Ahead, TextAhead
from pipeline.query.plan import CHANNELS, FRAMES, KV, PICTURE


def run(config: FindSettings) -> int:
    """reelbank find."""
    channels = _checked(config)
    sentences = build_sentence_encoder(config.dense)
    backbone = functools.cache(lambda: _backbone(config))
    check("planner", config.planner)
    planner = call("planner", instantiate("planner", config.planner), backbone=backbone)
    channels, retriever, ahead = of_frames(config, channels, backbone)
    with MemoryBank.open(config.bank, None, retriever, recent_frames=0, create=False) as bank:
        video = video_of(config, bank)
        bounds = {
            "start": config.start or 0.0,
            "end": math.inf if config.end is None else config.end,
            "asked_at": math.inf if config.asked_at is None else config.asked_at,
        }
        video_id = None if video is None else video.info.video_id
        finder = Finder(bank, channels, sentences, config.late_lines, planner, ahead)
        if sentences is not None:
            _check_vectors(config, bank, sentences)
        plan, limits = finder.read(config.query, video_id)
        moments = fuse(finder.rankings(plan, video_id, limits, **bounds), plan.weights)[
            : config.top
        ]
        rows = {row.info.video_id: row.info for row in bank.catalog.videos()}
        moments = [
            widen(moment, config.widen, rows[moment.video_id].duration) for moment in moments
        ]
        empty = not bank.text.runs(video_id)
    for note in filter(None, (limits.note, plan.note)):
        print(f"reelbank: warning: {note}", file=sys.stderr)
    paths = {moment.video_id: rows[moment.video_id].path for moment in moments}
    if config.format == "json":
        print(
            json.dumps(
                {
                    "query": config.query,
                    "bank": config.bank,
                    "moments": [_told(config, m, paths) for m in moments],
                }
            )
        )
    elif config.format == "html":
        write_atomically(Path(config.out), page(config.query, moments, paths).encode())
        print(f"{len(moments)} moments: {config.out}")
    else:
        _show(moments, paths)
        if not moments:
            hint = (
                "; the bank has no words yet, `reelbank ingest text=[subtitles,ocr]` adds them"
                if empty
                else ""
            )
            print(f"nothing found{hint}")
    return 0


def _checked(config: FindSettings) -> tuple[str, ...]:
    """UserError on settings that make no sense; the channels."""
    if not str(config.query).strip():
        raise UserError('The query is empty; give a few words, such as query="rebuilt in granite".')
    unknown = [channel for channel in config.channels if channel not in (*CHANNELS, KV)]
    if unknown or not config.channels:
        raise UserError(
            f"channels={list(config.channels)} are not known; use some of {', '.join((*CHANNELS, KV))}"
        )
    if config.top < 1:
        raise UserError(f"top={config.top} finds nothing; use 1 or more.")
    if config.late_lines < 0 or (config.late_lines and not config.dense):
        raise UserError(
            f"late_lines={config.late_lines} needs to be 0 or more, and dense=minilm; leave it out"
        )
    if not config.widen >= 0:
        raise UserError(f"widen={config.widen} is below 0; give seconds, 0 or more.")
    for key in ("start", "end", "asked_at"):
        second = getattr(config, key)
        if second is not None and not second >= 0:
            raise UserError(
                f"{key}={second} is before a video begins; give seconds of video time, 0 or more"
            )
    if config.start is not None and config.end is not None and not config.start < config.end:
        raise UserError(
            f"start={config.start} is not before end={config.end}; give a start that comes first"
        )
    if config.asked_at is not None and not config.video:
        raise UserError("asked_at= is a second of one video; give video= as well")
    if config.format == "html" and not Path(config.out).absolute().parent.is_dir():
        raise UserError(
            f"out={config.out} is in a folder that is not there; make it, or choose another path"
        )
    return tuple(dict.fromkeys(config.channels))


def _check_vectors(config: FindSettings, bank: MemoryBank, sentences: SentenceEncoder) -> None:
    """UserError when the lines have vectors of another model; a warning when some have none."""
    bank.text.refuse_other_vectors(sentences.made_with)
    there, lines = bank.text.count_vectors()
    if there < lines:
        print(
            f"reelbank: warning: {lines - there} of {lines} lines are searched by their words alone; `reelbank ingest bank="
            f"{config.bank} dense=...` gives them vectors",
            file=sys.stderr,
        )


def _backbone(config: FindSettings) -> Backbone:
    check("backbone", config.backbone)
    return instantiate("backbone", config.backbone)


def of_frames(
    config: FindSettings, channels: tuple[str, ...], backbone: Callable[[], Any]
) -> tuple[tuple[str, ...], Any, tuple[Ahead, ...]]:
    """The channels that work here, the retriever of those that look at frames, and what it needs of a text. backbone: loads it.
    Pictures are left out where the bank's frames were embedded by another model or a text alone is meant; a backbone has to be
    the bank's."""
    if PICTURE in channels:
        check("clip", config.clip)
    if not set(FRAMES) & set(channels):
        return channels, UniformRetriever(), ()
    with MemoryBank.open(
        config.bank, None, UniformRetriever(), recent_frames=0, create=False
    ) as bank:
        video_of(config, bank)  # a name that is wrong is told before anything else is
        made = bank.provenance
    parts: dict[str, Any] = {}
    texts: TextAhead | None = None
    queries: Ahead | None = None
    if PICTURE in channels:
        clip = instantiate("clip", config.clip)
        if made.get("clip") in (None, clip.fingerprint()):
            texts, parts[PICTURE] = TextAhead(clip), ClipRetriever
        elif channels == (PICTURE,):
            raise UserError(
                f"bank {config.bank} was made with another frame embedder ({made['clip']}); give its clip=, or channels "
                "without picture"
            )
        else:
            print(
                "reelbank: warning: pictures are left out: the bank's were embedded by another clip=",
                file=sys.stderr,
            )
            channels = tuple(channel for channel in channels if channel != PICTURE)
    if KV in channels:
        model = backbone()
        if made.get("weights") != model.fingerprint():
            raise UserError(
                f"bank {config.bank} was made with backbone {made.get('model')} ({made.get('weights')}), and only that can "
                "search its keys; give its backbone=, or channels without kv"
            )
        queries, parts[KV] = Ahead(model.queries_of), KVRetriever
    if not parts:
        return channels, UniformRetriever(), ()
    ahead = (*(() if texts is None else (texts.ahead,)), *(() if queries is None else (queries,)))
    return channels, FusedRetriever(parts, embedder=texts, queries=queries), ahead


def _told(config: FindSettings, moment: Moment, paths: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "video_id": moment.video_id,
        "path": paths[moment.video_id],
        "start": round(moment.start, 3),
        "end": round(moment.end, 3),
        "score": moment.score,
        "channels": list(moment.channels),
        "snippet": snippet(moment),
        "lines": [asdict(line) for line in moment.lines],
        "frame_at": round(moment.at, 3),
    }
    if config.thumbnails:
        told["thumbnail"] = thumbnail(paths[moment.video_id], moment.at)
    return told


def snippet(moment: Moment, longest: int = 120) -> str:
    """The words that were found, on one line."""
    text = " / ".join(dict.fromkeys(line.text for line in moment.lines))
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _show(moments: list[Moment], paths: dict[str, str]) -> None:
    console = Console()
    rows = [
        (
            units.format_span(m.start, m.end, hours="always"),
            "+".join(m.channels),
            f"{m.score:.4f}",
            snippet(m),
            paths[m.video_id],
        )
        for m in moments
    ]
    if not console.is_terminal:
        for row in rows:
            print("  ".join(row))
        return
    table = Table()
    for head in ("when", "channels", "score", "words", "video"):
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def thumbnail(path: str, seconds: float) -> str | None:
    """A small JPEG as base64; None when the file is gone or cannot be shown there."""
    import av

    try:
        with av.open(path) as file:
            stream = file.streams.video[0]
            zero = float((stream.start_time or 0) * (stream.time_base or 0))
            file.seek(int(max(seconds - 1, 0) * av.time_base))
            picture = None
            for frame in file.decode(stream):
                picture = frame
                if frame.time is not None and frame.time - zero >= seconds - 1e-3:
                    break
            if picture is None:
                return None
            image = picture.to_image()
    except (OSError, av.FFmpegError, IndexError):
        return None
    image.thumbnail((320, 320))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def page(query: str, moments: list[Moment], paths: dict[str, str]) -> str:
    """One self-contained HTML page."""
    cards = []
    for moment in moments:
        data = thumbnail(paths[moment.video_id], moment.at)
        when = f"{units.format_time(moment.start, hours='always')}-{units.format_time(moment.end, hours='always')}"
        image = (
            f'<img src="data:image/jpeg;base64,{data}" alt="video at {when}">'
            if data
            else "<p>no picture</p>"
        )
        lines = "".join(
            f"<li><b>{html.escape(line.kind)}</b> <bdi>{html.escape(line.text)}</bdi></li>"
            for line in moment.lines
        )
        cards.append(
            f"<section>{image}<div><h2>{when}</h2><p>{html.escape(', '.join(moment.channels))}; score {moment.score:.4f}<br>"
            f"{html.escape(paths[moment.video_id])}</p><ul>{lines}</ul></div></section>"
        )
    style = (
        "body{font:16px system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;background:#fafafa;color:#1b1b1b}"
        "section{display:flex;gap:1rem;background:#fff;border-radius:6px;padding:.8rem;margin:1rem 0}"
        "img{width:320px;height:auto;border-radius:4px}h2{font-size:1.05rem;margin:.2rem 0}p{color:#555;font-size:.9rem}"
    )
    title = html.escape(query)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{style}</style><h1>{title}</h1>"
        + ("".join(cards) or "<p>nothing found</p>")
        + "</html>\n"
    )
