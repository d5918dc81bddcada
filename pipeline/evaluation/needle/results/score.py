"""Rows -> scores. Answers, evidence, citations and costs are scored apart.

Intervals are 95 %, resampling films. Accuracy covers items whose answer is in the film; questions
about what is not shown have a false-positive rate of their own. Knows rows only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from pipeline.evaluation.needle.results.rows import question_of
from pipeline.scorers.citation_f1 import CitationF1
from pipeline.scorers.evidence_recall import EvidenceRecall
from pipeline.scorers.schema import Scorer
from pipeline.scorers.temporal_iou import TemporalIoU
from pipeline.scoring import share

ResultRow = Mapping[str, Any]
Pairs = list[tuple[str, float]]  # (film, outcome)
KS = (1, 2, 4, 8, 16, 24, 32, 64)
IOU, RECALL = TemporalIoU(pick="all", thresholds=[]), EvidenceRecall()
CITATION = CitationF1(unit="spans")
_ENCODING = ("decode", "look", "compress", "prefill", "clip")  # stages in the table


def cell(pairs: Pairs) -> str:
    """ "97.5 (95.0-99.2), n=120": per cent, interval, count. No interval for a single film."""
    mean, low, high, number = share(pairs)
    if not number:
        return "-"
    spread = f" ({100 * low:.1f}-{100 * high:.1f})" if len({film for film, _ in pairs}) > 1 else ""
    return f"{100 * mean:.1f}{spread}, n={number}"


def answerable(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """The rows whose answer the film shows."""
    return [row for row in rows if row["options"]]


def accuracy(rows: Iterable[ResultRow]) -> Pairs:
    """Free answers, exact up to case and a full stop."""
    return [(row["film"], row["right"]) for row in answerable(rows)]


def choice(rows: Iterable[ResultRow]) -> Pairs:
    """Whether the chosen option is the right one; chance is 25 %."""
    return [(row["film"], row["chose_right"]) for row in answerable(rows)]


def false_positives(rows: Iterable[ResultRow]) -> Pairs:
    """Whether a question about what no card shows got an answer."""
    return [(row["film"], row["shown"]) for row in rows if not row["options"]]


def evidence(rows: Iterable[ResultRow]) -> Pairs:
    """Whether a frame of each needle was read."""
    return [(row["film"], is_found) for row in answerable(rows) for is_found in row["found"]]


def recall_at(rows: Iterable[ResultRow], k: int) -> Pairs:
    """Whether a frame of each needle is among the first k of the ranking."""
    return [
        (row["film"], rank is not None and rank <= k)
        for row in answerable(rows)
        for rank in row["ranks"]
    ]


def numbers(rows: Iterable[ResultRow], scorer: Scorer, name: str) -> Pairs:
    """One number of a scorer, of each row that has it."""
    questions = [question_of(dict(row)) for row in answerable(rows)]
    return [
        (question.video, score.numbers[name])
        for question, score in zip(questions, scorer(questions), strict=True)
        if name in score.numbers
    ]


def cited(rows: Iterable[ResultRow], scorer: Scorer, name: str) -> Pairs:
    """The same of right answers alone: what a wrong one cites says nothing about citing."""
    return numbers((row for row in rows if row["right"]), scorer, name)


def by(rows: Iterable[ResultRow], name: str) -> dict[Any, list[ResultRow]]:
    """Groups of rows by the value of a field, in order of appearance."""
    groups: dict[Any, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    return groups


def grid_depth(depth: float, depths: Sequence[float]) -> float:
    """The depth of the grid that a needle was made for."""
    return min(depths, key=lambda d: abs(d - depth))


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(line) + " |" for line in lines),
    ]


def by_task(
    rows: Sequence[ResultRow], outcome: Callable[[Iterable[ResultRow]], Pairs]
) -> list[str]:
    """Markdown: arms down, tasks across."""
    tasks = list(by(answerable(rows), "task"))
    lines = []
    for arm, own in by(rows, "arm").items():
        cells = [cell(outcome(row for row in own if row["task"] == task)) for task in tasks]
        lines.append([arm, *cells, cell(outcome(own))])
    return markdown(["", *tasks, "all"], lines)


def by_length(rows: Sequence[ResultRow], task: str) -> list[str]:
    """Markdown: arms down; accuracy and evidence recall at each length across."""
    own = [row for row in rows if row["task"] == task]
    lengths = sorted(by(own, "minutes"))
    lines = []
    for arm, mine in by(own, "arm").items():
        at = by(mine, "minutes")
        lines.append(
            [arm, *(cell(of(at.get(m, []))) for of in (accuracy, evidence) for m in lengths)]
        )
    heads = [f"{what}, {m:g} min" for what in ("right", "evidence") for m in lengths]
    return markdown([task, *heads], lines)


def evidence_table(rows: Sequence[ResultRow]) -> list[str]:
    """Markdown: evidence found and cited, and answers where there was nothing to find."""
    lines = []
    for arm, own in by(rows, "arm").items():
        lines.append(
            [
                arm,
                cell(evidence(own)),
                *(
                    f"{100 * share(recall_at(own, k))[0]:.1f}" if _ranks(own) else "-"
                    for k in (1, 4, 16)
                ),
                cell(numbers((row for row in own if "recalled" in row), RECALL, "recalled")),
                *(cell(cited(own, CITATION, name)) for name in ("precision", "recall")),
                cell(cited(own, IOU, "mean")),
                cell(false_positives(own)),
            ]
        )
    head = [
        "",
        "needles read",
        "@1",
        "@4",
        "@16",
        "seconds read",
        "citation precision",
        "citation recall",
        "IoU",
        "false positives on not shown",
    ]
    return markdown(head, lines)


def _ranks(rows: Sequence[ResultRow]) -> bool:
    """Whether these rows have a ranking; most controls read fixed frames."""
    return bool(recall_at(rows, 1))


def cost_table(rows: Sequence[ResultRow]) -> list[str]:
    """Markdown: median milliseconds of each stage, tokens and bytes read."""
    stages = ("search", "load", "lay_out", "first_token", "decode")
    lines = []
    for arm, own in by(rows, "arm").items():
        for minutes, mine in sorted(by(own, "minutes").items()):
            times = [
                f"{1000 * median(row['seconds'].get(stage, 0.0) for row in mine):.0f}"
                for stage in stages
            ]
            whole = median(sum(row["seconds"].get(stage, 0.0) for stage in stages) for row in mine)
            tokens = median(row["visual_tokens"] for row in mine)
            size = median(row["read_bytes"] for row in mine) / 1e6
            lines.append(
                [arm, f"{minutes:g}", *times, f"{1000 * whole:.0f}", f"{tokens:.0f}", f"{size:.2f}"]
            )
    return markdown(
        ["", "minutes", *(f"{stage} ms" for stage in stages), "all ms", "tokens read", "MB read"],
        lines,
    )


def encoding_table(encodings: Sequence[ResultRow]) -> list[str]:
    """Markdown: milliseconds a frame of each encoding stage, by bank and length."""
    lines = []
    # a resumed encoding timed only a part of its film
    whole = [row for row in encodings if row["new_segments"] == row["segments"]]
    for (bank, minutes), own in sorted(_grouped(whole).items()):
        frames = sum(row["frames"] for row in own)
        seconds = sum(row["seconds"]["total"] for row in own)
        stages = {name: sum(row["seconds"].get(name, 0.0) for row in own) for name in _ENCODING}
        size = sum(row["nbytes"] for row in own) / max(frames, 1)
        cells = [f"{1000 * s / max(frames, 1):.1f}" for s in stages.values()]
        lines.append(
            [
                bank,
                f"{minutes:g}",
                f"{len(own)}",
                f"{frames / max(seconds, 1e-9):.1f}",
                *cells,
                f"{size / 1000:.1f}",
            ]
        )
    head = [
        "bank",
        "minutes",
        "films",
        "frames/s",
        "render ms a frame",
        "look ms",
        "compress ms",
        "prefill ms",
        "clip ms",
        "kB a frame",
    ]
    return markdown(head, lines)


def _grouped(rows: Iterable[ResultRow]) -> dict[tuple[str, float], list[ResultRow]]:
    groups: dict[tuple[str, float], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row["bank"], round(row["video_seconds"] / 60, 1)), []).append(row)
    return groups
