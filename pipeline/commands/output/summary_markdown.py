"""A summary as Markdown: for the terminal without pictures, for a file with pictures inside."""

import re
from collections.abc import Iterator
from pathlib import Path

from memory.retrieval.fusion import Moment
from pipeline.commands.output.thumbnails import Thumbnails
from pipeline.config.units import format_duration, format_moment, format_time
from pipeline.schema import CHANNEL_WORDS
from pipeline.summary.schema import Chapter, CitedSentence, FilmSummary, Summary

_SPECIAL = re.compile(r"([\\`*_<\[\]])")
_AT_START = re.compile(r"^(#{1,6} |[-+>] ?|\d+[.)] )")


def summary_markdown(summary: Summary, thumbnails: Thumbnails | None = None) -> str:
    """Markdown with a heading for each film and chapter. thumbnails: None: without pictures."""
    return "\n".join(_lines(summary, thumbnails)).rstrip() + "\n"


def _lines(summary: Summary, thumbnails: Thumbnails | None) -> Iterator[str]:
    yield from (f"# {_plain(summary.title)}", "")
    if summary.sentences:
        yield from ("## Summary", "")
        yield from (_item(each, summary) for each in summary.sentences)
        yield ""
    for film in summary.films:
        yield from (f"## {_plain(heading(film))}", "")
        for chapter in film.chapters:
            yield from (f"### {times(chapter)} {_plain(chapter.title)}", "")
            for at in chapter.pictures if thumbnails is not None else ():
                data = thumbnails.of(_moment(chapter, at)) if thumbnails is not None else None
                if data is not None:
                    yield from (f"![{alt(chapter, at)}](data:image/jpeg;base64,{data})", "")
            yield from (_item(each, None) for each in chapter.sentences)
            if chapter.sentences:
                yield ""
    yield from (f"{_plain(note)}\n" for note in summary.notes if thumbnails is not None)


def heading(film: FilmSummary) -> str:
    """Such as "talk.mp4, 12.5 min"."""
    name = Path(film.info.path).name or film.info.video_id
    seconds = film.end - film.start
    whole = f"{name}, {format_duration(seconds)}"
    if film.start <= 0:
        return whole
    return f"{whole} from {format_time(film.start)}"


def times(chapter: Chapter) -> str:
    """When a chapter is, with the clock on the wall where the film knows it."""
    video = f"{format_time(chapter.start)}-{format_time(chapter.end)}"
    return video if chapter.wall is None else f"{video} ({format_moment(chapter.wall)})"


def alt(chapter: Chapter, at: float) -> str:
    """What a picture is, in words."""
    return f"The film at {format_time(at)}, in the chapter {_words(chapter.title)}"


def origin(sentence: CitedSentence) -> str:
    """How a sentence reached the viewer, or that a model wrote it."""
    if not sentence.is_quoted:
        return "by the model"
    return CHANNEL_WORDS.get(sentence.channel, sentence.channel)


def _moment(chapter: Chapter, at: float) -> Moment:
    return Moment(chapter.video_id, at, at, 0.0, (), (), at)


def _item(sentence: CitedSentence, summary: Summary | None) -> str:
    """A sentence with its span. summary: names the film where there are several."""
    text = _plain(sentence.text)
    said = f'"{text}"' if sentence.is_quoted else text
    film = ""
    if summary is not None and len(summary.films) > 1:
        info = next(each.info for each in summary.films if each.info.video_id == sentence.video_id)
        film = f"{_plain(Path(info.path).name or info.video_id)} "
    span = f"{format_time(sentence.start)}-{format_time(sentence.end)}"
    return f"- {said} ({film}{span}, {origin(sentence)})"


def _plain(text: str) -> str:
    """Words that Markdown takes as they are."""
    escaped = _SPECIAL.sub(r"\\\1", _words(text))
    return _AT_START.sub(r"\\\1", escaped)


def _words(text: str) -> str:
    return " ".join(text.split())
