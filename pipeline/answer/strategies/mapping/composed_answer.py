"""An answer that several passes of the model made together. Knows no strategy by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from encoders.text.lines import TextLine
from memory.schema import Question
from pipeline.answer.citations import Span, union
from pipeline.answer.strategies.call_log import CallLog, sentences
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import (
    NOT_SHOWN,
    PICTURE,
    Answer,
    Basis,
    CitedBy,
    CitedLine,
    Trace,
    is_shown,
)

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


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
    basis: Sequence[Basis] | None = None,
    reused: int = 0,
    notes: Sequence[str] = (),
    channel: str = PICTURE,
    cited_by: CitedBy = "finding",
) -> Answer:
    """text: "" becomes "not in the video". lines: what the answer rests on; those that its spans
    touch are cited. basis: None: each sentence rests on all lines."""
    text = text.strip() or NOT_SHOWN
    shown = is_shown(text)
    if basis is None:
        spans = tuple(union((line.start, line.end) for line in lines))
        basis = [Basis(one, spans) for one in sentences(text)]
    cited = union(span for one in basis for span in one.spans) if shown else []
    spans = tuple((round(start, 3), round(end, 3)) for start, end in cited)
    trace = Trace(strategy, why, tuple(log.calls), _basis_of(basis, shown), reused, tuple(notes))
    return Answer(
        question=question.text,
        text=text,
        shown=shown,
        spans=spans,
        cited=(),
        video_id=question.video_id,
        asked_at=answerer.moment(question),
        frames_read=sum(call.frames for call in log.calls),
        visual_tokens=trace.visual_tokens,
        seconds=timer.seconds | {"total": timer.total()},
        warning=answerer.warnings(question),
        lines=_cited(lines, spans) if shown else (),
        cited_by=cited_by,
        channel=channel if shown else "",
        trace=trace,
    )


def _basis_of(basis: Sequence[Basis], shown: bool) -> tuple[Basis, ...]:
    """An answer that shows nothing rests on nothing."""
    return tuple(basis) if shown else tuple(Basis(one.text, ()) for one in basis)


def _cited(lines: Sequence[TextLine], spans: Sequence[Span]) -> tuple[CitedLine, ...]:
    return tuple(
        CitedLine(line.start, line.end, line.kind, line.text, 1.0, True)
        for line in lines
        if any(start < line.end and line.start < end for start, end in spans)
    )
