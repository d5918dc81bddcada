"""`python -m tests.measure.gpu` goes on where an earlier call ended, and repeats nothing."""

import argparse
import json
import time
from pathlib import Path

import torch

from tests.measure import gpu

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
    assert report(tmp_path) == 4  # no step fits into no time
    out = capsys.readouterr().out
    assert (
        f"| {first} | what | 17 frames/s |" in out and f"| {second} | no result | no room;" in out
    )
    assert all(f"| {name} | no result | not begun yet; it takes about" in out for name in others)
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


def test_all_steps_take_nine_minutes_and_each_fits_four() -> None:
    """By their estimates."""
    assert sum(step.seconds for step in gpu.STEPS) <= 540
    assert all(step.seconds <= 240 for step in gpu.STEPS)
