"""Figures as PNG: cost a frame and a question against length, and stages. Knows rows only."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

# not pyplot: a notebook that imports this keeps its own backend
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pipeline.evaluation.speed.schema import BenchRow

_BESIDE = ", beside"  # behind the name of a stage that ran in another thread


def cost(rows: Sequence[BenchRow], kind: str, path: Path) -> None:
    """Milliseconds a frame ("encode") or a question ("ask") against frames, one line per arm.

    Medians with the least and the most; a call timed once is a hollow mark.
    """
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    axes = figure.subplots()
    arms = list(dict.fromkeys(row["arm"] for row in rows if row["kind"] in ("warm_up", kind)))
    for number, arm in enumerate(arms):
        own = [row for row in rows if row.get("arm") == arm]
        _cost_line(axes, own, kind, arm, colormaps["tab10"](number))
    axes.set_xscale("log")
    axes.set_yscale("log")
    lengths = sorted({row["frames"] for row in rows if row["kind"] == "warm_up"})
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("frames in the video")
    axes.set_ylabel("ms a frame, encoding" if kind == "encode" else "ms a question")
    axes.grid(alpha=0.3, which="both")
    if arms:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _cost_line(
    axes: Axes, rows: Sequence[BenchRow], kind: str, arm: str, color: tuple[float, ...]
) -> None:
    """One arm: medians with the least and the most, and hollow marks for calls timed once."""
    per_frame = kind == "encode"
    timed = [row for row in rows if row["kind"] == kind]
    at = sorted({row["frames"] for row in timed})
    values = [
        np.array([row["wall_s"] for row in timed if row["frames"] == length])
        * (1e3 / length if per_frame else 1e3)
        for length in at
    ]
    if at:
        middle = np.array([np.median(v) for v in values])
        spread = [middle - [v.min() for v in values], [v.max() for v in values] - middle]
        axes.errorbar(at, middle, yerr=spread, label=arm, marker="o", ms=5, capsize=3, color=color)
    key = "encode_s" if per_frame else "ask_s"
    once = [row for row in rows if row["kind"] == "warm_up" and row["last"] and row[key] > 0]
    if once:
        axes.plot(
            [row["frames"] for row in once],
            [1e3 * row[key] / (row["frames"] if per_frame else 1) for row in once],
            "o",
            mfc="none",
            ms=9,
            color=color,
            label=None if at else arm,
        )


def shares(rows: Sequence[BenchRow], path: Path) -> None:
    """Stages of encoding and of a question as shares of all their seconds, at each arm's longest
    length.

    Stages in other threads count like the rest, under the same name; waiting for them does not
    count.
    """
    figure = Figure(figsize=(10.5, 4.8), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("encode", "ask"), strict=True):
        bars: list[tuple[str, dict[str, float]]] = []
        for arm in dict.fromkeys(row["arm"] for row in rows if row["kind"] == kind):
            own = [row for row in rows if row["kind"] == kind and row["arm"] == arm]
            longest = max(row["frames"] for row in own)
            timed = [row["stages"] for row in own if row["frames"] == longest]
            label = arm.replace(", ", ",\n") + f"\n{longest:,} frames"
            bars.append((label, _median_stages(timed)))
        names = list(dict.fromkeys(name for _, stages in bars for name in stages))
        bottom = np.zeros(len(bars))
        for number, name in enumerate(names):
            heights = np.array(
                [
                    100 * max(s.get(name, 0.0), 0.0) / sum(max(v, 0.0) for v in s.values())
                    for _, s in bars
                ]
            )
            axes.bar(
                range(len(bars)),
                heights,
                bottom=bottom,
                label=name,
                color=colormaps["tab20"](number),
                width=0.6,
            )
            bottom += heights
        axes.set_xticks(range(len(bars)), [label for label, _ in bars], fontsize=7)
        axes.set_ylabel("share of all stages' seconds, %")
        axes.set_title("encoding" if kind == "encode" else "a question", fontsize=10)
        if bars:
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)


def _median_stages(timed: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median seconds of each stage. "write" next to "write, beside" is waiting for the writer."""
    names = [name for name in timed[0] if name != "wait" and f"{name}{_BESIDE}" not in timed[0]]
    return {
        name.removesuffix(_BESIDE): statistics.median(stages.get(name, 0.0) for stages in timed)
        for name in names
    }
