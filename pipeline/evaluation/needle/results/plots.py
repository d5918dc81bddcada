"""Figures as PNG: depth x length heat map, accuracy against length, evidence recall against k.

Knows rows and scores only.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap

# not pyplot: a notebook that imports this keeps its own backend
from matplotlib.figure import Figure

from pipeline.evaluation.needle.results import score
from pipeline.evaluation.needle.results.score import ResultRow

# the colours of published needle tests
HEAT = LinearSegmentedColormap.from_list("needle", ["#F0496E", "#EBB839", "#0CD79F"])


def heat_map(rows: Sequence[ResultRow], depths: Sequence[float], path: Path, title: str) -> None:
    """Share of right answers about one needle, by its depth and the film's length, with counts."""
    lone = [row for row in score.answerable(rows) if row["depth"] is not None]
    lengths = sorted({row["minutes"] for row in lone})
    values = np.full((len(depths), len(lengths)), np.nan)
    figure = Figure(
        figsize=(2.2 + 1.3 * max(len(lengths), 2), 1.4 + 0.55 * max(len(depths), 3)),
        layout="constrained",
    )
    axes = figure.subplots()
    for j, minutes in enumerate(lengths):
        for i, depth in enumerate(depths):
            hits = [
                r["right"]
                for r in lone
                if r["minutes"] == minutes and score.grid_depth(r["depth"], depths) == depth
            ]
            if hits:
                values[i, j] = np.mean(hits)
                axes.text(
                    j,
                    i,
                    f"{100 * values[i, j]:.0f}\nn={len(hits)}",
                    ha="center",
                    va="center",
                    fontsize=9,
                )
    image = axes.imshow(values, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(lengths)), [length_name(m) for m in lengths])
    axes.set_yticks(range(len(depths)), [f"{d:g} %" for d in depths])
    axes.set_xlabel("length of the film")
    axes.set_ylabel("depth of the needle")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="right")
    figure.savefig(path, dpi=120)


def place_map(rows: Sequence[ResultRow], path: Path, title: str) -> None:
    """Share of right answers about one needle by its place on the frame, with counts."""
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axes = figure.subplots()
    values = np.full((3, 3), np.nan)
    for row, column in sorted({tuple(one["place"]) for one in rows}):
        own = [one for one in rows if tuple(one["place"]) == (row, column)]
        values[row, column] = np.mean([one["right"] for one in own])
        label = f"{100 * values[row, column]:.0f}\nn={len(own)}"
        axes.text(column, row, label, ha="center", va="center", fontsize=9)
    image = axes.imshow(values, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(3), ["left", "middle", "right"])
    axes.set_yticks(range(3), ["top", "middle", "bottom"])
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="right")
    figure.savefig(path, dpi=120)


def length_curves(rows: Sequence[ResultRow], task: str, path: Path) -> None:
    """Accuracy against length with its interval, one line per arm."""
    own = [row for row in rows if row["task"] == task]
    figure = Figure(figsize=(8.5, 4.4), layout="constrained")
    axes = figure.subplots()
    arms = list(score.by(own, "arm").items())
    for number, (arm, mine) in enumerate(arms):
        at = sorted(score.by(mine, "minutes").items())
        means, lows, highs = np.array([score.share(score.accuracy(r))[:3] for _, r in at]).T * 100
        # shifted apart: many arms lie at 0 or at 100
        x = np.array([m for m, _ in at]) * (1 + 0.03 * (number - len(arms) / 2))
        style = "-" if not mine[0]["control"] else "--"
        color = colormaps["tab20"](number % 20)
        axes.errorbar(
            x,
            means,
            [means - lows, highs - means],
            label=arm,
            ls=style,
            marker="o",
            ms=4,
            capsize=2,
            color=color,
        )
    axes.set_xscale("log")
    lengths = sorted({row["minutes"] for row in own})
    axes.set_xticks(lengths, [length_name(m) for m in lengths])
    axes.minorticks_off()
    axes.set_ylim(-3, 103)
    axes.set_xlabel("length of the film")
    axes.set_ylabel(f"{task}: right, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)


def recall_curves(rows: Sequence[ResultRow], path: Path) -> None:
    """Evidence recall@k per configuration: needles with a frame among the first k."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for arm, mine in score.by(
        [row for row in rows if row["control"] in ("", "uniform")], "arm"
    ).items():
        pairs = [
            score.share(score.recall_at(mine, k))[0] * 100
            for k in score.KS
            if score.recall_at(mine, k)
        ]
        if pairs:
            axes.plot(
                score.KS[: len(pairs)],
                pairs,
                marker="o",
                ms=4,
                label=arm,
                ls="--" if mine[0]["control"] else "-",
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(score.KS, [str(k) for k in score.KS])
    axes.minorticks_off()
    axes.set_ylim(-3, 103)
    axes.set_xlabel("k: frames of the ranking")
    axes.set_ylabel("needles found, %")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def length_name(minutes: float) -> str:
    """ "10 min", "1 h"."""
    return f"{minutes:g} min" if minutes < 60 else f"{minutes / 60:g} h"
