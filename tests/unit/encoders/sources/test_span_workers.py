"""Several decoders at once: the frames of one, bounded memory, and errors that arrive."""

import itertools
import struct
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.errors import UserError
from encoders.schema import join_frames
from encoders.sources.container import inspect
from encoders.sources.decoding.pyav_reader import PyAvReader
from encoders.sources.decoding.scaler import Scaler
from encoders.sources.decoding.span_workers import SpanWorkers
from encoders.sources.decoding.unit_decoder import UnitDecoder
from encoders.sources.decoding.worker_count import worker_count
from encoders.sources.file import FileSource
from tests.support.videos import read_numbers, write_video

_X264 = {"x264-params": "keyint=25:min-keyint=25:bframes=3:b-pyramid=normal:open-gop=1:threads=1"}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s in groups of a second."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 20, options=_X264)
    return path


def decoders() -> int:
    return sum(thread.name.startswith("decoder-") for thread in threading.enumerate())


def test_many_workers_and_a_caller_that_leaves(film: Path) -> None:
    one = join_frames(list(FileSource(film, 6.0, width=64, height=64).frames()))
    source = FileSource(film, 6.0, width=64, height=64, batch=5, workers=7)
    many = join_frames(list(source.frames()))
    assert np.array_equal(many.pixels, one.pixels)
    assert np.array_equal(many.times, one.times)
    # most=1: workers wait for the caller, so they are still there when it leaves
    facts = inspect(film)
    every = np.arange(len(facts.times))
    passing = PyAvReader(facts, lambda frame, scaler: 0, every, workers=7, most=1).pictures(0)
    next(passing)
    assert decoders() > 1
    passing.close()
    assert decoders() == 0


@pytest.mark.parametrize("most", [1, 8])
def test_pictures_that_wait_are_bounded(film: Path, most: int) -> None:
    """Counted by what is converted and not taken yet, with a caller that stands still."""
    converted: list[int] = []

    def mark(frame: av.VideoFrame, scaler: Scaler) -> int:
        converted.append(0)
        return 0

    facts = inspect(film)
    every = np.arange(len(facts.times))
    passing = PyAvReader(facts, mark, every, workers=3, most=most).pictures(0)
    for taken, decoded in enumerate(itertools.islice(passing, 60), 1):
        assert decoded.number == taken - 1
        decoded.content()
        if taken in (1, 30, 60):
            time.sleep(0.3)
            # those that wait, one that each worker holds, and a few of the unit that is read
            assert len(converted) - taken <= most + 3 + 4
    passing.close()


def test_an_edit_list_hides_the_beginning(film: Path, tmp_path: Path) -> None:
    """As after a cut without encoding: pictures before the 15th are decoded, and not shown."""
    path, data = tmp_path / "a.mp4", bytearray(film.read_bytes())
    at = data.index(b"elst") + 16  # media_time of the first edit
    with av.open(str(film)) as container:
        ticks = round(0.6 / float(container.streams.video[0].time_base or 1))
    (begin,) = struct.unpack_from(">i", data, at)
    struct.pack_into(">i", data, at, begin + ticks)
    path.write_bytes(data)
    for workers in (1, 3):
        source = FileSource(path, 2.0, width=64, height=64, workers=workers)
        got = join_frames(list(source.frames()))
        shown = [15 + (25 * number + 1) // 2 for number in range(39)]
        assert read_numbers(got.pixels) == shown[: len(got)]
        assert len(got) >= 38


def test_an_error_of_a_worker_reaches_the_caller(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(film.read_bytes())
    source = FileSource(path, 1.0, width=64, height=64, workers=3)
    path.unlink()
    with pytest.raises(UserError, match="cannot be opened any more"):
        list(source.frames())
    assert decoders() == 0


@pytest.mark.timeout(20)
def test_a_decoder_that_cannot_be_made_stops_the_caller() -> None:
    def fails() -> UnitDecoder:
        raise MemoryError("no room for a decoder")

    with (
        SpanWorkers(
            range(2), [0, 100, 200], fails, lambda *_: 0, lambda _: True, workers=2, most=1
        ) as workers,
        pytest.raises(MemoryError, match="no room"),
    ):
        next(workers.pictures(0))
    assert decoders() == 0


def test_workers(film: Path) -> None:
    assert worker_count("auto", 1280 * 720) >= 1
    assert worker_count("auto", 10**12) == 1  # no memory for two
    for workers in (0, 65, "all", True):
        with pytest.raises(UserError, match=r"source.workers=.* auto, or a number from 1 to 64"):
            FileSource(film, 1.0, width=64, height=64, workers=workers)
