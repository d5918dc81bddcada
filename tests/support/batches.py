"""Batches run by a test: job files, rows, and a process to kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pipeline import cli
from tests.support.paths import ROOT
from tests.support.toys import toy_parts

FREE = ("seconds",)  # columns that two runs need not share


def put(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def jobs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]


def overrides(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        f"jobs={folder / 'jobs.jsonl'}",
        f"out={out}",
        f"bank={out.parent / 'bank'}",
        "reader.max_new_tokens=6",
        *toy_parts(),
        *more,
    ]


def run(folder: Path, out: Path, *more: str) -> int:
    return cli.run("batch", overrides(folder, out, *more))


def answers(out: Path) -> dict[str, dict[str, Any]]:
    """Rows by id; every id stands once."""
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def same(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]], *free: str) -> bool:
    def plain(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {
            key: {name: cell for name, cell in row.items() if name not in (*FREE, *free)}
            for key, row in rows.items()
        }

    return plain(one) == plain(other)


def encoded(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "videos.jsonl").read_text().splitlines()]


def command(folder: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    # As many threads as here: with another number, sums round differently, and the answers are
    # compared with those of this process.
    environment = os.environ | {
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "OMP_WAIT_POLICY": "passive",
    }
    words = [sys.executable, "-m", "pipeline.cli", "batch", *overrides(folder, out, *more)]
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_after(process: subprocess.Popen[bytes], grown: Any, seconds: float) -> bool:
    """SIGKILL so long after `grown` became true; whether it came before the end."""
    while process.poll() is None and not grown():
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    return process.wait() == -signal.SIGKILL
