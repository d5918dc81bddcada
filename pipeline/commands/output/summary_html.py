"""The page that `reelbank summary -o report.html` writes: self-contained, without scripts."""

import html
from collections.abc import Iterator

from memory.retrieval.fusion import Moment
from pipeline.commands.output import html_page
from pipeline.commands.output.summary_markdown import alt, heading, origin, times
from pipeline.commands.output.thumbnails import Thumbnails
from pipeline.config.units import format_time
from pipeline.summary.schema import Chapter, CitedSentence, FilmSummary, Summary

_STYLE = """
:root{color-scheme:light dark;--paper:#fafafa;--card:#fff;--ink:#1b1b1b;--soft:#555;
--link:#0b57d0;--line:#ddd}
@media (prefers-color-scheme:dark){:root{--paper:#15171a;--card:#1f2226;--ink:#e8e8e8;
--soft:#b3b7bd;--link:#8ab4f8;--line:#3a3f46}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;
background:var(--paper);color:var(--ink)}
h1{font-size:1.6rem;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2rem 0 .5rem;overflow-wrap:anywhere}
h3{font-size:1.05rem;margin:0 0 .3rem}
a{color:var(--link)}a:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{position:static}
ol,ul{padding-left:1.3rem;margin:.3rem 0}li{margin:.35rem 0;overflow-wrap:anywhere}
nav ol{list-style:none;padding:0}nav li{margin:0}
nav a{display:flex;gap:.8rem;padding:.3rem 0;min-height:1.75rem}
nav time,.when{font-variant-numeric:tabular-nums}
.when,.note{color:var(--soft);font-size:.9rem;margin:.2rem 0}span.when{white-space:nowrap}
article{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;
margin:.8rem 0;display:grid;grid-template-columns:minmax(9rem,16rem) 1fr;gap:.8rem 1rem}
article.plain{grid-template-columns:1fr}
.pictures{display:grid;gap:.4rem;align-content:start}
.pictures img{width:100%;height:auto;border-radius:4px;display:block}
.scenes{grid-template-columns:repeat(auto-fill,minmax(9rem,1fr))}
@media (max-width:36rem){article{grid-template-columns:1fr}}
@media print{body{background:#fff;color:#000}article{break-inside:avoid}}
"""


def summary_page(summary: Summary, thumbnails: Thumbnails) -> str:
    """One self-contained HTML page."""
    names = {film.info.video_id: heading(film) for film in summary.films}
    numbers = {id(chapter): number for number, chapter in enumerate(summary.chapters, 1)}
    body = (
        '<a class="skip" href="#chapters">To the chapters</a>'
        f"<header><h1>{_text(summary.title)}</h1>{_notes(summary)}</header><main>"
        f"{_overview(summary, names)}{_contents(summary, numbers)}"
        + "".join(_film(film, numbers, thumbnails) for film in summary.films)
        + "</main>"
    )
    return html_page.page(summary.title, _STYLE, body)


def _notes(summary: Summary) -> str:
    by = (
        f"Sentences by {summary.model}; each one names what it rests on."
        if summary.model
        else "All sentences and titles are words of the film, quoted."
    )
    return "".join(f'<p class="note">{_text(note)}</p>' for note in (by, *summary.notes))


def _overview(summary: Summary, names: dict[str, str]) -> str:
    if not summary.sentences:
        return ""
    several = len(summary.films) > 1
    items = "".join(
        _item(each, summary, names[each.video_id] if several else "") for each in summary.sentences
    )
    return (
        '<section aria-labelledby="summary"><h2 id="summary">Summary</h2>'
        f"<ul>{items}</ul></section>"
    )


def _contents(summary: Summary, numbers: dict[int, int]) -> str:
    items = "".join(
        f'<li><a href="#chapter-{numbers[id(chapter)]}">{_time(chapter.start)} '
        f"<bdi>{_text(chapter.title)}</bdi></a></li>"
        for chapter in summary.chapters
    )
    return (
        '<nav aria-labelledby="chapters"><h2 id="chapters" tabindex="-1">Chapters</h2>'
        f"<ol>{items}</ol></nav>"
    )


def _film(film: FilmSummary, numbers: dict[int, int], thumbnails: Thumbnails) -> str:
    label = f"film-{numbers[id(film.chapters[0])] if film.chapters else 0}"
    chapters = "".join(
        _chapter(chapter, numbers[id(chapter)], thumbnails) for chapter in film.chapters
    )
    return (
        f'<section aria-labelledby="{label}"><h2 id="{label}">{_text(heading(film))}</h2>'
        f"{chapters}</section>"
    )


def _chapter(chapter: Chapter, number: int, thumbnails: Thumbnails) -> str:
    label = f"chapter-{number}"
    pictures = "".join(_pictures(chapter, thumbnails))
    kind = "pictures scenes" if len(chapter.pictures) > 1 else "pictures"
    shown = f'<div class="{kind}">{pictures}</div>' if pictures else ""
    plain = "" if pictures and len(chapter.pictures) == 1 else ' class="plain"'
    items = "".join(_item(each) for each in chapter.sentences)
    words = f"<ul>{items}</ul>" if items else '<p class="note">No words were found here.</p>'
    return (
        f'<article{plain} aria-labelledby="{label}">{shown}<div><h3 id="{label}" tabindex="-1">'
        f'<bdi>{_text(chapter.title)}</bdi></h3><p class="when">{_text(times(chapter))}</p>'
        f"{words}</div></article>"
    )


def _pictures(chapter: Chapter, thumbnails: Thumbnails) -> Iterator[str]:
    for at in chapter.pictures:
        data = thumbnails.of(Moment(chapter.video_id, at, at, 0.0, (), (), at))
        if data is not None:
            yield f'<img src="data:image/jpeg;base64,{data}" alt="{_text(alt(chapter, at))}">'


def _item(sentence: CitedSentence, summary: Summary | None = None, film: str = "") -> str:
    """summary: links to the chapter of the sentence. film: its name, where there are several."""
    text = f"<bdi>{_text(sentence.text)}</bdi>"
    said = f"<q>{text}</q>" if sentence.is_quoted else text
    span = f"{_time(sentence.start)}\u2013{_time(sentence.end)}"
    if summary is not None:
        chapters = summary.chapters
        number = next(
            (n for n, chapter in enumerate(chapters, 1) if sentence in chapter.sentences), 1
        )
        span = f'<a href="#chapter-{number}">{span}</a>'
    where = f"{_text(film)}, " if film else ""
    return f'<li>{said} <span class="when">{where}{span}, {_text(origin(sentence))}</span></li>'


def _time(seconds: float) -> str:
    return f'<time datetime="PT{seconds:.3f}S">{format_time(seconds)}</time>'


def _text(text: str) -> str:
    return html.escape(text)
