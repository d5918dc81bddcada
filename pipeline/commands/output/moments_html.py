"""The page that `reelbank find format=html` writes: a card with a picture for each moment."""

import html
from collections.abc import Mapping, Sequence

from memory.retrieval.fusion import Moment
from pipeline.commands.output import html_page
from pipeline.commands.output.thumbnails import Thumbnails
from pipeline.config.units import format_time

_STYLE = (
    "body{font:16px system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;"
    "background:#fafafa;color:#1b1b1b}"
    "section{display:flex;gap:1rem;background:#fff;border-radius:6px;padding:.8rem;margin:1rem 0}"
    "img{width:320px;height:auto;border-radius:4px}h2{font-size:1.05rem;margin:.2rem 0}"
    "p{color:#555;font-size:.9rem}"
)


def moments_page(
    query: str, moments: Sequence[Moment], paths: Mapping[str, str], thumbnails: Thumbnails
) -> str:
    """One self-contained HTML page. paths: video id -> file."""
    cards = "".join(_card(moment, paths[moment.video_id], thumbnails) for moment in moments)
    body = f"<h1>{html.escape(query)}</h1>" + (cards or "<p>nothing found</p>")
    return html_page.page(query, _STYLE, body)


def _card(moment: Moment, path: str, thumbnails: Thumbnails) -> str:
    times = "-".join(format_time(each, hours="always") for each in (moment.start, moment.end))
    data = thumbnails.of(moment)
    image = "<p>no picture</p>"
    if data is not None:
        image = f'<img src="data:image/jpeg;base64,{data}" alt="video at {times}">'
    lines = "".join(
        f"<li><b>{html.escape(line.kind)}</b> <bdi>{html.escape(line.text)}</bdi></li>"
        for line in moment.lines
    )
    channels = html.escape(", ".join(moment.channels))
    return (
        f"<section>{image}<div><h2>{times}</h2><p>{channels}; score {moment.score:.4f}<br>"
        f"{html.escape(path)}</p><ul>{lines}</ul></div></section>"
    )
