"""Training curves as one PNG: python -m pipeline.embedded.curves FOLDER_WITH_CSV OUT.png

Knows CSV files only.
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def draw(folder: Path, target: Path) -> None:
    """Loss (left, log scale) and share right (right) of each stage that has a CSV."""
    files = [
        folder / f"{stage}.csv"
        for stage in ("tower", "lm", "clip")
        if (folder / f"{stage}.csv").exists()
    ]
    figure, axes = pyplot.subplots(len(files), 2, figsize=(12, 3.4 * len(files)), squeeze=False)
    for (loss, right), file in zip(axes, files, strict=True):
        with file.open() as stream:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
        step = next(iter(rows[0]))
        loss.semilogy([r[step] for r in rows], [r["loss"] for r in rows])
        if any(r.get("gaze") for r in rows):
            guided = [(r[step], r["gaze"]) for r in rows if r.get("gaze")]
            loss.semilogy(*zip(*guided, strict=True), label="attention on the right frames")
            loss.legend(fontsize=7)
        loss.set(title=f"{file.stem}: loss", xlabel=step)
        for name in dict.fromkeys(k for r in rows for k in r if k not in (step, "loss", "gaze")):
            right.plot(
                [r[step] for r in rows if name in r],
                [r[name] for r in rows if name in r],
                label=name,
            )
        right.set(title=f"{file.stem}: share right, unseen seed", xlabel=step, ylim=(0, 1.02))
        right.legend(fontsize=7, ncol=2)
        for axis in (loss, right):
            axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=80)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
