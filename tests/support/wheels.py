"""Builds the wheel of this tree, and virtual environments to install it into."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("conf", "encoders", "memory", "pipeline", "reelbank")
BESIDE = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "MANIFEST.in", "CHANGELOG.md")
EPOCH = {"SOURCE_DATE_EPOCH": "1750000000"}  # the time of the files in the archive


def copy_tree(folder: Path) -> Path:
    """What a build reads, in a folder of its own: a build leaves files beside its sources."""
    folder.mkdir()
    for name in PACKAGES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    for name in BESIDE:
        shutil.copy(ROOT / name, folder)
    return folder


def build_wheel(tree: Path, out: Path) -> Path:
    """The wheel, by the build backend itself and without an index."""
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env=os.environ | EPOCH,
        check=True,
        capture_output=True,
        timeout=200,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment. Programs run in it without PYTHONPATH and without this clone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=True)
        self.site = Path(
            sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
        )

    def pip(self, *arguments: str, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        """pip install with these arguments."""
        return self.run("python", "-m", "pip", "install", "-q", *arguments, timeout=timeout)

    def borrow_libraries(self) -> None:
        """Let it find the libraries of the environment of the tests, but no Reelbank there: paths
        of a .pth file come last, and the .pth files at such a path are not read.
        """
        (self.site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    def run(
        self, program: str, *arguments: str, cwd: Path | None = None, timeout: float = 200
    ) -> "subprocess.CompletedProcess[str]":
        """A program of the environment; cwd: by default its own folder."""
        unwanted = ("PYTHONPATH", "REELBANK_BANK", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if name not in unwanted}
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=cwd or self.folder,
            env=kept | {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder / "data")},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
