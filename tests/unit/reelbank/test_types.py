"""The types of the package as mypy sees them in a program of somebody else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PROGRAM = ROOT / "tests" / "data" / "typed_program"
SETTINGS = """[mypy]
strict = True
warn_unreachable = True

# what mypy says of Reelbank itself is not the program's affair, as for every installed package
[mypy-encoders.*,memory.*,pipeline.*,conf.*,reelbank.*]
ignore_errors = True
ignore_missing_imports = True

[mypy-torch.*,transformers.*,faiss.*,numpy.*,open_clip.*,av.*,hydra.*,omegaconf.*]
follow_imports = skip
ignore_missing_imports = True
"""


def mypy(folder: Path, *files: str) -> str:
    (folder / "mypy.ini").write_text(SETTINGS)
    for file in files:
        (folder / file).write_bytes((PROGRAM / file).read_bytes())
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", *files]
    result = subprocess.run(
        command, cwd=folder, env={"MYPYPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert not result.stderr, result.stderr
    return result.stdout


@pytest.mark.slow
def test_a_program_that_uses_every_name_is_accepted_and_mistakes_are_found(tmp_path: Path) -> None:
    assert mypy(tmp_path, "every_name.py") == ""
    out = mypy(tmp_path, "mistakes.py")
    found = {int(line): code for line, code in re.findall(r":(\d+): error: .*\[([\w-]+)\]", out)}
    lines = (PROGRAM / "mistakes.py").read_text().splitlines()
    expected = {
        number: match[1]
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# ([\w-]+)$", line))
    }
    assert len(expected) == 11 and found == expected, out


def test_the_program_uses_every_name() -> None:
    import reelbank

    text = (PROGRAM / "every_name.py").read_text()
    missing = {name for name in reelbank.__all__ if f"reelbank.{name}" not in text}
    # both come out of an answer
    assert missing == {"Evidence", "Video"} and (ROOT / "reelbank" / "py.typed").exists()
