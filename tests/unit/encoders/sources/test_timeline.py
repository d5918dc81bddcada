"""One clock for everything in a file: recordings that were joined, sound that begins first, stray
stamps. The tests compute every expected time by hand.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.schema import join_frames
from encoders.sources.container import inspect, open_film
from encoders.sources.file import FileSource
from encoders.sources.packets.timeline import Timeline, TimelinePart
from encoders.sources.pictures import pictures_at
from tests.support.videos import (
    Paint,
    numbered,
    read_number,
    read_numbers,
    write_video,
    write_with_sound,
)

JOINED = Timeline(
    (
        TimelinePart(0, 900, stream_start=1.4, start=0.0, seconds=10.0),
        TimelinePart(1100, 2000, stream_start=1.4, start=10.0, seconds=9.0),
        TimelinePart(2200, 3000, stream_start=50.0, start=19.0, seconds=5.0),
    ),
    24.0,
)


@pytest.mark.parametrize(
    ("stream_time", "byte", "seconds"),
    [
        (1.4, 0, 0.0),
        (3.4, 500, 2.0),
        (3.4, 1500, 12.0),
        (51.0, 2500, 20.0),
        (3.4, None, 2.0),  # the first that fits
        (51.0, -1, 20.0),
        # sound between the last picture of a part and the first of the next
        (11.3, 1000, 9.9),
        (50.1, 2100, 19.1),
        (0.4, 10, -1.0),
    ],
)
def test_seconds(stream_time: float, byte: int | None, seconds: float) -> None:
    assert JOINED.seconds(stream_time, byte) == pytest.approx(seconds)


def test_stream_time_is_the_inverse() -> None:
    for seconds in (0.0, 5.0, 9.99, 10.0, 15.0, 23.0):
        stream_time, byte = JOINED.stream_time(seconds)
        assert JOINED.seconds(stream_time, byte + 1) == pytest.approx(seconds)
    assert JOINED.restarts


def _frames(path: Path, fps: float = 1.0) -> tuple[list[int], list[float], FileSource]:
    """Numbers and times of the sampled frames; two workers check them from the middle on."""
    film = FileSource(path, fps, width=64, height=64)
    whole = join_frames(list(film.frames()))
    middle = len(whole) // 2
    pair = FileSource(path, fps, width=64, height=64, workers=2)
    later = join_frames(list(pair.frames(float(whole.times[middle]))))
    assert np.array_equal(later.pixels, whole.pixels[middle:])
    return read_numbers(whole.pixels), whole.times.round(2).tolist(), film


def _numbered_from(first: int) -> Paint:
    return lambda number, time: numbered(first + number, (64, 64))


def _join(folder: Path, suffix: str, starts: Sequence[float], pids: Sequence[str] = ()) -> Path:
    """Recordings of 4 s each, put one behind the other byte by byte; starts: stream time at which
    each begins. Pictures are numbered on.
    """
    data = bytearray()
    for number, start in enumerate(starts):
        part = folder / f"{number}.{suffix}"
        times = [start + picture / 25 for picture in range(100)]
        muxer = {"mpegts_start_pid": pids[number]} if pids else {}
        write_video(
            part,
            0,
            times=times,
            paint=_numbered_from(100 * number),
            options={"g": "25", "bf": "0"},
            muxer=muxer,
        )
        # an FLV begins with a header of 13 bytes
        data += part.read_bytes()[13 if suffix == "flv" and number else 0 :]
    joined = folder / f"joined.{suffix}"
    joined.write_bytes(data)
    return joined


@pytest.mark.parametrize("suffix", ["ts", "flv"])
@pytest.mark.parametrize("starts", [(0, 0), (15, 0), (36_000, 0), (0, 0, 0), (15, 0, 7)])
def test_joined_recordings_are_read_to_the_end(
    tmp_path: Path, suffix: str, starts: tuple[float, ...]
) -> None:
    path = _join(tmp_path, suffix, starts)
    numbers, times, film = _frames(path)
    # a clock that goes on a few seconds later is a pause: the last picture stands
    pause = 7 - 4 if starts[-1] == 7 else 0
    assert film.info.duration == pytest.approx(4 * len(starts) + pause, abs=0.05)
    assert "the file's clock begins again at 4.00 s" in film.info.note
    for number, time in zip(numbers, times, strict=True):
        assert number == (
            199 if 7.99 < time < 8 + pause else round(25 * (time - pause * (time > 8)))
        )
    assert len(numbers) == 4 * len(starts) + pause
    (picture,) = pictures_at(path, [5.02], (64, 64))
    assert picture is not None
    assert read_number(picture) == 125


def test_a_clock_that_wraps_runs_on(tmp_path: Path) -> None:
    wrap = (1 << 33) / 90_000
    path = tmp_path / "a.ts"
    times = [wrap - 3 + picture / 25 for picture in range(150)]
    write_video(path, 0, times=times, clock=Fraction(1, 90_000))
    numbers, seconds, film = _frames(path)
    assert numbers == [0, 25, 50, 75, 100, 125]
    assert seconds == [0, 1, 2, 3, 4, 5]
    assert film.info.note == ""
    facts = inspect(path)
    with open_film(facts) as container:
        stamps = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.pts is not None]
    assert max(stamps) - min(stamps) > 90_000  # it does wrap
    assert sorted(facts.timeline.seconds(stamp) for stamp in stamps) == pytest.approx(
        facts.times, abs=1e-4
    )


def test_streams_that_follow_each_other(tmp_path: Path) -> None:
    path = _join(tmp_path, "ts", (0, 4, 0), pids=("0x100", "0x300", "0x100"))
    numbers, times, film = _frames(path)
    assert numbers == [25 * second for second in range(12)]
    assert times == pytest.approx(list(range(12)), abs=0.05)
    assert "2 video streams that follow each other" in film.info.note


def test_two_films_side_by_side_are_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25, options={"g": "25"}) for _ in range(2)]
        for stream in streams:
            stream.width = stream.height = 64
        for number in range(100):
            for first, stream in zip((0, 1000), streams, strict=True):
                picture = numbered(first + number, (64, 64))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    numbers, _, film = _frames(path)
    assert numbers == [0, 25, 50, 75]
    assert film.info.note == ""


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv"])
def test_pictures_that_begin_after_the_sound(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_with_sound(path, [2 + number / 25 for number in range(125)], 9.0)
    numbers, times, film = _frames(path)
    assert len(numbers) in (5, 6)
    # a codec delays its sound
    assert times == pytest.approx([2 + number / 25 for number in numbers], abs=0.1)
    assert film.info.broke_at is None
    assert film.info.note == ""
    assert film.info.duration == pytest.approx(9.0, abs=0.2)


def test_a_delay_of_the_encoder_shifts_nothing(tmp_path: Path) -> None:
    write_with_sound(tmp_path / "a.mkv", [0.08 + number / 25 for number in range(100)], 4.0)
    assert _frames(tmp_path / "a.mkv")[:2] == ([0, 25, 50, 75], [0, 1, 2, 3])


def test_an_empty_edit_counts(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 0, times=[3 + number / 25 for number in range(125)])
    numbers, times, film = _frames(tmp_path / "a.mp4")
    assert numbers == [0, 25, 50, 75, 100]
    assert times == [3, 4, 5, 6, 7]
    assert film.info.broke_at is None


def _recording(path: Path, times: Sequence[float], last_seconds: float) -> None:
    """A screen recording: pictures at these times only, the last one stated to last so long."""
    clock = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.width = stream.height = 64
        stream.time_base = stream.codec_context.time_base = clock
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number, (64, 64)), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), clock
            container.mux(stream.encode(frame))
        for packet in stream.encode():
            if packet.pts == round(1000 * times[-1]):
                packet.duration = round(1000 * last_seconds)
            container.mux(packet)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_picture_stands_until_the_next(tmp_path: Path, suffix: str) -> None:
    times = [i / 10 for i in range(96)] + [19.3 + i / 10 for i in range(108)] + [30.2]
    path = tmp_path / f"a.{suffix}"
    _recording(path, times, 9.8)
    numbers, seconds, film = _frames(path)
    assert seconds == list(range(40))
    shown = [max(n for n, t in enumerate(times) if t < second + 1e-3) for second in range(40)]
    assert numbers == shown
    assert numbers[10:20] == [95] * 10  # the card that stands
    assert numbers[31:] == [204] * 9
    assert film.info.duration == pytest.approx(40.0, abs=0.2)
    assert film.info.broke_at is None
    assert film.info.note == ""


def test_the_last_slide_stands_as_long_as_the_file_says(tmp_path: Path) -> None:
    """And not as long as the slides before it."""
    slides = [0.0, 120.4, 240.2, 360.6, 480.1, 599.0]
    write_video(tmp_path / "a.mp4", 0, 1, times=slides, options={"bf": "0"})
    assert inspect(tmp_path / "a.mp4").duration == pytest.approx(600.0, abs=0.1)


def test_a_stray_stamp_moves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    write_video(path, 8, options={"g": "25", "bf": "0"})
    data, at = bytearray(path.read_bytes()), 13
    tags = []
    while at < len(data) - 15:
        if data[at] == 9:
            tags.append(at)
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    data[tags[60] + 4] ^= 0x40  # the time of one picture is four thousand seconds off
    path.write_bytes(data)
    numbers, times, film = _frames(path)
    assert times == list(range(8))
    assert numbers == [25 * second for second in range(8)]
    assert "1 pictures with stray time stamps" in film.info.note


def test_a_leap_of_a_year_is_bridged(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    year = 365 * 86_400
    write_video(path, 0, times=[i / 25 for i in range(50)] + [year + i / 25 for i in range(50)])
    numbers, times, film = _frames(path)
    assert (numbers, times) == ([0, 25, 50, 75], [0, 1, 2, 3])
    timeline = inspect(path).timeline
    assert timeline.seconds(year + 1.0) == pytest.approx(3.0)
    assert timeline.stream_time(3.0)[0] == pytest.approx(year + 1.0)
    assert "the file's clock leaps by more than a day at 2.00 s" in film.info.note
