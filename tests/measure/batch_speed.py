"""Speed of a batch: 200 questions about 20 films of two minutes, with one encoding per film.

    python -m tests.measure.batch_speed FOLDER

The baseline encodes for every question: the same parts in the same process, with a fresh bank each
time. It is measured on one question of each film and scaled by 200 / 20, because all 200 would take
ten times as long for the same result. Films that lie in FOLDER are used again.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from memory.schema import Question
from pipeline import cli
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from tests.support import films, measurement_page

FILMS, QUESTIONS_PER_FILM = 20, 10


@dataclass(frozen=True)
class BatchSpeed:
    """One batch beside the baseline; seconds."""

    batch: float  # with loading the model
    encoding: float  # part of it
    singles: list[float]  # encoding and one answer, one for each film, without loading the model
    accuracy: object  # as run.json has it

    @property
    def baseline(self) -> float:
        """Seconds of the baseline for all questions."""
        return sum(self.singles) * QUESTIONS_PER_FILM

    def sentence(self) -> str:
        return (
            f"{FILMS * QUESTIONS_PER_FILM} questions, {FILMS} films of 120 s: {self.batch:.1f} s, "
            f"of it encoding {self.encoding:.1f} s; encoding for each question "
            f"{self.baseline:.0f} s ({FILMS} measured, {min(self.singles):.2f} to "
            f"{max(self.singles):.2f} s each): {self.baseline / self.batch:.1f} times faster; "
            f"accuracy {self.accuracy}"
        )


def measure(folder: Path) -> BatchSpeed:
    """Run the batch and the baseline. AssertionError if they do not do the same work."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = films.make(folder, FILMS, 120.0, QUESTIONS_PER_FILM, needles=8)
    out = folder / f"out-{os.getpid()}"
    common = [f"bank={out}-bank", "threads=1"]
    with contextlib.redirect_stdout(sys.stderr):  # the command's own lines are not of the page
        assert cli.run("batch", [f"jobs={jobs}", f"out={out}", *common]) == 0
    figures = json.loads((out / "run.json").read_text())
    passes = [json.loads(line) for line in (out / "videos.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == FILMS * QUESTIONS_PER_FILM
    assert figures["failed"] == 0
    assert len(passes) == len({one["video_id"] for one in passes}) == FILMS
    assert all(one["new_segments"] == 15 for one in passes)

    backbone = build_backbone(compose("ask", ["video=-", "question=-", *common]))
    seconds, same = [], 0
    for number in range(FILMS):
        row = next(
            row for row in rows if row["id"].startswith(f"{number:02d}-") and not row["options"]
        )
        config = compose(
            "ask", [f"video={row['video']}", "question=-", f"bank={out}-bank-{number}", "threads=1"]
        )
        qa = build_qa(config, backbone)
        with qa.bank:
            began = time.perf_counter()
            source = build_source(config, backbone)
            qa.ingest(source)
            same += qa.ask(Question(row["question"], source.info.video_id)).text == row["answer"]
            seconds.append(time.perf_counter() - began)
    assert same == FILMS
    encoding = sum(one["seconds"] for one in passes)
    return BatchSpeed(figures["seconds"], encoding, seconds, figures["accuracy"])


def report(arguments: argparse.Namespace) -> None:
    print(measure(arguments.folder).sentence())


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the films, the banks and the answers")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
