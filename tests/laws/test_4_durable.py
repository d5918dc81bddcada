"""Law 4: kill -9 at any moment of a real ingest, with real files, decoders and model classes.

After every kill the bank opens and verifies clean, and every acknowledged segment is there bit by
bit. In the end the bank equals one that was never interrupted. None of this depends on the moment,
so random moments cannot make a test flake, and randomness is seeded. The step names are those of
memory/storage/crash_points.py, one after each system call of a commit.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from tests.support.children import ingest, receive_all, start
from tests.support.damage import content
from tests.support.paths import ROOT
from tests.support.records import make_segment, same
from tests.support.records import write_video as write_records
from tests.support.toys import toy_parts
from tests.support.videos import write_video

SEGMENTS = 12
COMMIT = ["create", "write", "sync", "rename", "sync folder", "row", "commit"]  # of one segment


@dataclass(frozen=True)
class Job:
    """One ingest, and what comes of it when nobody interrupts it."""

    overrides: list[str]
    whole: dict[str, Any]
    steps: list[str]  # of a commit, in order

    def run(
        self,
        bank: Path,
        die_at: tuple[str, int] | None = None,
        die_after: tuple[int, float] | None = None,
    ) -> int:
        """Ingest into `bank`, check it when the process has ended for any reason, and return the
        exit code.

        die_after: kill the process from outside, so many steps after everything was loaded, and so
        many seconds after that.
        """
        process, told = start(ingest, [*self.overrides, f"bank={bank}"], die_at)
        assert told.recv() == ("begin",)
        said: list[Any] = []
        if die_after is not None:
            with suppress(EOFError):  # it may have come to its end by itself
                while sum(kind == "step" for kind, _ in said) < die_after[0]:
                    said.append(told.recv())
            time.sleep(die_after[1])
            process.kill()  # SIGKILL
        said += receive_all(told)
        process.join()
        self.check(bank, {number for kind, number in said if kind == "acknowledged"})
        return int(process.exitcode)

    def check(self, bank: Path, acknowledged: set[int]) -> None:
        """Opens, verifies clean, and holds what was acknowledged, bit by bit."""
        if not (bank / "bank.json").exists():
            assert not acknowledged
            return
        with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
            assert [problem for problem in opened.check.verify() if not problem.harmless] == []
            rows = [
                row
                for video in opened.catalog.videos()
                for row in opened.catalog.segments(video.info.video_id)
            ]
        assert acknowledged <= {row.number for row in rows} == set(range(len(rows)))
        for row in rows:
            name = f"segments/{row.video_id}/{row.number:06d}.safetensors"
            assert (bank / name).read_bytes() == self.whole[name]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("kill")
    write_video(folder / "a.mp4", 2 * SEGMENTS, 5)
    options = ["segmenter.seconds=2", "prefill.window_frames=5", "prefill.dtype=bfloat16"]
    overrides = [f"video={folder / 'a.mp4'}", *toy_parts(), *options]
    process, told = start(ingest, [*overrides, f"bank={folder / 'bank'}"], None)
    assert told.recv() == ("begin",)
    said = receive_all(told)
    process.join()
    steps = [name for kind, name in said if kind == "step"]
    assert process.exitcode == 0 and [
        number for kind, number in said if kind == "acknowledged"
    ] == list(range(SEGMENTS))
    assert all(
        steps[at - 6 : at + 1] == COMMIT for at, name in enumerate(steps) if name == "commit"
    )
    return Job(overrides, content(folder / "bank"), steps)


def test_killed_at_every_step_of_a_commit(job, tmp_path):
    """One bank is killed at each step in turn. Steps of a segment are hit at their first, second or
    third pass.
    """
    names = list(dict.fromkeys(job.steps))
    assert set(COMMIT) < set(names)
    for turn, name in enumerate(names):
        assert (
            job.run(tmp_path / "bank", die_at=(name, turn % 3 + 1 if name in COMMIT else 1))
            == -signal.SIGKILL
        )
    assert job.run(tmp_path / "bank") == 0
    assert content(tmp_path / "bank") == job.whole


def test_killed_at_random_moments(job, tmp_path):
    kill_at_random(job, tmp_path, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_a_hundred_times(job, tmp_path):
    killed, banks = kill_at_random(job, tmp_path, kills=100)
    print(
        f"\n{killed} kills at random moments, {banks} banks finished, each equal to the "
        "uninterrupted one"
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_between_any_two_system_calls(job, tmp_path):
    """Each step has a fresh bank, from its creation to the saved index. The ingest is killed there
    and then finished.
    """
    for count in range(1, len(job.steps) + 1):
        shutil.rmtree(tmp_path / "bank", ignore_errors=True)
        assert job.run(tmp_path / "bank", die_at=("", count)) == -signal.SIGKILL
        assert job.run(tmp_path / "bank") == 0
        assert content(tmp_path / "bank") == job.whole, (count, job.steps[count - 1])
    print(
        f"\n{len(job.steps)} kills, one at every step of an ingest of {SEGMENTS} segments; all "
        "banks equal"
    )


WRITE_TWO = """
import sys
from memory.bank import MemoryBank
from memory.retrieval.clip import UniformRetriever
from tests.support.records import make_segment
with MemoryBank.open(sys.argv[1], None, UniformRetriever(), recent_frames=0) as bank:
    for number in (1, 2):
        bank.write(make_segment("v", number))
        print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_inside_the_commit_of_sqlite(tmp_path):
    """Kills come at every system call with which SQLite and we write, sync or delete, and when the
    log is merged at the end.
    """
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
    ) as bank:
        write_records(bank, [make_segment("v", 0)])
    calls, when, code = "pwrite64,fdatasync,fsync,ftruncate,rename,unlink", 0, -1
    while code != 0:
        when += 1
        copy = tmp_path / str(when)
        shutil.copytree(tmp_path / "bank", copy)
        strace = [
            "strace",
            "-f",
            "-o",
            os.devnull,
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={calls}:signal=KILL:when={when}",
        ]
        done = subprocess.run(
            [*strace, sys.executable, "-c", WRITE_TWO, copy],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        code = done.returncode
        if "ptrace" in done.stderr:
            pytest.skip("tracing is not allowed here")
        assert code == 0 or "Error" not in done.stderr, done.stderr
        acknowledged = {0, *map(int, done.stdout.split())}
        with MemoryBank.open(copy, None, UniformRetriever(), recent_frames=0) as bank:
            assert [problem for problem in bank.check.verify() if not problem.harmless] == []
            there = {row.number for row in bank.catalog.segments("v")}
            assert acknowledged <= there == set(range(len(there)))
            assert all(
                same(bank.catalog.read_segment("v", number), make_segment("v", number))
                for number in there
            )
            for number in range(len(there), 3):
                bank.write(make_segment("v", number))
            assert bank.check.verify() == []
        shutil.rmtree(copy)
    print(f"\n{when - 1} kills, one at every system call of two commits and of closing the bank")


def kill_at_random(job: Job, folder: Path, kills: int) -> tuple[int, int]:
    """Kill ingests of one bank until so many were killed. A finished bank is compared, and a new
    one begins. Returns the numbers of kills and of finished banks.
    """
    chance = random.Random(0)
    killed = finished = 0
    while True:
        last = killed == kills
        moment = (chance.randint(0, 14), chance.uniform(0, 0.05))  # 7 steps to a segment; seconds
        code = job.run(folder / "bank", die_after=None if last else moment)
        killed += code == -signal.SIGKILL
        if killed % 10 == 0:
            print(f"{killed} kills, {finished} banks", flush=True)
        if code == 0:
            assert content(folder / "bank") == job.whole
            finished += 1
            if last:
                return killed, finished
            shutil.rmtree(folder / "bank")
        else:
            assert code == -signal.SIGKILL
