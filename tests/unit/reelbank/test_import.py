"""Importing the package: at once, with nothing heavy, and never with packages of other projects."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HEAVY = ("torch", "numpy", "av", "PIL", "hydra", "omegaconf", "transformers", "sqlite3", "faiss")


def python(code: str, *paths: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that looks for modules in these folders first, then in ours."""
    setup = f"import sys; sys.path[:0] = {[str(path) for path in (*paths, ROOT)]!r}\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", setup + code], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.slow
def test_import_loads_nothing_heavy() -> None:
    code = f"import reelbank; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = python(code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", ["encoders", "memory", "pipeline", "conf"])
@pytest.mark.parametrize("kind", ["package", "module"])
def test_a_package_of_our_names_is_in_the_way(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "package":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        place = tmp_path / name
    else:
        place = tmp_path / f"{name}.py"
        place.touch()
    result = python("import reelbank", tmp_path)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and last.startswith(f"ImportError: {place} is in the way")
    assert repr(name) in last and str(tmp_path) in last
    # also where it was imported before
    result = python(f"import {name}; import reelbank", tmp_path)
    assert f"ImportError: {place} is in the way" in result.stderr


def test_a_folder_without_code_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    result = python("import reelbank; print(reelbank.Error.__name__)", tmp_path)
    assert (result.returncode, result.stdout) == (0, "UserError\n")


def test_python_m_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "reelbank", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0 and result.stdout.startswith("usage: reelbank ")
