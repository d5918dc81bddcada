"""Exact clips: they begin and end within one picture, and what is copied has the film's bits."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.errors import UserError
from encoders.sources.container import inspect
from encoders.sources.pictures import pictures_at
from pipeline.export.clip import Clip, cut_clip
from tests.support.fixture_film import RECIPES
from tests.support.paths import CLIPS
from tests.support.videos import read_number, turn, write_video

X265 = {"x265-params": "keyint=25:log-level=none"}


def shown(film: Path, clip: Clip, start: float, end: float) -> tuple[int, int]:
    """How many pictures of the clip have the bits of the film, and how many are like them; all of
    the stretch have to be there, at their times."""
    facts, ours = inspect(film), inspect(clip.path)
    first = max(int(np.searchsorted(facts.times, start + 1e-3, side="right")) - 1, 0)
    times = facts.times[first : int(np.searchsorted(facts.times, end - 1e-3))]
    expected = np.maximum(times - clip.start, 0)
    assert len(ours.times) == len(times)
    assert np.abs(ours.times - expected).max() < 2e-3 + float(max(facts.clock, ours.clock))
    same = near = 0
    pairs = zip(
        pictures_at(film, (times + 2e-3).tolist(), 160),
        # the first picture may stand for a millisecond
        pictures_at(clip.path, [0.0, *(ours.times[1:] + 2e-3).tolist()], 160),
        strict=True,
    )
    for one, other in pairs:
        assert one is not None and other is not None
        if np.array_equal(one, other):
            same += 1
        else:
            # grey: a palette dithers colours, which H.264 stores at half of the size; and colours
            # of the cinema (JPEG 2000) become those of video
            off = np.abs(one.mean(axis=2) - other.mean(axis=2)).mean()
            assert off < (12 if clip.notes else 6)
            near += 1
    return same, near


@pytest.mark.skipif(
    not hasattr(os, "sched_getscheduler") or os.geteuid() != 0,
    reason="only a process of root on Linux can get real-time priority",
)
def test_an_av1_clip_leaves_the_process_its_priority(tmp_path: Path) -> None:
    options = {"g": "25", "preset": "10", "svtav1-params": "lp=1"}
    write_video(tmp_path / "a.mp4", 3, 25, size=(96, 64), codec="libsvtav1", options=options)
    cut_clip(tmp_path / "a.mp4", 1.3, 2.4, tmp_path / "out.mp4", exact=True)
    assert {os.sched_getscheduler(int(one)) for one in os.listdir("/proc/self/task")} == {
        os.SCHED_OTHER
    }


@pytest.mark.parametrize(
    ("codec", "options", "pix_fmt", "suffix"),
    [
        ("libx264", {"g": "25", "bf": "3"}, "yuv420p", ".mp4"),
        ("libx264", {"g": "25", "bf": "3"}, "yuv420p10le", ".mkv"),
        ("libx264", {"g": "25", "x264-params": "sps-id=31:bframes=0"}, "yuv420p", ".mov"),
        ("libx265", X265, "yuv420p10le", ".mp4"),
        ("libx265", {"x265-params": "keyint=25:open-gop=1:log-level=none"}, "yuv420p", ".mkv"),
        ("libsvtav1", {"g": "25", "preset": "10", "svtav1-params": "lp=1"}, "yuv420p", ".mp4"),
        ("libvpx-vp9", {"g": "25", "deadline": "realtime", "cpu-used": "8"}, "yuv420p", ".mkv"),
        ("libvpx", {"g": "25", "deadline": "realtime", "cpu-used": "8"}, "yuv420p", ".mkv"),
    ],
)
def test_only_pictures_next_to_the_ends_are_encoded_again(
    tmp_path: Path, codec: str, options: dict[str, str], pix_fmt: str, suffix: str
) -> None:
    film = tmp_path / f"film{suffix}"
    write_video(film, 5, 25, size=(96, 64), codec=codec, options=options, pix_fmt=pix_fmt)
    clip = cut_clip(film, 1.3, 3.62, tmp_path / f"out{suffix}", exact=True)
    assert [clip.start, clip.end] == pytest.approx([1.3, 3.62])
    same, near = shown(film, clip, 1.3, 3.62)
    assert same + near == 59 and clip.notes == ()
    # 18 pictures lie before the keyframe of second 2, and the last ones lean on each other
    assert same >= 59 - 18 - 12 and clip.encoded <= 18 + 12
    first = next(iter(pictures_at(clip.path, [0.0], 64)))
    assert first is not None and read_number(first) == 32  # shown from 1.28 s on


def test_nothing_is_encoded_between_two_keyframes_without_need(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_video(film, 5, 25, options={"g": "25", "bf": "0"})
    clip = cut_clip(film, 2.0, 3.5, tmp_path / "out.mp4", exact=True)
    assert clip.encoded == 0 and shown(film, clip, 2.0, 3.5) == (38, 0)


@pytest.mark.parametrize("name", ["film.ts", "film.mkv"])
def test_a_broadcast_stream_and_uneven_times(tmp_path: Path, name: str) -> None:
    times = np.cumsum(np.random.default_rng(3).uniform(0.01, 0.2, 80)).tolist()
    film = tmp_path / name
    write_video(film, 0, 25, times=times, options={"g": "12"})
    for out in ("out.mp4", "out.mkv"):
        clip = cut_clip(film, 2.9, 4.4, tmp_path / out, exact=True)
        same, near = shown(film, clip, 2.9, 4.4)
        assert clip.start == pytest.approx(2.9) and same > 0 and same + near > 10, (name, out)
        assert not clip.notes


def test_a_picture_that_stands_begins_with_the_clip(tmp_path: Path) -> None:
    """Slides: one picture for ten seconds."""
    film = tmp_path / "film.mp4"
    write_video(film, 0, 25, times=[0.0, 10.0, 20.0, 30.0], options={"g": "250"})
    clip = cut_clip(film, 14.0, 23.0, tmp_path / "out.mp4", exact=True)
    facts = inspect(clip.path)
    assert clip.start == 14.0 and facts.times.tolist() == pytest.approx([0.0, 6.0], abs=2e-3)
    assert facts.duration == pytest.approx(9.0, abs=0.1)


def test_rotation_and_colours_survive(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_video(film, 4, 25, size=(96, 64), options={"g": "25"})
    turn(film)
    for start in (1.2, 0.2):
        clip = cut_clip(film, start, start + 0.5, tmp_path / "out.mp4", exact=True)
        picture = next(iter(pictures_at(clip.path, [0.0], 96)))
        assert picture is not None and picture.shape[:2] == (96, 64)
        assert sum(shown(film, clip, start, start + 0.5)) > 10


def test_a_codec_that_cannot_be_joined_is_encoded_again_and_says_so(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_video(film, 4, 25, codec="mpeg4", options={"g": "50"})
    clip = cut_clip(film, 1.2, 2.9, tmp_path / "out.mp4", exact=True)
    assert clip.notes == ("all pictures were encoded again as H.264",)
    assert sum(shown(film, clip, 1.2, 2.9)) == 43 == clip.encoded
    with av.open(str(clip.path)) as copy:
        assert copy.streams.video[0].codec_context.name == "h264"


def test_a_seam_that_fails_is_found_and_all_is_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its own parameter sets, the encoder's pictures cannot be decoded."""
    from pipeline.export.cutting import bitstream

    film = tmp_path / "film.mp4"
    write_video(film, 4, 25, options={"g": "25"})

    def without_sets(units: list[bytes], length_bytes: int) -> bytes:
        return real([unit for unit in units if unit[0] & 31 not in (7, 8)], length_bytes)

    real = bitstream.joined
    monkeypatch.setattr(bitstream, "joined", without_sets)
    clip = cut_clip(film, 1.2, 2.9, tmp_path / "out.mp4", exact=True)
    assert clip.encoded == 43 and "as a copy would be wrong" in clip.notes[0]
    assert sum(shown(film, clip, 1.2, 2.9)) == 43


def test_sound_begins_with_the_clip(film: Path, tmp_path: Path) -> None:
    """Odd seconds are loud; a clip from 3.5 s on is loud for half a second."""
    clip = cut_clip(film, 3.5, 5.5, tmp_path / "out.mkv", exact=True)
    with av.open(str(clip.path)) as copy:
        parts = [
            (float(one.time or 0), np.abs(one.to_ndarray()).mean())
            for one in copy.decode(copy.streams.audio[0])
        ]
    loud = [time for time, level in parts if level > 0.05]
    assert min(loud) < 0.13 and all(time < 0.6 or time > 1.4 for time in loud)
    assert next(time for time in loud if time > 1.4) == pytest.approx(1.5, abs=0.13)


@pytest.mark.skipif(not CLIPS.exists(), reason="needs the clips beside the checkout")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("dance.mp4", marks=pytest.mark.slow),  # 1280 x 720
        "pancake.mkv",
        pytest.param("outdoor_3fps_a.mp4", marks=pytest.mark.slow),  # 164 s
        "video_90.mov",
    ],
)
def test_real_clips(tmp_path: Path, name: str) -> None:
    film = CLIPS / name
    length = inspect(film).duration
    start, end = round(0.23 * length, 2), round(0.81 * length, 2)
    clip = cut_clip(film, start, end, tmp_path / f"out{film.suffix}", exact=True)
    assert clip.start == pytest.approx(start, abs=1e-3) and clip.end == pytest.approx(end, abs=1e-3)
    assert sum(shown(film, clip, start, end)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_codec_container_and_group_of_pictures(tmp_path: Path, suffix: str) -> None:
    for recipe in RECIPES:
        film, _ = recipe.write(tmp_path)
        if inspect(film).pictures is None:
            continue
        for start, end in ((2.23, 3.71), (0.0, 1.1), (4.13, 99.0)):
            out = tmp_path / f"out{suffix}"
            try:
                clip = cut_clip(film, start, end, out, exact=True)
            except UserError as error:
                assert "cannot hold" in str(error) or "cannot be written" in str(error), recipe
            else:
                assert sum(shown(film, clip, start, min(end, clip.end))) > 0, recipe
                assert "as a copy would be wrong" not in " ".join(clip.notes), recipe
        film.unlink()


def test_long_groups_are_written_without_holding_them(tmp_path: Path) -> None:
    """One keyframe in all: everything is encoded again, in the order of time."""
    film = tmp_path / "film.mkv"
    write_video(film, 20, Fraction(25), options={"g": "10000", "sc_threshold": "0"})
    clip = cut_clip(film, 4.0, 15.0, tmp_path / "out.mkv", exact=True)
    assert clip.encoded == 275 and sum(shown(film, clip, 4.0, 15.0)) == 275
