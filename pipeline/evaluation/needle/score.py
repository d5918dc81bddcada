"""Rows -> figures. Answers, evidence, citations and costs are scored apart; intervals are 95 %, resampling films.

Accuracy is over items whose answer is shown; what is not shown has a false-positive rate of its own. Knows rows only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from pipeline.evaluation.needle.schema import Spans
from pipeline.scoring import share

Row = Mapping[str, Any]
Pairs = list[tuple[str, float]]  # (film, outcome)
KS = (1, 2, 4, 8, 16, 24, 32, 64)
_ENCODING = ("decode", "look", "compress", "prefill", "clip")  # stages in the table


def cell(pairs: Pairs) -> str:
    """ "97.5 (95.0-99.2), n=120": per cent, interval, count; one film alone says nothing of others and has no interval."""
    mean, low, high, number = share(pairs)
    if not number:
        return "-"
    spread = f" ({100 * low:.1f}-{100 * high:.1f})" if len({film for film, _ in pairs}) > 1 else ""
    return f"{100 * mean:.1f}{spread}, n={number}"


def shown(rows: Iterable[Row]) -> list[Row]:
    """Those whose answer the film shows."""
    return [row for row in rows if row["options"]]


def accuracy(rows: Iterable[Row]) -> Pairs:
    """Free answers, exact up to case and a full stop."""
    return [(row["film"], row["right"]) for row in shown(rows)]


def choice(rows: Iterable[Row]) -> Pairs:
    """The option meant is the right one; chance is 25 %."""
    return [(row["film"], row["chose_right"]) for row in shown(rows)]


def false_positives(rows: Iterable[Row]) -> Pairs:
    """Questions about what no card shows that got an answer."""
    return [(row["film"], row["shown"]) for row in rows if not row["options"]]


def evidence(rows: Iterable[Row]) -> Pairs:
    """Needles of which a frame was read."""
    return [(row["film"], found) for row in shown(rows) for found in row["found"]]


def recall_at(rows: Iterable[Row], k: int) -> Pairs:
    """Needles of which a frame is among the first k of the ranking."""
    return [
        (row["film"], rank is not None and rank <= k)
        for row in shown(rows)
        for rank in row["ranks"]
    ]


def sampled(rows: Iterable[Row]) -> Pairs:
    """Needles of which the encoder saw a frame: no score can be above it."""
    return [(row["film"], seen) for row in shown(rows) for seen in row["sampled"]]


def overlap(rows: Iterable[Row]) -> Pairs:
    """Intersection over union of cited and true seconds, of right answers."""
    return [(row["film"], iou(row["cited"], row["needles"])) for row in shown(rows) if row["right"]]


def iou(one: Spans | Sequence[Sequence[float]], other: Spans | Sequence[Sequence[float]]) -> float:
    """Seconds that both cover over seconds that either covers; spans of one side do not overlap each other. 0 without any."""
    both = sum(max(0.0, min(b, d) - max(a, c)) for a, b in one for c, d in other)
    either = sum(b - a for a, b in one) + sum(d - c for c, d in other) - both
    return both / either if either > 0 else 0.0


def by(rows: Iterable[Row], name: str) -> dict[Any, list[Row]]:
    """Groups of rows in the order in which they come."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    return groups


def nearest(depth: float, depths: Sequence[float]) -> float:
    """The depth of the grid that a needle was made for."""
    return min(depths, key=lambda d: abs(d - depth))


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(line) + " |" for line in lines),
    ]


def by_task(rows: Sequence[Row], outcome: Callable[[Iterable[Row]], Pairs]) -> list[str]:
    """Arms down, tasks across."""
    tasks = list(by(shown(rows), "task"))
    lines = []
    for arm, own in by(rows, "arm").items():
        cells = [cell(outcome(row for row in own if row["task"] == task)) for task in tasks]
        lines.append([arm, *cells, cell(outcome(own))])
    return markdown(["", *tasks, "all"], lines)


def by_length(rows: Sequence[Row], task: str) -> list[str]:
    """Arms down; accuracy and evidence recall at each length across."""
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


def evidence_table(rows: Sequence[Row]) -> list[str]:
    """What was found and cited, and what was answered where there was nothing to find."""
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
                cell(overlap(own)),
                cell(false_positives(own)),
            ]
        )
    head = [
        "",
        "needles read",
        "@1",
        "@4",
        "@16",
        "IoU of right answers' spans",
        "false positives on not shown",
    ]
    return markdown(head, lines)


def _ranks(rows: Sequence[Row]) -> bool:
    """Whether these rows have a ranking that means something: the other controls read what they read unasked."""
    return rows[0]["control"] in ("", "uniform") and bool(recall_at(rows, 1))


def cost_table(rows: Sequence[Row]) -> list[str]:
    """Median milliseconds of each stage, tokens and bytes read."""
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


def encoding_table(encodings: Sequence[Row]) -> list[str]:
    """What encoding took: seconds by stage for each film, summed over lengths and banks."""
    lines = []
    # resumed ones say half
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


def _grouped(rows: Iterable[Row]) -> dict[tuple[str, float], list[Row]]:
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["bank"], round(row["video_seconds"] / 60, 1)), []).append(row)
    return groups
