"""The scripts in examples/ run, and print what their first lines promise."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

EXPECTED = {
    "ask_a_film": ["What is the code on the card? 4821 (8-10 s)", "red"],
    "ask_a_live_stream": ["at 9 s: not in the video", "at 19 s: 4821"],
    "find_spoken_words": ["2-5 s: The harbour was rebuilt", "9-12 s: Bread needs salt"],
    "compare_retrievers": ["fused", "clip", "kv", "uniform", "read 6 frames"],
    "own_compressor": ["none", "every other"],
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


# eight to twenty seconds each; what they use is tested elsewhere
SLOW = set(EXPECTED) - {"find_spoken_words"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in EXPECTED],
)
def test_an_example_prints_what_it_promises(name: str) -> None:
    script = ROOT / "examples" / f"{name}.py"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in EXPECTED[name]:
        assert line in done.stdout
