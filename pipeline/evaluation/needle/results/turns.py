"""One film, one encoding, several questions in turn: what each turn costs and gets right.

After SCBench (arXiv 2412.10319), which measures a cache over its whole life: made, compressed,
loaded and read again. The questions are independent of each other: its mode of several requests.
Knows rows only.
"""

from collections.abc import Mapping, Sequence
from statistics import mean, median

from pipeline.evaluation.needle.results import score
from pipeline.evaluation.needle.results.score import ResultRow

HEAD = (
    "", "turn", "right", "search ms", "load ms", "answer ms", "tokens read", "encoding s a film",
    "s a question so far",
)  # fmt: skip


def table(rows: Sequence[ResultRow], encodings: Sequence[ResultRow]) -> list[str]:
    """Markdown: configurations and turns down. The last column shares the encoding of the film
    among the questions so far. Empty where no film has a second question.

    encodings: of encodings.jsonl; one that was resumed timed only a part of its film.
    """
    own = [row for row in rows if not row["control"]]
    if max((row["turn"] for row in own), default=0) < 2:
        return []
    seconds = {
        (one["bank"], one["film"]): float(one["seconds"]["total"])
        for one in encodings
        if one["new_segments"] == one["segments"]
    }
    return score.markdown(
        HEAD,
        [line for arm, some in score.by(own, "arm").items() for line in _lines(arm, some, seconds)],
    )


def _lines(
    arm: str, rows: Sequence[ResultRow], seconds: Mapping[tuple[str, str], float]
) -> list[list[str]]:
    films = {(row["bank"], row["film"]) for row in rows}
    encoding = mean([seconds[film] for film in films if film in seconds] or [float("nan")])
    lines, before = [], 0.0
    turns = score.by(sorted(rows, key=lambda row: int(row["turn"])), "turn")
    for turn, some in turns.items():
        answer = median(row["seconds"]["total"] for row in some)
        before += answer
        stages = [
            f"{1000 * median(row['seconds'].get(stage, 0.0) for row in some):.0f}"
            for stage in ("search", "load")
        ]
        lines.append(
            [
                arm,
                str(turn),
                score.cell([(row["film"], row["right"]) for row in some]),
                *stages,
                f"{1000 * answer:.0f}",
                f"{median(row['visual_tokens'] for row in some):.0f}",
                f"{encoding:.1f}",
                f"{(encoding + before) / turn:.2f}",
            ]
        )
    return lines
