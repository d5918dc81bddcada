"""`reelbank watch`: films come, grow, break off, move and go away. Real files, banks, and kills."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine import Engine
from pipeline.watch.folder import Folder
from pipeline.watch.folder_watch import FolderWatch
from tests.support.console import sentence
from tests.support.paths import ROOT
from tests.support.toys import toy_parts
from tests.support.videos import numbered, write_video


def film(path: Path, first: int = 0, seconds: float = 3) -> Path:
    """A film whose pictures count from `first`, so that no two have the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, seconds, 5, paint=lambda number, _: numbered(first + number, (64, 64)))
    return path


class Watched:
    """A watch with a clock of its own."""

    def __init__(self, root: Path, bank: Path, *, drops: bool = False) -> None:
        self.root, self.now, self.lines = root, 100.0, list[str]()
        root.mkdir(exist_ok=True)
        self.engine = Engine.compose([f"bank={bank}", *toy_parts()])
        self.watch = FolderWatch(
            self.engine, Folder(root), settle=3.0, drops=drops,
            tell=self.lines.append, clock=lambda: self.now,
        )  # fmt: skip

    def after(self, seconds: float) -> list[str]:
        """What is told by a look that many seconds later."""
        self.now += seconds
        self.lines.clear()
        self.watch.look(threading.Event())
        return list(self.lines)

    @property
    def paths(self) -> list[str]:
        """Films of the bank, below the folder."""
        rows = [row for row in self.engine.videos() if row.finished]
        return sorted(str(Path(row.info.path).relative_to(self.root)) for row in rows)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    one = Watched(tmp_path / "in", tmp_path / "bank")
    yield one
    one.engine.close()


def test_a_film_is_taken_once_it_stands_still(watched: Watched, tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mkv").read_bytes()
    path = watched.root / "a.mkv"
    for part in range(1, 4):  # it grows
        path.write_bytes(whole[: len(whole) * part // 3])
        assert watched.after(2) == []
    assert watched.after(2) == [] and watched.paths == []
    (line,) = watched.after(2)
    assert line.startswith("added a.mkv: 00:03, 3 frames") and watched.paths == ["a.mkv"]
    assert watched.after(60) == []
    film(watched.root / "deep" / "b.mp4", 100)
    film(watched.root / ".hidden" / "c.mp4", 200)
    (watched.root / "notes.txt").write_text("no film")
    assert watched.after(0) == []
    assert [line.split(":")[0] for line in watched.after(4)] == ["added deep/b.mp4"]


def test_one_that_breaks_off_waits_and_one_that_fails_is_told_once(
    watched: Watched, tmp_path: Path
) -> None:
    whole = film(tmp_path / "whole.mkv", seconds=20).read_bytes()
    half = watched.root / "half.mkv"
    half.write_bytes(whole[: len(whole) // 2])
    (watched.root / "broken.mp4").write_bytes(b"this is no film" * 100)
    watched.after(0)
    told = watched.after(4)
    assert len(told) == 2 and told[0].startswith("failed broken.mp4:")
    assert told[1].startswith("half.mkv breaks off")
    assert all(watched.after(40) == [] for _ in range(5)) and watched.paths == []
    half.write_bytes(whole)
    assert watched.after(1) == []
    assert watched.after(4)[0].startswith("added half.mkv: 00:20")


def test_a_film_that_breaks_off_for_good_is_taken_in_the_end(
    watched: Watched, tmp_path: Path
) -> None:
    whole = film(tmp_path / "whole.mkv", seconds=20).read_bytes()
    (watched.root / "half.mkv").write_bytes(whole[: len(whole) // 2])
    watched.after(0)
    told = [line for _ in range(6) for line in watched.after(200)]
    assert [line.split(":")[0] for line in told][1] == "added half.mkv"
    assert "warning" in told[2]


def test_moves_copies_and_new_contents(watched: Watched, tmp_path: Path) -> None:
    first = film(watched.root / "a.mp4")
    watched.after(0)
    watched.after(4)
    first.rename(watched.root / "renamed.mp4")
    watched.after(1)
    assert watched.after(4) == ["moved a.mp4 to renamed.mp4"] and watched.paths == ["renamed.mp4"]
    shutil.copy(watched.root / "renamed.mp4", watched.root / "twin.mp4")
    watched.after(0)
    assert watched.after(4) == ["twin.mp4 is a copy of renamed.mp4"]
    film(watched.root / "renamed.mp4", 300)  # another film under the name
    watched.after(0)
    assert [line.split(":")[0] for line in watched.after(4)] == ["added renamed.mp4"]
    assert len(watched.engine.videos()) == 2
    (watched.root / "renamed.mp4").rename(watched.root / "again.mp4")
    film(watched.root / "renamed.mp4", 600)  # and another one, before anybody looks
    watched.after(0)
    lines = sorted(line.split(":")[0] for line in watched.after(4))
    assert lines == ["added renamed.mp4", "moved renamed.mp4 to again.mp4"]
    assert len(watched.engine.videos()) == 3
    (watched.root / "renamed.mp4").unlink()
    watched.after(1)
    assert watched.after(4) == ["renamed.mp4 is gone; the bank keeps it"]
    assert watched.after(9) == [] and len(watched.engine.videos()) == 3


def test_deleted_films_leave_the_bank_where_that_is_wanted(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "in", tmp_path / "bank", drops=True)
    film(watched.root / "a.mp4")
    film(watched.root / "b.mp4", 100)
    watched.after(0)
    watched.after(4)
    (watched.root / "a.mp4").unlink()
    watched.after(0)
    assert watched.after(4) == ["dropped a.mp4, which is gone"] and watched.paths == ["b.mp4"]
    (watched.root / "b.mp4").unlink()  # as when a drive is taken away
    watched.after(0)
    (line,) = watched.after(4)
    assert "is empty, as if a drive were missing" in line and len(watched.engine.videos()) == 1
    shutil.rmtree(watched.root)
    assert "cannot be read now" in watched.after(1)[0] and watched.after(1) == []
    watched.engine.close()


def test_the_command_takes_all_and_ends(run, tmp_path: Path) -> None:
    folder, bank = tmp_path / "in", tmp_path / "bank"
    film(folder / "a.mp4")
    film(folder / "b.mp4", 100)
    words = ("watch", str(folder), "--bank", str(bank), "--once", "--settle", "0", *toy_parts())
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert [line[:11] for line in out.splitlines()] == ["added a.mp4", "added b.mp4"]
    assert run(*words)[:2] == (0, "")
    sentence(run("watch", str(tmp_path / "no"))[2], "is not there")
    sentence(run("watch", str(folder / "a.mp4"))[2], "is no folder")
    sentence(run("watch", str(folder), "--settle", "-1")[2], "settle=-1")
    sentence(run("watch")[2], "folder= is missing")


def _words(folder: Path, bank: Path, *more: str) -> list[str]:
    words = ["watch", str(folder), "--bank", str(bank), "--settle", "1", *more, *toy_parts()]
    return [sys.executable, "-m", "pipeline.cli", *words]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_films_arrive_half_of_them_slowly_under_twenty_kills(tmp_path: Path) -> None:
    folder, bank, rng = tmp_path / "in", tmp_path / "bank", random.Random(3)
    folder.mkdir()
    films = [film(tmp_path / "made" / f"{n:03d}.mp4", 20 * n) for n in range(200)]

    def arrive() -> None:
        for number, one in enumerate(films):
            data, target = one.read_bytes(), folder / one.name
            if number % 2:
                target.write_bytes(data)
                continue
            with target.open("wb") as file:
                for at in range(0, len(data), len(data) // 4 + 1):
                    file.write(data[at : at + len(data) // 4 + 1])
                    file.flush()
                    time.sleep(0.2)

    writer = threading.Thread(target=arrive)
    writer.start()
    for _ in range(20):
        process = subprocess.Popen(_words(folder, bank, "every=0.2"), cwd=ROOT)
        time.sleep(rng.uniform(6, 14))
        process.send_signal(signal.SIGKILL)
        process.wait()
    writer.join()
    last = subprocess.run(
        _words(folder, bank, "--once"), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "failed" not in last.stdout and last.stderr == ""
    with Engine.compose([f"bank={bank}", *toy_parts()]) as engine:
        rows = engine.videos()
        assert sorted(Path(row.info.path).name for row in rows) == sorted(os.listdir(folder))
        assert all(row.finished for row in rows) and len(rows) == 200
    line = [sys.executable, "-m", "pipeline.cli", "bank", "verify", "--bank", str(bank)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
