"""`reelbank find`: moments of one video or of the whole bank for a few words, without any language model.

Knows the bank, the planner and the frame embedder; no backbone. Channels: the kinds of text lines, and `picture`, the nearness
of frames to the words (clip). Each ranks by itself, the ranks are fused (memory/fusion.py) with the planner's weights.
"""

import base64
import html
import io
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from encoders.errors import UserError
from encoders.text.lines import KINDS
from memory.atomic import write_atomically
from memory.bank import MemoryBank
from memory.fusion import Moment, fuse, widened
from memory.search import ClipRetriever, UniformRetriever
from memory.text_search import Found, Wanted
from pipeline import keeping, planner, units, when
from pipeline.parts import check, part
from pipeline.planner import PICTURE, Plan
from pipeline.when import NOWHERE, Meant

DEPTH = 50  # moments of each channel that are fused
OWN = 64  # videos with stretches of their own that are searched each for itself; of more, what is found elsewhere is left out


@dataclass(frozen=True)
class Finder:
    """Searches a bank."""

    bank: MemoryBank
    channels: tuple[str, ...] = planner.CHANNELS

    def find(
        self,
        question: str,
        video_id: str | None = None,
        *,
        start: float = 0.0,
        end: float = math.inf,
        asked_at: float = math.inf,
        top: int = 10,
    ) -> list[Moment]:
        """At most `top` moments, best first, fused from all channels."""
        plan, meant = self.read(question, video_id)
        return fuse(self.rankings(plan, video_id, meant, start=start, end=end, asked_at=asked_at), plan.weights)[:top]

    def read(self, question: str, video_id: str | None = None) -> tuple[Plan, Meant]:
        """How a question is looked for, and what it says by the clock on the wall."""
        ids = [video_id] if video_id else [row.info.video_id for row in self.bank.videos()]
        meant = when.meant(question, self.bank, ids, time.time())
        return planner.plan(meant.text), meant

    def rankings(
        self,
        plan: Plan,
        video_id: str | None = None,
        meant: Meant | None = None,
        *,
        start: float = 0.0,
        end: float = math.inf,
        asked_at: float = math.inf,
    ) -> dict[str, list[Moment]]:
        """The moments of each channel, best first."""
        everywhere = {}
        for row in self.bank.videos():
            if video_id in (None, row.info.video_id):
                low, high = plan.when(row.info.duration)
                if meant is not None:
                    low, high = meant.within(row.info.video_id, (low, high))
                everywhere[row.info.video_id] = max(start, low), min(end, high)
        spans = {each: span for each, span in everywhere.items() if span[0] < span[1]}
        alike = len(set(everywhere.values())) == 1  # as a rule
        low, high = next(iter(everywhere.values())) if alike else (start, end)
        own = {} if alike or len(spans) > OWN else spans
        found: dict[str, list[Moment]] = {}
        kinds = tuple(channel for channel in self.channels if channel in KINDS)
        if kinds:
            wanted = Wanted(video_id, kinds if set(kinds) != set(KINDS) else (), low, high, asked_at, own)
            for one in self.bank.find_text(plan.query, wanted, DEPTH * len(kinds)) if spans else ():
                inside = spans.get(one.line.video_id, NOWHERE)
                if one.line.kind in kinds and one.line.start < inside[1] and one.line.end > inside[0]:
                    found.setdefault(one.line.kind, []).append(_moment(one))
        if PICTURE in self.channels:
            shown = [
                moment
                for each, span in spans.items()
                for moment in self.bank.rank_frames(plan.text, each, during=span, asked_at=asked_at, most=DEPTH)
            ]
            shown.sort(key=lambda moment: (-moment.score, moment.video_id, moment.start))
            found[PICTURE] = shown[:DEPTH]
        return found


def _moment(found: Found) -> Moment:
    line = found.line
    at = (line.start + min(line.end, line.start + 2.0)) / 2  # early in what may stay for minutes
    return Moment(line.video_id, found.start, found.end, found.score, (line.kind,), (line,), at, found.coverage)


def find(config: DictConfig) -> int:
    """reelbank find."""
    channels = _checked(config)
    retriever: Any = UniformRetriever()
    if PICTURE in channels:
        check(config, "clip")
        channels, retriever = _with_pictures(config, channels)
    with MemoryBank.open(config.bank, None, retriever, recent_frames=0, create=False) as bank:
        video = keeping.video_of(config, bank)
        limits = {
            "start": config.start or 0.0,
            "end": math.inf if config.end is None else config.end,
            "asked_at": math.inf if config.asked_at is None else config.asked_at,
        }
        video_id = None if video is None else video.info.video_id
        finder = Finder(bank, channels)
        plan, meant = finder.read(config.query, video_id)
        moments = fuse(finder.rankings(plan, video_id, meant, **limits), plan.weights)[: config.top]
        rows = {row.info.video_id: row.info for row in bank.videos()}
        moments = [widened(moment, config.widen, rows[moment.video_id].duration) for moment in moments]
        empty = not bank.texts(video_id)
    if meant.note:
        print(f"reelbank: warning: {meant.note}", file=sys.stderr)
    paths = {moment.video_id: rows[moment.video_id].path for moment in moments}
    if config.format == "json":
        print(json.dumps({"query": config.query, "bank": config.bank, "moments": [_told(config, m, paths) for m in moments]}))
    elif config.format == "html":
        write_atomically(Path(config.out), page(config.query, moments, paths).encode())
        print(f"{len(moments)} moments: {config.out}")
    else:
        _show(moments, paths)
        if not moments:
            hint = "; the bank has no words yet, `reelbank ingest text=[subtitles,ocr]` adds them" if empty else ""
            print(f"nothing found{hint}")
    return 0


def _checked(config: DictConfig) -> tuple[str, ...]:
    """UserError on settings that make no sense; the channels."""
    if not str(config.query).strip():
        raise UserError('The query is empty; give a few words, such as query="rebuilt in granite".')
    unknown = [channel for channel in config.channels if channel not in planner.CHANNELS]
    if unknown or not config.channels:
        raise UserError(f"channels={list(config.channels)} are not known; use some of {', '.join(planner.CHANNELS)}")
    if config.format not in ("text", "json", "html"):
        raise UserError(f"format={config.format} is not known; use text, json or html.")
    if config.top < 1:
        raise UserError(f"top={config.top} finds nothing; use 1 or more.")
    if not config.widen >= 0:
        raise UserError(f"widen={config.widen} is below 0; give seconds, 0 or more.")
    for key in ("start", "end", "asked_at"):
        if config[key] is not None and not config[key] >= 0:
            raise UserError(f"{key}={config[key]} is before a video begins; give seconds of video time, 0 or more")
    if config.start is not None and config.end is not None and not config.start < config.end:
        raise UserError(f"start={config.start} is not before end={config.end}; give a start that comes first")
    if config.asked_at is not None and not config.video:
        raise UserError("asked_at= is a second of one video; give video= as well")
    if config.format == "html" and not Path(config.out).absolute().parent.is_dir():
        raise UserError(f"out={config.out} is in a folder that is not there; make it, or choose another path")
    return tuple(dict.fromkeys(config.channels))


def _with_pictures(config: DictConfig, channels: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
    """The retriever of frames; without it where the bank's frames were embedded by another model or a text alone is meant."""
    with MemoryBank.open(config.bank, None, UniformRetriever(), recent_frames=0, create=False) as bank:
        keeping.video_of(config, bank)  # a name that is wrong is told before anything else is
        made = bank.provenance.get("clip")
    clip = part(config, "clip")
    if made is not None and made != clip.fingerprint():
        if channels == (PICTURE,):
            raise UserError(
                f"bank {config.bank} was made with another frame embedder ({made}); give its clip=, or channels without picture"
            )
        print("reelbank: warning: pictures are left out: the bank's were embedded by another clip=", file=sys.stderr)
        return tuple(channel for channel in channels if channel != PICTURE), UniformRetriever()
    return channels, ClipRetriever(embedder=clip)


def _told(config: DictConfig, moment: Moment, paths: dict[str, str]) -> dict[str, Any]:
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
            f"{units.on_the_clock(m.start)}-{units.on_the_clock(m.end)} ({m.start:.1f}-{m.end:.1f} s)",
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
        when = f"{units.on_the_clock(moment.start)}-{units.on_the_clock(moment.end)}"
        image = f'<img src="data:image/jpeg;base64,{data}" alt="video at {when}">' if data else "<p>no picture</p>"
        lines = "".join(
            f"<li><b>{html.escape(line.kind)}</b> <bdi>{html.escape(line.text)}</bdi></li>" for line in moment.lines
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
