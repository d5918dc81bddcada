"""`python -m tests.measure.gpu` goes on where an earlier call ended, and repeats nothing."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.measure import gpu
from tests.support.paths import ROOT

NAMES = [step.name for step in gpu.STEPS]


def report(folder: Path, seconds: float = 0.0) -> int:
    arguments = argparse.Namespace(
        folder=folder, seconds=seconds, only=None, device=torch.device("cpu")
    )
    return gpu.report(arguments)


def write(folder: Path, name: str, **result: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(result))


def test_results_of_earlier_calls_stay_and_only_the_rest_is_open(tmp_path, capsys) -> None:
    first, second, *others = NAMES
    write(tmp_path, first, rows=[["what", "17 frames/s"]], seconds=3.0)
    write(tmp_path, second, why="no room", tries=1)
    assert report(tmp_path) == 3  # no time left for any step
    out = capsys.readouterr().out
    assert (
        f"| {first} | what | 17 frames/s |" in out and f"| {second} | no result | no room |" in out
    )
    assert all(f"| {name} | no result | not begun yet |" in out for name in others)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted((first, second))

    write(tmp_path, second, why="no room", tries=2)  # as often as it is tried
    for name in others:
        write(tmp_path, name, rows=[], seconds=1.0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert report(tmp_path, seconds=1e6) == 0  # time for all, and none is begun again
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_what_a_step_began_ends_with_it(tmp_path) -> None:
    number = tmp_path / "number"
    script = f"sleep 60 & echo $! > {number}; wait"
    assert gpu.run_for(0.3, ["sh", "-c", script]) == "ended after 0 s"
    state = Path("/proc", number.read_text().strip(), "stat")
    for _ in range(100):
        try:
            if ") Z " in state.read_text():
                return
        except OSError:  # nobody has this number
            return
        time.sleep(0.02)
    raise AssertionError("it runs on")


@pytest.mark.slow  # 40 s of CPU
def test_a_step_is_measured_once_and_a_failed_one_twice(tmp_path) -> None:
    """With what a killed call leaves: a folder of work, and a temporary file of a result."""

    def call(step: str, device: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.measure.gpu", "--device", device, "--only", step]
        command += ["--folder", str(tmp_path), "--seconds", "280"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    (tmp_path / "decoding.work").mkdir()
    (tmp_path / "decoding.work" / "film.mp4").write_bytes(b"half a film")
    first = call("decoding", "cpu")
    assert first.returncode == 3, first.stderr  # other steps are open
    assert "| decoding | 720p30 H.264 at 1 fps, 1 workers |" in first.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["decoding.json"]
    result = (tmp_path / "decoding.json").read_bytes()
    call("decoding", "cpu")
    assert (tmp_path / "decoding.json").read_bytes() == result
    for tries in (1, 2, 2):  # no such device
        failed = call("frame_embedder", "meta:7")
        assert failed.returncode == 3 and "| frame_embedder | no result | " in failed.stdout
        assert json.loads((tmp_path / "frame_embedder.json").read_text())["tries"] == tries
