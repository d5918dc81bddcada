"""A folder that grows as a live source: order, times, restarts, and files that are none."""

import logging
import math
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.errors import UserError
from encoders.schema import Frames, join_frames
from encoders.sources.file import FileSource
from pipeline.server.streams.folders.file_ledger import FileLedger
from pipeline.server.streams.folders.folder_source import FolderSource
from tests.support.videos import numbered, read_numbers, write_video

SIZE = (64, 64)
NOON = 1_760_000_000.0  # Unix seconds


def piece(path: Path, first: int, ends: float, seconds: float = 4.0) -> Path:
    """A film of pictures that count from `first`, five a second, which was whole at second `ends`
    of the clock."""
    write_video(path, seconds, 5, paint=lambda number, _: numbered(first + number, SIZE))
    return changed(path, ends)


def changed(path: Path, ends: float) -> Path:
    os.utime(path, (NOON + ends, NOON + ends))
    return path


def watched(folder: Path, **more: float) -> FolderSource:
    return FolderSource(
        f"folder:{folder}",
        1.0,
        width=64,
        height=64,
        name="door",
        ledger=FileLedger(folder.parent / "door.sqlite"),
        open_film=lambda path, fps, size: FileSource(path, fps, width=size[0], height=size[1]),
        **({"settle": 0.0, "patience": 0.0} | more),
    )


def take(source: FolderSource, start: float, count: int) -> Frames:
    """The first frames of a session from `start` on."""
    parts: list[Frames] = []
    frames = source.frames(start)
    while sum(map(len, parts)) < count:
        parts += islice(frames, 1)
    source.close()
    assert not list(frames)  # it ends where it is closed
    return join_frames(parts)


def behind(time: float) -> float:
    """As the bank says where to go on (memory/encoder_window.py)."""
    return math.nextafter(time, math.inf)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pieces that follow each other, and one after a pause; names say nothing of the order."""
    own = tmp_path / "cam"
    own.mkdir()
    piece(own / "c.mp4", 0, 4)
    piece(own / "a.mkv", 20, 8)
    piece(own / "b.ts", 40, 14)
    return own


def test_files_follow_each_other_by_their_times_and_by_the_clock(folder: Path):
    source = watched(folder)
    assert source.start_clock(0.0) == NOON
    frames = take(source, 0.0, 12)
    assert frames.times.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13]
    assert read_numbers(frames.pixels) == [*range(0, 40, 5), *range(40, 60, 5)]
    # one piece alone is what the file is
    (own,) = FileSource(folder / "c.mp4", 1.0, width=64, height=64).frames()
    assert np.array_equal(frames.pixels[:4], own.pixels)


@pytest.mark.parametrize("last", [1, 3, 5, 7, 8])
def test_a_new_session_goes_on_behind_the_last_frame_in_the_bank(folder: Path, last: int):
    """Law 2 for files: none is taken twice and none is lost, wherever a process was killed."""
    source = watched(folder)
    source.start_clock(0.0)
    whole = take(source, 0.0, 12)
    start = behind(float(whole.times[last]))
    again = watched(folder)
    assert again.start_clock(start) == pytest.approx(NOON, abs=0.01 if last < 3 else 3)
    rest = take(again, start, 11 - last)
    assert np.array_equal(rest.pixels, whole.pixels[last + 1 :])
    assert (np.diff(rest.times) > 0).all() and rest.times[0] > whole.times[last]
    piece(folder / "late.mp4", 60, 30)
    third = watched(folder)
    third.start_clock(behind(float(rest.times[-1])))
    assert read_numbers(take(third, behind(float(rest.times[-1])), 4).pixels) == [60, 65, 70, 75]


def test_what_is_no_film_is_named_once_and_passed_over(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    (folder / "broken.mp4").write_bytes(b"no film at all")
    changed(folder / "broken.mp4", 2)
    (folder / "empty.ts").touch()
    changed(folder / "empty.ts", 9)
    (folder / "notes.txt").write_text("no film either, and nobody says it is")
    Image.fromarray(numbered(7, SIZE)).save(folder / "later.png")
    changed(folder / "later.png", 20)
    for _ in range(2):
        source = watched(folder)
        source.start_clock(0.0)
        with caplog.at_level(logging.WARNING):
            frames = take(source, 0.0, 13)
        assert read_numbers(frames.pixels)[-2:] == [55, 7] and frames.times[-1] == 20
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "broken.mp4 is passed over: " in told[0], told
    assert "stream door: empty.ts is passed over: it is empty" in told[1]


def test_a_file_that_is_still_written_is_waited_for(folder: Path):
    """And so is a newest one that cannot be read yet: a copy may go on."""
    source = watched(folder, settle=3600.0)
    source.start_clock(0.0)
    assert source._next() is None
    (folder / "d.mp4").write_bytes((folder / "c.mp4").read_bytes()[:700])
    source = watched(folder, patience=3600.0)
    source.start_clock(0.0)
    assert len(take(source, 0.0, 12)) == 12
    again = watched(folder, patience=3600.0)
    again.start_clock(behind(13.0))
    assert again._next() is None
    piece(folder / "d.mp4", 60, 40)  # the copy is whole
    assert read_numbers(take(again, behind(13.0), 4).pixels) == [60, 65, 70, 75]


def test_pieces_that_overlap_and_are_short_keep_the_grid(tmp_path: Path):
    """Copied at one time, with half a second each: one frame a second, and no time twice."""
    own = tmp_path / "cam"
    own.mkdir()
    for number in range(8):
        piece(own / f"{number}.mp4", 10 * number, 100, seconds=0.4)
    source = watched(own)
    source.start_clock(0.0)
    frames = take(source, 0.0, 3)
    assert frames.times.tolist() == pytest.approx([0.0, 1.2, 2.0])
    assert read_numbers(frames.pixels) == [0, 30, 50]


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path):
    source = watched(tmp_path / "none")
    with pytest.raises(UserError, match=r"^folder:none cannot be read \(no such file or directory"):
        source.start_clock(0.0)
