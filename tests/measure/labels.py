"""What `text=labels` says of a folder of real clips, to compare by eye, and what a look costs.

    python -m tests.measure.labels FOLDER [--pictures FOLDER ...]

Prints every line at four probabilities. tests/measure/objects.py --sheets makes contact sheets.
--pictures prints what single pictures are called from 0.4 on; the default was chosen on such.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from encoders.models.imagenet.efficientnet_lite import SIDE
from encoders.sources.container import inspect
from encoders.text.lines import VideoFile
from encoders.text.sightings.labels import Labeler, Labels
from tests.support import measurement_page

PROBABILITIES = (0.5, 0.7, 0.8, 0.9)
_PICTURES = (".png", ".jpg", ".jpeg")
_SUFFIXES = (".mp4", ".mkv", ".mov")


def report(args: argparse.Namespace) -> None:
    """Print the lines of every clip."""
    torch.set_num_threads(1)
    for folder in args.pictures:
        for path in sorted(one for one in folder.iterdir() if one.suffix in _PICTURES):
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            names = [f"{one.name} {one.score:.2f}" for one in Labeler(0.4)(np.array(small))]
            print(f"- {path.name}: {', '.join(names) or 'nothing'}")
    paths = sorted(path for path in args.folder.iterdir() if path.suffix in _SUFFIXES)
    print("| clip | line | " + " | ".join(f"from {one}" for one in PROBABILITIES) + " |")
    print("|---|---|" + "---|" * len(PROBABILITIES))
    cpu, looks = 0.0, 0.0
    for path in paths:
        rows: dict[str, dict[float, list[str]]] = {}
        for probability in PROBABILITIES:
            labels = Labels(probability=probability)
            begun = time.process_time()
            spans = list(labels.spans(VideoFile("v", path)))
            cpu += time.process_time() - begun
            looks += max(inspect(path).end / labels.every, 1.0)
            for line in (line for span in spans for line in span.lines):
                times = f"{line.start:.0f}-{line.end:.0f} s"
                rows.setdefault(line.text, {}).setdefault(probability, []).append(times)
        for text, by_probability in rows.items():
            cells = (", ".join(by_probability.get(one, [])) for one in PROBABILITIES)
            print(f"| {path.stem} | {text} | {' | '.join(cells)} |")
    print(f"\n{1000 * cpu / looks:.0f} ms of CPU a look, the film decoded")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], metavar="FOLDER")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
