"""Rows of a run -> scores.jsonl: what each scorer says of each answer.

A row of scores.jsonl: id, job, metrics (column -> number), errors (scorer -> one sentence), and
judgements (scorer -> model, prompt, reply). Rows of answers.jsonl hold all that is needed, so that
a run can be scored again without its job file and its model. Knows no scorer by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage import json_lines
from memory.storage.atomic import replacing
from pipeline.batch.run_folder import Row
from pipeline.config.parts import check, instantiate
from pipeline.config.settings import PartSettings
from pipeline.schema import Basis
from pipeline.scorers.schema import AnsweredQuestion, Scorer, column
from pipeline.scorers.spans import Span

Scorers = Mapping[str, Scorer]  # by the name of their option


def build_scorers(nodes: Mapping[str, PartSettings]) -> dict[str, Scorer]:
    """The scorers of a run. UserError on settings that cannot work."""
    for name, node in nodes.items():
        check(f"score.{name}", node)
    return {name: instantiate(f"score.{name}", node) for name, node in nodes.items()}


def score_rows(rows: Sequence[Row], scorers: Scorers) -> list[Row]:
    """Rows of scores.jsonl, one for each answered row, in order.

    A group with a question that failed has no number until that question is answered.
    """
    broken = {row["group"] for row in rows if row["error"] is not None}
    scored: list[Row] = []
    questions: list[AnsweredQuestion] = []
    places: list[int] = []  # of the questions among the scored rows
    for row in rows:
        if row["error"] is not None:
            continue
        errors = {}
        try:
            question = question_of(row)
        except UserError as error:
            errors = {name: str(error) for name in scorers}
        else:
            places.append(len(scored))
            questions.append(replace(question, group="") if question.group in broken else question)
        scored.append(
            {
                "id": row["id"],
                "job": row["job"],
                "metrics": {},
                "errors": errors,
                "judgements": {},
            }
        )
    for name, scorer in scorers.items():
        for place, score in zip(places, scorer(questions), strict=True):
            row = scored[place]
            row["metrics"] |= {
                column(name, number, scorer): value for number, value in score.numbers.items()
            }
            if score.error:
                row["errors"][name] = score.error
            if score.judgement is not None:
                row["judgements"][name] = asdict(score.judgement)
    return scored


def question_of(row: Row) -> AnsweredQuestion:
    """A row of answers.jsonl as scorers take it. UserError on one that is damaged."""
    try:
        cited, recalled = _spans(row["spans"]), _spans(row.get("recalled") or ())
        if film := row.get("evidence_video"):  # of several: what is of another one does not count
            cited = cited if film == row["video_id"] else ()
            recalled = _spans(
                span for each in row["videos"] if each["video_id"] == film for span in each["spans"]
            )
        truth, options = row["truth"], tuple(row["options"])
        is_open = not options and truth is not None
        return AnsweredQuestion(
            id=row["id"],
            video=row["video"],
            question=row["question"],
            answer=row["answer"] or "",
            # columns that rows of earlier versions lack have their defaults
            references=(truth, *(row.get("accepted") or ())) if is_open else (),
            rule=row.get("rule") or "",
            options=options,
            letter=truth if options else None,
            choice=row["choice"],
            evidence=_spans(row.get("evidence") or ()),
            recalled=recalled,
            found=_found_spans(row),
            in_time=row.get("in_time"),
            cited=cited,
            best=_best(row["cited"], cited),
            is_quote=row.get("cited_by") == "quote",
            basis=tuple(
                Basis(str(one["text"]), _spans(one["spans"])) for one in row.get("basis") or ()
            ),
            group=row["group"],
            pair=row.get("pair") or "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the row of id {row.get('id')} is no row of a batch ({error}); run the batch again"
        ) from error


def _spans(values: Any) -> tuple[Span, ...]:
    return tuple((float(start), float(end)) for start, end in values)


def _found_spans(row: Row) -> tuple[Span | None, ...] | None:
    """The moments of a search, None for those of another video than the evidence's."""
    if row.get("found") is None:
        return None
    spans, videos = _spans(one[:2] for one in row["found"]), row.get("found_videos") or ()
    if not row.get("evidence_video"):
        return spans
    pairs = zip(spans, videos, strict=True)
    return tuple(span if each == row["evidence_video"] else None for span, each in pairs)


def _best(cited: Sequence[Mapping[str, Any]], spans: Sequence[Span]) -> Span | None:
    """The span of the heaviest cited frame; without frames, as in a quote, the first span."""
    times = [frame["time"] for frame in cited[:1]]
    return next(
        (span for span in spans for time in times if span[0] <= time < span[1]),
        spans[0] if spans else None,
    )


def write_scores(path: Path, scored: Sequence[Row]) -> None:
    """Write scores.jsonl, all at once."""
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(json_lines.encode(scored))


def with_metrics(rows: Sequence[Row], scored: Sequence[Row]) -> list[Row]:
    """The rows with what answers.parquet says of their scores."""
    metrics = {row["id"]: row["metrics"] for row in scored}
    return [row | {"metrics": metrics.get(row["id"], {})} for row in rows]
