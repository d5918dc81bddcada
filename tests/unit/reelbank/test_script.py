"""A script of a few lines, as a person writes it."""

import subprocess
import sys
from pathlib import Path

import pytest

from encoders.text.ocr import Ocr
from tests.support.paths import ROOT
from tests.support.videos import write_video

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import reelbank
print("the script runs", flush=True)
bank = reelbank.open("bank", options=["text=ocr"])
report = bank.add("film.mp4")
print(report.lines, bank.ask("What is the code on the card?").text)
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(Ocr().missing()), reason="text=ocr is not installed")
def test_workers_of_a_script_do_not_run_it_again(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 6, 5, size=(320, 240))
    (tmp_path / "script.py").write_text(SCRIPT.format(root=str(ROOT)))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "the script runs\n{'ocr': 0} not in the video\n", done.stderr
    assert "Traceback" not in done.stderr
