"""Questions asked again in controls (conf/control/), and the table of what each control scores.

A control's rows stand beside the run's own, with ids of their own. Knows jobs and rows; no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from encoders.errors import UserError
from pipeline.answer.strategies.retrieve import Retrieve
from pipeline.batch.run_folder import Row
from pipeline.batch.schema import Job
from pipeline.batch.scores.score_table import group_by
from pipeline.batch.summary import accuracy, as_cell
from pipeline.controls.build import build_control, control_settings
from pipeline.controls.schema import Control
from pipeline.scoring import difference


def build_controls(names: Sequence[str], full_tokens: int) -> dict[str, Control]:
    """The controls of a batch by name. UserError on one that there is not, or that needs films
    whose needles are known."""
    controls = {
        name: build_control(node) for name, node in control_settings(names, full_tokens).items()
    }
    for name, control in controls.items():
        if control.showing not in ("film", ""):
            raise UserError(
                f"controls has {name!r}, which needs films with needles; reelbank needle has it."
            )
    return controls


def with_controls(jobs: Sequence[Job], controls: Mapping[str, Control]) -> list[Job]:
    """The jobs, and a copy of each for every control that can be asked: about one video, and with
    the evidence where the control needs it. UserError where an id is taken."""
    copies = [
        replace(job, id=f"{job.id}@{name}", control=name)
        for name, control in controls.items()
        for job in jobs
        if len(job.videos) == 1 and control.strategy(job.evidence, Retrieve()) is not None
    ]
    ids = {job.id for job in jobs}
    taken = next((copy for copy in copies if copy.id in ids), None)
    if taken is not None:
        raise UserError(
            f"{taken.place}: the id {taken.id} is that of a row of the control {taken.control}; "
            "give that row another id"
        )
    return [*jobs, *copies]


def control_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """ "own" and each control -> its accuracy, of all questions and by category, and the run less
    it on the same questions. Empty without rows of controls."""
    scored = [row for row in rows if row["right"] is not None]
    own = {row["id"]: row for row in scored if not row.get("control")}
    controls = group_by(scored, lambda row: str(row.get("control") or ""))
    if not controls:
        return {}
    return {"own": _figures(list(own.values()))} | {
        name: _figures(some) | {"less": _less(own, some)} for name, some in controls.items()
    }


def _figures(scored: Sequence[Row]) -> dict[str, Any]:
    categories = group_by(scored, lambda row: str(row.get("category") or ""))
    return {
        "accuracy": accuracy(scored),
        "per_category": {name: accuracy(some) for name, some in categories.items()},
    }


def _less(own: Mapping[str, Row], scored: Sequence[Row]) -> dict[str, Any]:
    """The run less a control, in pairs, with an interval over videos."""
    questions = [str(row["id"]).removesuffix(f"@{row['control']}") for row in scored]
    pairs = [(own[name], row) for name, row in zip(questions, scored, strict=True) if name in own]
    mean, low, high, count = difference(
        [(before["video"], before["right"]) for before, _ in pairs],
        [(before["video"], row["right"]) for before, row in pairs],
    )
    return {"difference": mean, "low": low, "high": high, "n": count} if count else {"n": 0}


def control_table(figures: Mapping[str, Any]) -> list[str]:
    """Markdown: the run and its controls down; accuracy, by category, and differences across."""
    categories = list(dict.fromkeys(n for one in figures.values() for n in one["per_category"]))
    head = ["% right", "all", *categories, "the run less it, points"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, one in figures.items():
        cells = [as_cell(one["accuracy"])]
        cells += [as_cell(one["per_category"].get(category, {"n": 0})) for category in categories]
        lines.append("| " + " | ".join([name, *cells, _points(one.get("less", {"n": 0}))]) + " |")
    return lines


def _points(figures: Mapping[str, Any]) -> str:
    if not figures["n"]:
        return "-"
    mean, low, high = (100 * figures[name] for name in ("difference", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}), n={figures['n']}"
