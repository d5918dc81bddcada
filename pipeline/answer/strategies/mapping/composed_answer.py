"""An answer that several passes of the model made together. Knows no strategy by name."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from encoders.text.lines import TextLine
from memory.schema import GREEDY, Question, VideoSpan
from pipeline.answer.citations import union_by_video
from pipeline.answer.strategies.call_log import CallLog, sentences
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import (
    NOT_SHOWN,
    PICTURE,
    Answer,
    Basis,
    CitedBy,
    CitedLine,
    CitedVideo,
    Reading,
    Trace,
    is_shown,
)
from pipeline.scorers.spans import Span

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

UNWRITTEN = (
    "No pass of the model wrote this answer, so max_tokens, stop and temperature have no effect "
    "on it."
)


def composed_answer(
    question: Question,
    answerer: "Answerer",
    log: CallLog,
    timer: StageTimer,
    *,
    strategy: str,
    why: str,
    text: str,
    lines: Sequence[TextLine],
    basis: Sequence[tuple[str, Sequence[VideoSpan]]] | None = None,
    reused: int = 0,
    notes: Sequence[str] = (),
    channel: str = PICTURE,
    cited_by: CitedBy = "finding",
    reading: Reading | None = None,
) -> Answer:
    """text: "" becomes "not in the video" where no stop text ended it. lines: what the answer rests
    on; those that its spans touch are cited. basis: each sentence or item with its spans; None:
    each sentence rests on all lines. reading: of the pass of the model that wrote the text; None:
    no pass did."""
    is_stopped = reading is not None and reading.is_stopped
    text = text.strip() or ("" if is_stopped else NOT_SHOWN)
    shown = bool(text) and is_shown(text)
    if basis is None:
        spans = union_by_video(VideoSpan(line.video_id, line.start, line.end) for line in lines)
        basis = [(one, spans) for one in sentences(text)]
    cited = _by_video(question, [spans for _, spans in basis] if shown else [])
    video_id = max(cited, key=lambda each: sum(end - start for start, end in cited[each]))
    several = len(question.videos) > 1
    bases = [_basis(one, spans if shown else (), video_id, several) for one, spans in basis]
    is_unheeded = reading is None and question.generation != GREEDY
    trace = Trace(strategy, why, tuple(log.calls), tuple(bases), reused, tuple(notes))
    return Answer(
        question=question.text,
        text=text,
        shown=shown,
        spans=cited[video_id],
        cited=(),
        video_id=video_id,
        asked_at=answerer.moment(question),
        frames_read=sum(call.frames for call in log.calls),
        visual_tokens=trace.visual_tokens,
        seconds=timer.seconds | {"total": timer.total()},
        warning=" ".join(
            filter(None, [answerer.warnings(question), UNWRITTEN if is_unheeded else ""])
        ),
        lines=_cited_lines(lines, cited) if shown else (),
        cited_by=cited_by,
        channel=channel if shown else "",
        trace=trace,
        videos=_videos(answerer, cited) if several else (),
        is_cut=reading is not None and reading.is_cut,
        is_stopped=is_stopped,
    )


def _by_video(
    question: Question, spans: Iterable[Iterable[VideoSpan]]
) -> dict[str, tuple[Span, ...]]:
    """The cited seconds of each of the question's videos, in their order."""
    cited: dict[str, list[Span]] = {video_id: [] for video_id in question.videos}
    for video_id, start, end in union_by_video(chain.from_iterable(spans)):
        cited[video_id].append((round(start, 3), round(end, 3)))
    return {video_id: tuple(own) for video_id, own in cited.items()}


def _basis(text: str, spans: Sequence[VideoSpan], video_id: str, several: bool) -> Basis:
    """What one sentence rests on. video_id: that the answer rests on most."""
    own = tuple((start, end) for which, start, end in spans if which == video_id)
    return Basis(text, own, tuple(spans) if several else ())


def _cited_lines(
    lines: Sequence[TextLine], cited: Mapping[str, Sequence[Span]]
) -> tuple[CitedLine, ...]:
    return tuple(
        CitedLine(line.start, line.end, line.kind, line.text, 1.0, True, line.video_id)
        for line in lines
        if any(start < line.end and line.start < end for start, end in cited[line.video_id])
    )


def _videos(answerer: "Answerer", cited: Mapping[str, tuple[Span, ...]]) -> tuple[CitedVideo, ...]:
    """The cited videos, with their files."""
    rows = {row.info.video_id: row for row in answerer.bank.catalog.videos()}
    return tuple(
        CitedVideo(video_id, rows[video_id].info.path, spans, ())
        for video_id, spans in cited.items()
        if spans
    )
