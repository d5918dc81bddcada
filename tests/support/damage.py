"""Damaged banks and small disks, made on the spot."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.records import files

SECONDS = 24  # of a film of these scenes


def segments(bank: Path) -> list[Path]:
    return sorted((bank / "segments").rglob("*.safetensors"))


def flip(path: Path, at: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], int]]:
    """A file system of that size at `folder`; yields a function that changes its options."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield lambda options: subprocess.check_call(
            ["mount", "-o", f"remount,{options}", str(folder)]
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def content(bank: Path) -> dict[str, Any]:
    """All that must be equal: the bytes of segments and of the files that describe bank and videos,
    and the rows of the catalog. SQLite's own bytes depend on when it was closed.
    """
    db = sqlite3.connect(bank / "catalog.sqlite")
    rows: dict[str, Any] = {
        table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        for table in ("videos", "segments")
    }
    rows["revision"] = db.execute("PRAGMA user_version").fetchall()
    db.close()
    descriptions = {
        str(path.relative_to(bank)): path.read_bytes()
        for path in (*bank.glob("*.json"), *bank.glob("segments/*/*.json"))
    }
    return rows | files(bank) | descriptions


def no_catalog(bank: Path) -> None:
    for path in bank.glob("catalog.sqlite*"):
        path.unlink()


def scenes(number: int, seconds: float) -> np.ndarray:
    """Pictures that change wholly every 3 to 5 seconds."""
    rng = np.random.default_rng(
        int(np.searchsorted(np.cumsum([4, 5, 3, 4, 5, 3]), seconds, side="right"))
    )
    picture = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    picture[number % 60 : number % 60 + 4, :8] = 255
    return picture
