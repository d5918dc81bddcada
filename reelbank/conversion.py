"""Records of the engine -> records that a caller gets."""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from reelbank.records import Answer, Evidence, Hit, Hits, Moment, Report, Span, Video
from reelbank.summary import Chapter, Sentence, Summary

if TYPE_CHECKING:
    from memory.storage.catalog import VideoRow
    from pipeline import schema
    from pipeline.engine import Engine
    from pipeline.moments.picture_query import PictureQuery
    from pipeline.moments.search import SearchResult
    from pipeline.summary import schema as summary_schema


def to_video(engine: "Engine", row: "VideoRow") -> Video:
    """A row of the catalog."""
    from memory.union.bank_union import folder_of

    catalog, info = engine.reader.catalog, row.info
    folder = folder_of(engine.reader, info.video_id)
    _, encoded = catalog.next(info.video_id)
    seconds = catalog.duration(row)
    return Video(info.video_id, info.path, seconds, encoded, row.finished, str(folder))


def to_report(engine: "Engine", report: "schema.IngestReport") -> Report:
    """What an encoding did."""
    return Report(
        to_video(engine, engine.video(report.video_id)),
        report.frames,
        report.new_segments,
        report.nbytes,
        report.seconds["total"],
        report.warning,
        dict(report.text_lines),
    )


def to_answer(engine: "Engine", answer: "schema.Answer") -> Answer:
    """An answer with its video in place of the video's id."""
    own = [line.video_id or answer.video_id for line in answer.lines]
    ids = dict.fromkeys([answer.video_id, *(one.video_id for one in answer.videos), *own])
    videos = {each: to_video(engine, engine.video(each)) for each in ids}
    video = videos[answer.video_id]
    frames = (
        Evidence(videos[one.video_id], one.time, one.end, "frame", float(one.weight))
        for one in answer.cited
    )
    lines = (
        Evidence(videos[which], one.start, one.end, one.channel, one.coverage, one.text, one.read)
        for which, one in zip(own, answer.lines, strict=True)
    )
    others = [one for one in answer.videos if one.video_id != answer.video_id]
    spans = [(video, span) for span in answer.spans]
    spans += [(videos[one.video_id], span) for one in others for span in one.spans]
    return Answer(
        answer.question,
        answer.text,
        tuple(Span(which, *span) for which, span in spans),
        (*frames, *lines),
        video,
        answer.shown,
        answer.asked_at,
        answer.warning,
        answer.seconds["total"],
    )


def to_hits(engine: "Engine", result: "SearchResult") -> Hits:
    """The moments of a search."""
    videos = {each: to_video(engine, engine.video(each)) for each in result.videos}
    return Hits(
        tuple(
            Hit(
                videos[one.video_id],
                one.start,
                one.end,
                one.score,
                one.channels,
                " / ".join(dict.fromkeys(line.text for line in one.lines)),
                one.at,
            )
            for one in result.moments
        ),
        tuple(result.notes),
    )


def to_picture(
    image: str | PathLike[str] | bytes | None, like: Moment | None
) -> "PictureQuery | None":
    """What moments have to look like. UserError where both are given."""
    if image is None and like is None:
        return None
    # it loads a decoder of films
    from pipeline.moments.picture_query import LikeMoment, PictureBytes, PictureFile

    if image is not None and like is not None:
        raise UserError("image= and like= are two pictures; give one of them")
    if like is not None:
        return LikeMoment(like.video.id, like.start, like.end)
    assert image is not None
    if isinstance(image, bytes):
        return PictureBytes(image)
    return PictureFile(Path(image).expanduser())


def to_summary(engine: "Engine", summary: "summary_schema.Summary") -> Summary:
    """A summary, with what writes its files."""
    from pipeline.commands.output.summary_report import SummaryReport

    ids = dict.fromkeys(film.info.video_id for film in summary.films)
    videos = {each: to_video(engine, engine.video(each)) for each in ids}

    def sentences(cited: "tuple[summary_schema.CitedSentence, ...]") -> tuple[Sentence, ...]:
        return tuple(
            Sentence(videos[one.video_id], one.start, one.end, one.text, one.channel, one.is_quoted)
            for one in cited
        )

    chapters = tuple(
        Chapter(
            videos[one.video_id],
            one.start,
            one.end,
            one.title,
            sentences(one.sentences),
            one.pictures[0],
        )
        for one in summary.chapters
    )
    return Summary(
        summary.title,
        tuple(videos.values()),
        sentences(summary.sentences),
        chapters,
        summary.notes,
        SummaryReport(summary, lambda: engine.reader.catalog),
    )
