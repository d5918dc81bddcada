"""Speed of a batch: 200 questions about 20 films of two minutes, with one encoding per film.

The baseline encodes for every question: the same parts in the same process, with a fresh bank each
time. It is measured on one question of each film and scaled by 200 / 20, because all 200 would take
ten times as long for the same result.
"""

import json
import os
import time
from pathlib import Path

import pytest

from memory.schema import Question
from pipeline import cli
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from tests.support import films

FILMS, ASKED = 20, 10


def measure(folder: Path) -> tuple[float, float, str]:
    """(seconds of the batch with model load, seconds of the baseline without it, one line of text).

    Uses the films in the folder.
    """
    jobs = films.make(folder, FILMS, 120.0, ASKED, needles=8)
    out = folder / f"out-{os.getpid()}"
    common = [f"bank={out}-bank", "threads=1"]
    assert cli.run("batch", [f"jobs={jobs}", f"out={out}", *common]) == 0
    figures = json.loads((out / "run.json").read_text())
    passes = [json.loads(line) for line in (out / "videos.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == FILMS * ASKED and figures["failed"] == 0
    assert len(passes) == len({one["video_id"] for one in passes}) == FILMS and all(
        one["new_segments"] == 15 for one in passes
    )
    batch = figures["seconds"]

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
    single = sum(seconds) * ASKED
    line = (
        f"{FILMS * ASKED} questions, {FILMS} films of 120 s: {batch:.1f} s, of it encoding "
        f"{sum(one['seconds'] for one in passes):.1f} s; "
        f"encoding for each question {single:.0f} s ({FILMS} measured, {min(seconds):.2f} to "
        f"{max(seconds):.2f} s each): "
        f"{single / batch:.1f} times faster; accuracy {figures['accuracy']}"
    )
    return batch, single, line


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_times_faster_than_encoding_for_each_question(tmp_path):
    batch, single, line = measure(tmp_path)
    print("\n" + line)
    assert single > 5 * batch, line


if __name__ == "__main__":  # python -m tests.commands.test_batch_speed FOLDER
    import sys

    print(measure(Path(sys.argv[1]))[2])
