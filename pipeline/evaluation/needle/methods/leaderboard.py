"""The leaderboard of methods: accuracy against bytes an hour and against seconds, with papers.

After the leaderboard of kvpress, for the keys and values of video. A method is on a Pareto front
where no other one is at least as good on both axes and better on one. Controls stand below, outside
of the fronts. Knows rows only.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from pipeline.commands.output import html_page
from pipeline.evaluation.needle.results import score
from pipeline.evaluation.needle.results.differences import cell as difference_cell
from pipeline.evaluation.needle.results.report import image_html, table_html
from pipeline.evaluation.needle.results.score import ResultRow
from pipeline.scoring import share

HEAD = (
    "method", "right", "less the first", "attention held", "MB an hour", "s a question",
    "tokens read", "passes", "dial", "what it is",
)  # fmt: skip
STYLE = """
body{font:15px system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1b1b1b}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{border:1px solid #ddd;padding:.25rem .5rem;text-align:left}th{background:#f0f0f0}
img{max-width:100%}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the board."""

    name: str
    control: bool
    right: float  # share of free answers
    cell: str  # the same with its interval
    less: str  # in points, less the first method
    # share of the question's attention over all frames that the read frames hold; NaN: not measured
    held: float
    megabytes: float  # of an hour of film in the bank
    seconds: float  # of a question, median
    tokens: float  # visual tokens of all passes, median
    passes: float  # contexts that the model read, mean
    dial: str  # where its dial was left; "" without one
    about: str


def entries(
    rows: Sequence[ResultRow],
    encodings: Sequence[ResultRow],
    papers: Mapping[str, str],
    dials: Mapping[str, str],
) -> list[Entry]:
    """The arms in their order, methods first. encodings: of encodings.jsonl. dials: arm -> the
    override that its dial was left at."""
    sizes = _bytes_per_hour(encodings)
    by_arm = score.by(rows, "arm")
    first = next(iter(by_arm.values()))
    board = []
    for name, own in by_arm.items():
        outcomes = score.accuracy(own)
        board.append(
            Entry(
                name=name,
                control=bool(own[0]["control"]),
                right=share(outcomes)[0],
                cell=score.cell(outcomes),
                less="" if own is first else _less(own, first),
                held=_attention_held(own),
                megabytes=sizes.get(own[0]["bank"], float("nan")) / 1e6,
                seconds=median(row["seconds"]["total"] for row in own),
                tokens=median(row["visual_tokens"] for row in own),
                passes=sum(row["contexts"] for row in own) / len(own),
                dial=dials.get(name, ""),
                about=papers.get(name, ""),
            )
        )
    return board


def _less(own: Sequence[ResultRow], first: Sequence[ResultRow]) -> str:
    return difference_cell(score.answerable(own), score.answerable(first)).partition(", n=")[0]


def _attention_held(own: Sequence[ResultRow]) -> float:
    shares = [row["attention_held"] for row in own if row.get("attention_held") is not None]
    return sum(shares) / len(shares) if shares else float("nan")


def _bytes_per_hour(encodings: Sequence[ResultRow]) -> dict[str, float]:
    """Bank -> bytes of an hour, over films that were encoded in one go."""
    whole = [one for one in encodings if one["new_segments"] == one["segments"]]
    return {
        bank: 3600 * sum(one["nbytes"] for one in own) / sum(one["video_seconds"] for one in own)
        for bank, own in score.by(whole, "bank").items()
    }


def front(board: Sequence[Entry], axis: str) -> set[str]:
    """Names of the methods that none beats both in accuracy and on the axis, where less is
    better."""
    methods = [one for one in board if not one.control and not isnan(getattr(one, axis))]

    def beats(one: Entry, other: Entry) -> bool:
        cost, limit = getattr(one, axis), getattr(other, axis)
        at_least = one.right >= other.right and cost <= limit
        return at_least and (one.right > other.right or cost < limit)

    return {one.name for one in methods if not any(beats(other, one) for other in methods)}


def table(board: Sequence[Entry]) -> list[str]:
    """Markdown: methods from the most accurate down, then controls. A star marks the Pareto front
    of its column."""
    small, fast = front(board, "megabytes"), front(board, "seconds")
    ordered = sorted(board, key=lambda one: (one.control, -one.right))
    lines = []
    for one in ordered:
        name = f"*control: {one.name}*" if one.control else one.name
        lines.append(
            [
                name,
                one.cell,
                one.less or "-",
                "-" if isnan(one.held) else f"{100 * one.held:.1f}",
                f"{one.megabytes:.1f}" + " ★" * (one.name in small),
                f"{one.seconds:.2f}" + " ★" * (one.name in fast),
                f"{one.tokens:.0f}",
                f"{one.passes:.1f}",
                f"`{one.dial}`" if one.dial else "-",
                one.about or "-",
            ]
        )
    return score.markdown(HEAD, lines)


def write(board: Sequence[Entry], heading: str, words: str, out: Path) -> None:
    """Write leaderboard.md, leaderboard.html, and the two figures."""
    text = ["# Leaderboard of methods", "", heading, "", words, "", *table(board), ""]
    (out / "leaderboard.md").write_text("\n".join(text), encoding="utf-8")
    pictures = []
    for axis, label in (("megabytes", "MB an hour in the bank"), ("seconds", "s a question")):
        path = out / f"leaderboard_{axis}.png"
        figure(board, axis, label, path)
        data = base64.b64encode(path.read_bytes()).decode()
        pictures.append(image_html(data, "png", f"accuracy against {label}", "plot"))
    body = (
        f"<h1>Leaderboard of methods</h1><p>{html.escape(heading)}</p><p>{html.escape(words)}</p>"
        + "".join(pictures)
        + table_html(table(board))
    )
    (out / "leaderboard.html").write_text(
        html_page.page("Leaderboard of methods", STYLE, body), encoding="utf-8"
    )


def figure(board: Sequence[Entry], axis: str, label: str, path: Path) -> None:
    """Accuracy against a cost, with the Pareto front as a line."""
    canvas = Figure(figsize=(9, 5.5), layout="constrained")
    axes = canvas.subplots()
    best = front(board, axis)
    methods = [one for one in board if not one.control]
    for one in methods:
        marker = "o" if one.name in best else "x"
        axes.plot(getattr(one, axis), 100 * one.right, marker, color="#1c7ed6")
        axes.annotate(
            one.name, (getattr(one, axis), 100 * one.right), fontsize=7,
            xytext=(4, 3), textcoords="offset points",
        )  # fmt: skip
    line = sorted((getattr(one, axis), 100 * one.right) for one in methods if one.name in best)
    axes.plot([x for x, _ in line], [y for _, y in line], "-", color="#1c7ed6", alpha=0.4)
    for one in board:
        if one.control:
            axes.axhline(100 * one.right, color="#868e96", linewidth=0.8, linestyle=":")
            axes.annotate(
                one.name, (1, 100 * one.right), xycoords=("axes fraction", "data"), fontsize=7,
                ha="right", color="#868e96",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("free answers, % right")
    axes.set_title("Pareto front: circles")
    canvas.savefig(path, dpi=110)
