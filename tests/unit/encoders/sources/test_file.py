"""Frames of files: the right picture at the right time, from any decoder, for good and broken
files.

The tests compute every expected time and number from the rule, point by point, without our code.
"""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.schema import Frames, VideoInfo, join_frames
from encoders.sources.decoding.decord_reader import DecordError, DecordReader
from encoders.sources.file import FileSource
from tests.support.fixture_film import shown
from tests.support.paths import CLIPS, ROOT
from tests.support.videos import (
    numbered,
    read_number,
    read_numbers,
    turn,
    write_audio,
    write_video,
    write_with_sound,
)

clips = pytest.mark.skipif(not CLIPS.exists(), reason="no folder of real clips")
FAST_START = {"movflags": "faststart"}


def source(path: Path, fps: float = 1.0, **limits: object) -> FileSource:
    return FileSource(path, fps, **{"width": 64, "height": 64, **limits})  # type: ignore[arg-type]


def whole(path: Path, fps: float = 1.0, **limits: object) -> Frames:
    return join_frames(list(source(path, fps, **limits).frames()))


def expected(times: Sequence[float], fps: float, slack: float = 1e-3) -> list[int]:
    """Numbers of the frames that a search point by point finds; slack: containers round times."""
    numbers: list[int] = []
    for point in range(int(times[-1] * fps) + 2):
        later = [number for number, time in enumerate(times) if time >= point / fps - slack]
        if later and later[0] not in numbers:
            numbers.append(later[0])
    return numbers


def uneven(count: int) -> list[float]:
    """Times of a variable frame rate with gaps of up to 3 s."""
    steps = np.random.default_rng(3).choice(
        [0.02, 0.05, 0.3, 1.3, 3.0], count - 1, p=[0.4, 0.3, 0.15, 0.1, 0.05]
    )
    return [0.0, *np.cumsum(steps).round(3).tolist()]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
@pytest.mark.parametrize("fps", [1.0, 3.0, 100.0])
def test_steady_rate(tmp_path: Path, name: str, rate: Fraction, fps: float) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    times = write_video(tmp_path / name, 5, rate, codec=codec)
    got = whole(tmp_path / name, fps)
    assert read_numbers(got.pixels) == expected(times, fps)
    np.testing.assert_allclose(got.times, [times[i] for i in expected(times, fps)], atol=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0, 7.0])
def test_variable_rate(tmp_path: Path, name: str, fps: float) -> None:
    times = write_video(tmp_path / name, 0, times=uneven(120))
    got = whole(tmp_path / name, fps)
    samples = shown(times, times[-1] + 0.05, fps)
    assert read_numbers(got.pixels) == [number for number, _ in samples]
    np.testing.assert_allclose(got.times, [time for _, time in samples], atol=1e-3)
    assert (np.diff(got.times) > 0).all()
    assert len({number for number, _ in samples}) < len(samples)  # some stand at several points


def test_time_starts_with_the_first_picture(tmp_path: Path) -> None:
    write_video(tmp_path / "late.mkv", 0, times=[5 + i / 25 for i in range(60)])
    got = whole(tmp_path / "late.mkv")
    assert got.times.tolist() == [0.0, 1.0, 2.0]
    assert source(tmp_path / "late.mkv").info.duration == pytest.approx(2.4, abs=0.05)


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])  # one for each decoder
def test_batch_size_changes_nothing(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, 4)
    reference = whole(tmp_path / name, 10)
    for batch in (1, 7, 64):
        runs = list(source(tmp_path / name, 10, batch=batch).frames())
        assert [len(run) for run in runs[:-1]] == [batch] * (len(runs) - 1)
        assert np.array_equal(join_frames(runs).pixels, reference.pixels)
        assert np.array_equal(join_frames(runs).times, reference.times)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "uneven.mp4", "uneven.ts"])
def test_restart_meets_the_same_frames(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, 6, times=uneven(100) if "uneven" in name else None)
    reference = whole(tmp_path / name, 2)
    for start in (0.0, 0.01, float(reference.times[1]), 2.5, 4.49, float(reference.times[-1])):
        again = join_frames(list(source(tmp_path / name, 2).frames(start)))
        stays = reference.times >= start
        assert np.array_equal(again.times, reference.times[stays])
        assert np.array_equal(again.pixels, reference.pixels[stays])
    assert list(source(tmp_path / name, 2).frames(1e6)) == []


def test_range_uses_the_grid_of_the_whole_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 6)
    for name in ("a.mp4", "a.ts"):
        write_video(tmp_path / name, 6)
        assert whole(tmp_path / name, start=1.5, end=4.0).times.tolist() == [2.0, 3.0]
        assert join_frames(list(source(tmp_path / name, end=4.0).frames(2.0))).times.tolist() == [
            2.0,
            3.0,
        ]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9"])
def test_other_codecs(tmp_path: Path, codec: str, decoder: str) -> None:
    options = {"libx265": {"x265-params": "pools=1:log-level=-1"}, "libvpx-vp9": {"cpu-used": "8"}}[
        codec
    ]
    times = write_video(tmp_path / "a.mkv", 3, codec=codec, options=options)
    film = source(tmp_path / "a.mkv", 5, decoder=decoder)
    assert read_numbers(join_frames(list(film.frames())).pixels) == expected(times, 5)
    assert film.info.decoder == f"shown:{decoder}"


def test_av1_needs_pyav(tmp_path: Path) -> None:
    options = {"preset": "10", "crf": "10", "svtav1-params": "lp=1"}
    times = write_video(tmp_path / "a.mp4", 2, codec="libsvtav1", options=options)
    film = source(tmp_path / "a.mp4", 5, decoder="decord")
    assert read_numbers(join_frames(list(film.frames())).pixels) == expected(times, 5)
    assert film.info.decoder == "shown:pyav"
    assert "decord cannot open" in film.info.note
    assert film.info.broke_at is None


def test_raw_stream_without_time_stamps(tmp_path: Path) -> None:
    write_video(tmp_path / "a.h264", 3)
    got = whole(tmp_path / "a.h264")
    assert read_numbers(got.pixels) == [0, 25, 50]
    assert got.times.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("name", "share"), [("a.mp4", 0.6), ("a.mkv", 0.6), ("a.mkv", 0.97)])
def test_cut_off_file_gives_what_is_there(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    times = write_video(path, 12, muxer=FAST_START if name == "a.mp4" else None)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    film = source(path, 25)
    got = join_frames(list(film.frames()))
    assert 50 < len(got) < 300
    # never a picture of another time
    assert read_numbers(got.pixels) == np.rint(got.times * 25).astype(int).tolist()
    assert film.info.decoder == "shown:pyav"
    assert film.info.broke_at is not None
    assert got.times[-1] < film.info.broke_at <= times[-1] + 0.05
    assert "cut off" in film.info.note


@pytest.mark.parametrize("bytes_hurt", [300, 3000])
def test_damage_in_the_middle_is_stepped_over(tmp_path: Path, bytes_hurt: int) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, 12, muxer=FAST_START)
    data = bytearray(path.read_bytes())
    middle = len(data) * 6 // 10
    data[middle : middle + bytes_hurt] = b"\xff" * bytes_hurt
    path.write_bytes(bytes(data))
    film = source(path, 25)
    got = join_frames(list(film.frames()))
    assert read_numbers(got.pixels) == np.rint(got.times * 25).astype(int).tolist()
    assert np.diff(got.times).max() > 0.2  # something is missing,
    assert "could be decoded" in film.info.note  # it is said,
    assert got.times[-1] == pytest.approx(11.96)  # and the rest is there
    assert "pyav" in film.info.decoder
    assert film.info.broke_at is None
    later = join_frames(list(source(path, 25, workers=3).frames(5.0)))
    assert np.array_equal(later.times, got.times[got.times >= 5.0])


def picture_heads(data: bytes | bytearray) -> list[int]:
    """Where the frame headers of JPEG pictures begin in a file."""
    return [at for at in range(len(data) - 9) if data[at : at + 4] == b"\xff\xc0\x00\x11"]


def test_pictures_that_grow_beyond_bounds_are_left_out(tmp_path: Path) -> None:
    """The stream's own picture headers say 16,384 x 16,384 from the middle on."""
    write_video(tmp_path / "a.avi", 4, 4, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray((tmp_path / "a.avi").read_bytes())
    heads = picture_heads(data)
    assert len(heads) == 16
    for at in heads[8:]:
        data[at + 5 : at + 9] = struct.pack(">HH", 16384, 16384)
    (tmp_path / "a.avi").write_bytes(data)
    reader = source(tmp_path / "a.avi", 4)
    times = [time for batch in reader.frames() for time in batch.times.tolist()]
    assert times == [number / 4 for number in range(8)]
    assert "could be decoded" in reader.info.note
    assert reader.info.broke_at == 2.0


@pytest.mark.slow
def test_pictures_beyond_bounds_are_refused(tmp_path: Path) -> None:
    size = (16384, 4224)
    write_video(tmp_path / "a.mkv", 1, 1, size=size, codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(UserError, match=r"pictures of 16384 x 4224 pixels; at most 67108864"):
        source(tmp_path / "a.mkv")


def test_damage_to_the_end_is_a_break(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, 12, muxer=FAST_START)
    data = bytearray(path.read_bytes())
    data[len(data) * 7 // 10 :] = b"\xff" * (len(data) - len(data) * 7 // 10)
    path.write_bytes(bytes(data))
    film = source(path, 25)
    got = join_frames(list(film.frames()))
    assert read_numbers(got.pixels) == np.rint(got.times * 25).astype(int).tolist()
    assert film.info.broke_at is not None
    assert 0 < film.info.broke_at - got.times[-1] < 0.2
    with pytest.raises(UserError, match="the file is damaged from"):
        list(source(path, start=11.0).frames())


def test_pyav_takes_over_where_decord_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", 8)
    reference = whole(tmp_path / "a.mp4", 5)
    honest = DecordReader.pictures

    def breaks(self: DecordReader, numbers: Sequence[int]) -> np.ndarray:
        if max(numbers) > 100:
            raise DecordError("decord cannot decode on")
        return honest(self, numbers)

    monkeypatch.setattr(DecordReader, "pictures", breaks)
    film = source(tmp_path / "a.mp4", 5, batch=8, decoder="decord")
    got = join_frames(list(film.frames()))
    assert np.array_equal(got.times, reference.times)
    assert read_numbers(got.pixels) == read_numbers(reference.pixels)
    assert film.info.decoder == "shown:decord+pyav"
    assert "decord cannot decode on after 3.00 s" in film.info.note
    assert film.info.broke_at is None
    again = join_frames(list(film.frames()))
    assert np.array_equal(again.pixels, got.pixels)


def test_decord_that_counts_wrongly_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decord = pytest.importorskip("decord")
    monkeypatch.setattr(decord.VideoReader, "__len__", lambda self: 1_000_000)
    times = write_video(tmp_path / "a.mp4", 3)
    film = source(tmp_path / "a.mp4", decoder="decord")
    assert read_numbers(join_frames(list(film.frames())).pixels) == expected(times, 1)
    assert film.info.decoder == "shown:pyav"


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_pass_of_an_earlier_version_goes_on_as_it_began(tmp_path: Path, decoder: str) -> None:
    times = write_video(tmp_path / "a.mkv", 0, times=uneven(120))
    numbers = expected(times, 1)
    begun = VideoInfo("", "", 0.0, decoder)
    film = source(tmp_path / "a.mkv")
    film.resume(begun)
    got = join_frames(list(film.frames()))
    assert read_numbers(got.pixels) == numbers  # no picture comes twice
    assert film.info.decoder == decoder
    later = source(tmp_path / "a.mkv")
    later.resume(film.info)
    middle = float(got.times[len(got) // 2])
    rest = join_frames(list(later.frames(middle)))
    assert np.array_equal(rest.pixels, got.pixels[len(got) // 2 :])
    film = source(tmp_path / "a.mkv")
    film.resume(VideoInfo("", "", 0.0, "shown:pyav"))
    assert len(join_frames(list(film.frames()))) > len(numbers)


def test_keyframes_alone(tmp_path: Path) -> None:
    """Groups of 12 pictures at 25 a second, sampled at most once for each half second."""
    write_video(tmp_path / "a.mkv", 4, codec="mpeg4", options={"g": "12"})
    film = source(tmp_path / "a.mkv", 2, sampling="keyframes")
    got = join_frames(list(film.frames()))
    keys = [12 * number for number in range(9)]
    first = [
        2 * key // 25 > 2 * before // 25 for before, key in zip([-12, *keys], keys, strict=False)
    ]
    expected_keys = [key for key, is_first in zip(keys, first, strict=True) if is_first]
    assert read_numbers(got.pixels) == expected_keys
    np.testing.assert_allclose(got.times, [number / 25 for number in expected_keys], atol=1e-3)
    assert (film.info.decoder, film.info.note) == ("keyframes:pyav", "")
    later = source(tmp_path / "a.mkv", 2)
    later.resume(film.info)
    assert np.array_equal(join_frames(list(later.frames(2.0))).times, got.times[got.times >= 2])
    write_video(tmp_path / "b.mkv", 20, 5, options={"x264-params": "keyint=infinite:threads=1"})
    film = source(tmp_path / "b.mkv", sampling="keyframes")
    assert read_numbers(join_frames(list(film.frames())).pixels) == [0]
    assert film.info.note == "keyframes alone were sampled, up to 20 s apart"
    with pytest.raises(UserError, match=r"source.sampling=grid is unknown; use one of shown, key"):
        source(tmp_path / "b.mkv", sampling="grid")


def test_an_earlier_clock_is_refused(tmp_path: Path) -> None:
    write_with_sound(tmp_path / "a.mkv", [2 + number / 25 for number in range(50)], 4.0)
    film = source(tmp_path / "a.mkv")
    with pytest.raises(UserError, match="counted its time from another beginning; encode it into"):
        film.resume(VideoInfo("", "", 0.0, "decord"))


def test_no_decord_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask for it is refused; a film that it began goes on by PyAV, with a note."""
    monkeypatch.setitem(sys.modules, "decord", None)
    write_video(tmp_path / "a.mp4", 3)
    with pytest.raises(UserError, match=r"needs decord, which is not installed; say `pip install"):
        source(tmp_path / "a.mp4", decoder="decord")
    film = source(tmp_path / "a.mp4")
    assert read_numbers(join_frames(list(film.frames())).pixels) == [0, 25, 50]
    assert film.info.note == ""
    film.resume(VideoInfo("", "", 0.0, "shown:decord"))
    assert read_numbers(join_frames(list(film.frames())).pixels) == [0, 25, 50]
    assert "decord is not installed" in film.info.note


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_rotation_flag(tmp_path: Path, decoder: str) -> None:
    def paint(number: int, time: float) -> np.ndarray:
        picture = np.zeros((64, 128, 3), dtype=np.uint8)
        picture[:32, :32] = 255  # top left; shown at the top right after a quarter turn clockwise
        return picture

    write_video(tmp_path / "a.mp4", 1, size=(128, 64), paint=paint)
    turn(tmp_path / "a.mp4")
    film = source(tmp_path / "a.mp4", width=32, height=64, decoder=decoder)
    picture = next(film.frames()).pixels[0]
    assert picture.shape == (64, 32, 3)
    assert picture[4:12, 20:28].mean() > 200
    assert picture[:, :12].mean() < 30
    assert picture[24:].mean() < 30


def test_identity_is_the_content(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 2)
    write_video(
        tmp_path / "other.mp4", 2, paint=lambda number, time: numbered(number + 1, (64, 64))
    )
    shutil.copy(tmp_path / "a.mp4", tmp_path / "copy.mkv")
    one, copy, other = (
        source(tmp_path / name).info.video_id for name in ("a.mp4", "copy.mkv", "other.mp4")
    )
    assert one == copy != other
    assert len(one) == 16
    int(one, 16)


def test_pictures_that_end_before_the_sound_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_with_sound(path, [number / 25 for number in range(50)], 6.0)
    film_source = source(path)
    list(film_source.frames())
    assert film_source.info.broke_at is None
    assert film_source.info.note == ""
    assert film_source.info.duration == pytest.approx(6.0, abs=0.1)  # players play on


def _bad_files(folder: Path) -> dict[str, Path]:
    write_audio(folder / "sound.m4a")
    write_video(folder / "good.mp4", 4)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "notes.txt").write_text("neither is this\n" * 50)
    half = (folder / "good.mp4").read_bytes()
    # the index of an MP4 is usually at its end
    (folder / "no_index.mp4").write_bytes(half[: len(half) // 2])
    return {path.name: path for path in [*folder.iterdir(), folder, folder / "missing.mp4"]}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("missing.mp4", {}, "no file"),
        ("", {}, "folder"),
        ("empty.mp4", {}, "empty"),
        ("text.mp4", {}, "not a video"),
        ("notes.txt", {}, "not a video"),
        ("no_index.mp4", {}, "incomplete"),
        ("sound.m4a", {}, "only sound"),
        ("good.mp4", {"start": 10.0}, "4.00 s long"),
        ("good.mp4", {"start": 0.2, "end": 0.8}, "more frames per second"),
        ("good.mp4", {"fps": 0.0}, "above 0"),
        ("good.mp4", {"fps": float("nan")}, "above 0"),
        ("good.mp4", {"start": 3.0, "end": 3.0}, "not before"),
        ("good.mp4", {"start": -1.0}, "0 or more"),
    ],
)
def test_bad_input_is_told_in_one_sentence(
    tmp_path: Path, name: str, arguments: dict[str, float], words: str
) -> None:
    _bad_files(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        source(tmp_path / name, **arguments)
    message = str(caught.value)
    assert str(tmp_path / name) in message
    assert "\n" not in message


def test_nothing_on_stderr(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 12, muxer=FAST_START)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    data[-2000:] = b"\xff" * 2000
    (tmp_path / "a.mp4").write_bytes(bytes(data))
    program = (
        "import sys; from encoders.sources.file import FileSource as F; "
        "list(F(sys.argv[1], width=64, height=64).frames())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.mp4")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stderr == ""


QUICK_CLIPS = ("corrupted.mp4", "pancake.mkv", "video_90.mov")


@clips
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.name in QUICK_CLIPS else [pytest.mark.slow])
        for path in sorted(CLIPS.glob("*"))
    ],
    ids=lambda path: path.name,
)
def test_real_clips(path: Path) -> None:
    film = source(path, 3)
    got = join_frames(list(film.frames()))
    assert (np.diff(got.times) > 0).all()
    assert np.floor((got.times + 1e-3) * 3).tolist() == sorted(
        {*np.floor((got.times + 1e-3) * 3).tolist()}
    )
    if path.name == "corrupted.mp4":
        assert 2.7 < (film.info.broke_at or 0) < 3.0
        return
    assert film.info.decoder == "shown:pyav"
    assert film.info.broke_at is None
    other = join_frames(list(source(path, 3, decoder="decord").frames()))
    # the decoders agree on the times to the last bit,
    assert np.array_equal(got.times, other.times)
    # on the pictures up to rounding
    assert np.abs(got.pixels.astype(int) - other.pixels).mean() < 1.0


@clips
def test_real_rotated_clip_is_upright_in_both_decoders() -> None:
    upright, other = (
        whole(CLIPS / "video_90.mov", 30, width=80, height=142, decoder=decoder)
        for decoder in ("pyav", "decord")
    )
    assert upright.pixels.shape == other.pixels.shape == (3, 142, 80, 3)
    assert np.abs(upright.pixels.astype(int) - other.pixels).mean() < 1.0


def test_numbers_can_be_read_back() -> None:
    assert [read_number(numbered(n, (64, 64))) for n in (0, 1, 299, 65535)] == [0, 1, 299, 65535]
