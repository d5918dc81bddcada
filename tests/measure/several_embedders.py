"""What rows of a second frame embedder cost: CPU time and bytes of an ingest with and without.

    python -m tests.measure.several_embedders FILM [--rounds 5]

Encodes the film with the embedded model, by turns with clip=embedded, with clip=[embedded,conse],
and with clip=embedded followed by adding the rows of conse. Models are loaded before. Prints the
medians, and the least and the most of all rounds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.settings import IngestSettings
from pipeline.frame_embedder import build_clip
from pipeline.further_embedders import build_further
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


def report(given: argparse.Namespace) -> None:
    rows = measure(given.film, given.rounds)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("film", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
