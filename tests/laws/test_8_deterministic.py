"""Law 8, deterministic: same input, settings and seed give the same bytes and answers."""

import json
import os
import subprocess
import sys

from pipeline.schema import Answer
from tests.support.paths import ROOT
from tests.support.qa import SHORT, TEXT, ask, opened
from tests.support.records import files
from tests.support.toys import toy_parts


def test_two_runs_give_the_same_bytes_and_answers(film, tmp_path):
    results: list[tuple[dict[str, bytes], list[dict]]] = []
    for name in ("one", "two"):
        with opened(film, tmp_path / name) as (qa, source):
            qa.ingest(source)
            answers = [ask(qa, source, text) for text in (TEXT, "What is the code?")]
        results.append((files(tmp_path / name), answers))
    assert results[0] == results[1] and len(results[0][0]) == 3
    assert json.dumps(results[0][1]) == json.dumps(results[1][1])


def test_any_number_of_decoders_gives_the_same_bytes(film, tmp_path):
    """The second run is interrupted, and goes on with another number."""
    with opened(film, tmp_path / "one", "source.workers=1") as (qa, source):
        qa.ingest(source)
    with opened(film, tmp_path / "many", "source.workers=3") as (qa, source):
        qa.ingester.ingest(source, until=0)
    with opened(film, tmp_path / "many", "source.workers=2") as (qa, source):
        qa.ingest(source)
    assert files(tmp_path / "one") == files(tmp_path / "many")
    assert len(files(tmp_path / "one")) == 3


def test_another_process_gives_the_same_bytes_and_answers(film, tmp_path):
    with opened(film, tmp_path / "here") as (qa, source):
        qa.ingest(source)
        here = ask(qa, source)
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "ask",
        f"video={film}",
        f"bank={tmp_path / 'there'}",
    ]
    done = subprocess.run(
        [*command, f"question={TEXT}", "format=json", *toy_parts(), *SHORT],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    there = json.loads(done.stdout)
    for call in there["trace"]["calls"]:
        del call["seconds"]
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert all(there[key] == json.loads(json.dumps(value)) for key, value in here.items())
    assert {*Answer.__dataclass_fields__, "videos"} == there.keys()
