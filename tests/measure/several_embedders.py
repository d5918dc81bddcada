"""Rows of two frame embedders in one bank: what they cost, and what `find` does with them.

    python -m tests.measure.several_embedders cost FILM [--rounds 5]
    python -m tests.measure.several_embedders find FOLDER

`cost` encodes the film with the embedded model, by turns with clip=embedded, with
clip=[embedded,conse], and with clip=embedded followed by adding the rows of conse. Models are
loaded before. Prints medians of CPU time, the least and the most of all rounds, and bytes.
`find` encodes the real clips of the folder into two banks, and asks `find` the questions of
tests/data/pictures. Prints where the right film comes among the films of the moments.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.engine import Engine
from pipeline.frame_embedder import build_clip
from pipeline.further_embedders import build_further
from tests.measure import pictures
from tests.support import measurement_page

ARMS = {
    "embedded alone": ["clip=embedded"],
    "embedded and conse in one pass": ["clip=[embedded,conse]"],
    "rows of conse added later": ["clip=embedded", "clip=[embedded,conse]"],
}


def settings(film: Path, bank: Path, clip: str) -> IngestSettings:
    return compose("ingest", [f"video={film}", f"bank={bank}", "text=none", "dense=none", clip])


def measure(film: Path, rounds: int) -> dict[str, list[tuple[float, int, int]]]:
    """Arm -> CPU seconds of its last pass, frames, and bytes of the bank, of every round."""
    rows: dict[str, list[tuple[float, int, int]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        first = settings(film, Path(folder) / "none", "clip=[embedded,conse]")
        backbone, clip = build_backbone(first), build_clip(first)
        further = build_further(first, clip)
        none = build_further(settings(film, Path(folder) / "none", "clip=embedded"), clip)
        for number in range(rounds + 1):  # the first round loads the weights
            for arm, passes in ARMS.items():
                bank = Path(folder) / f"{number}-{len(rows[arm])}-{list(ARMS).index(arm)}"
                for one in passes:
                    own = settings(film, bank, one)
                    qa = build_qa(own, backbone, clip, further if "conse" in one else none)
                    source = build_source(own, backbone)
                    begun = time.process_time()
                    with qa.bank:
                        report = qa.ingest(source)
                    seconds = time.process_time() - begun
                if number:
                    size = sum(path.stat().st_size for path in bank.glob("[se]*/**/*.safetensors"))
                    rows[arm].append((seconds, report.frames, size))
    return rows


def cost(film: Path, rounds: int) -> None:
    rows = measure(film, rounds)
    print("| arm | CPU ms a frame | least-most | bytes a frame |\n|---|---|---|---|")
    for arm, runs in rows.items():
        each = [1000 * seconds / frames for seconds, frames, _ in runs]
        _, frames, size = runs[0]
        print(
            f"| {arm} | {statistics.median(each):.1f} | {min(each):.1f}-{max(each):.1f} "
            f"| {size / frames:.0f} |"
        )
    first, second, _ = ([seconds for seconds, _, _ in runs] for runs in rows.values())
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    print(
        f"\nboth beside embedded alone, by pairs: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}), n={len(ratios)}"
    )


def find(folder: Path) -> None:
    asked = [one for one in pictures.questions() if one.is_of_a_clip]
    clips = pictures.films(list(dict.fromkeys(one.film for one in asked)), folder)
    asked = [one for one in asked if one.film in clips]
    print(f"{len(asked)} questions, {len(clips)} films.\n")
    print("| bank | R@1 % | R@3 % | MRR | mean rank |\n|---|---|---|---|---|")
    for name, clip in (("embedded alone", "embedded"), ("embedded and conse", "[embedded,conse]")):
        with tempfile.TemporaryDirectory() as bank:
            parts = [f"bank={bank}/bank", f"clip={clip}", "dense=none"]
            with Engine.compose([*parts, "text=none"]) as engine:
                for path in clips.values():
                    engine.add(str(path))
                found = np.array(
                    [_rank(engine, one.question, str(clips[one.film]), len(clips)) for one in asked]
                )
            print(pictures.line(name, found))


def _rank(engine: Engine, question: str, film: str, films: int) -> float:
    """The place of a film among those of the moments; where it is not, the mean of the others."""
    result = engine.find(question, top=200)
    paths = list(dict.fromkeys(result.paths[one.video_id] for one in result.moments))
    if film in paths:
        return paths.index(film) + 1.0
    return (len(paths) + 1 + films) / 2


def report(given: argparse.Namespace) -> None:
    if given.what == "cost":
        cost(given.path, given.rounds)
    else:
        find(given.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cost", "find"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
