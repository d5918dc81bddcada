"""Clips: packets are copied, a clip begins where it says, and shows the pictures of the film."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from encoders.errors import UserError
from encoders.sources.container import fingerprint, inspect
from encoders.sources.pictures import pictures_at
from encoders.text.subtitles import read_tracks
from pipeline.export.clip import Clip, cut_clip
from tests.support.fixture_film import RECIPES
from tests.support.full_film import write_full
from tests.support.paths import CLIPS, ROOT
from tests.support.videos import read_number, turn, write_video

X265 = {"x265-params": "keyint=25:log-level=none"}


def same_pictures(film: Path, clip: Clip, end: float) -> int:
    """How many pictures from the clip's start to `end` are those of the film; all have to be."""
    times = inspect(film).times
    shown = times[(times >= clip.start - 1e-3) & (times < end - 1e-3)]
    ours = pictures_at(clip.path, (shown - clip.start + 2e-3).tolist(), 320)
    for at, one, other in zip(
        shown, pictures_at(film, (shown + 2e-3).tolist(), 320), ours, strict=True
    ):
        assert one is not None and other is not None and np.array_equal(one, other), at
    return len(shown)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_clip_begins_at_the_keyframe_before_and_has_every_picture(
    film: Path, tmp_path: Path, suffix: str
) -> None:
    clip = cut_clip(film, 3.4, 5.6, tmp_path / f"out{suffix}")
    assert [clip.start, clip.end] == pytest.approx([3.0, 5.6], abs=2e-3)
    assert same_pictures(film, clip, 5.6) == 65
    assert clip.nbytes == clip.path.stat().st_size and clip.notes == ()
    facts = inspect(clip.path)
    assert facts.times[0] == 0.0 and facts.duration == pytest.approx(2.6, abs=0.13)
    first = next(iter(pictures_at(clip.path, [0.0], 64)))
    assert first is not None and read_number(first) == 75


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_subtitles_colours_and_languages_come_along(
    film: Path, tmp_path: Path, suffix: str
) -> None:
    clip = cut_clip(film, 3.4, 5.6, tmp_path / f"out{suffix}")
    cues, notes = read_tracks(clip.path)
    assert notes == [] and [(round(a, 2), round(b, 2), text) for a, b, text in cues] == [
        (0.0, 1.5, "across the start"),
        (2.0, 2.6, "inside"),
    ]
    with av.open(str(clip.path)) as copy:
        assert [stream.language for stream in list(copy.streams)[1:]] == ["spa", "ger"]
        colours = copy.streams.video[0].codec_context
        assert (colours.color_primaries, colours.color_trc, colours.colorspace) == (1, 1, 1)
        assert copy.metadata["title"] == "Ten seconds"
        frames = list(copy.decode(copy.streams.audio[0]))
    loud = {
        second: np.abs(np.concatenate([f.to_ndarray().ravel() for f in frames if _in(f, second)]))
        for second in (0.3, 1.3, 2.2)
    }
    # seconds 3 and 5 of the film are loud, second 4 is silent
    assert loud[0.3].mean() > 0.1 and loud[1.3].mean() < 0.001 and loud[2.2].mean() > 0.1


def _in(frame: av.AudioFrame, second: float) -> bool:
    return frame.time is not None and second <= frame.time < second + 0.35


def test_subtitles_of_an_mp4_come_along_into_mkv_and_back(tmp_path: Path) -> None:
    write_full(tmp_path / "film.mp4", text_codec="mov_text")
    for name in ("out.mkv", "out.mp4"):
        clip = cut_clip(tmp_path / "film.mp4", 4.9, 6.5, tmp_path / name)
        cues, _ = read_tracks(clip.path)
        assert [text for _, _, text in cues] == ["across the start", "inside"], name


def test_rotation_survives(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_video(film, 4, 25, size=(96, 64))
    turn(film)
    for name in ("out.mp4", "out.mkv", "out.mov"):
        clip = cut_clip(film, 1.2, 2.9, tmp_path / name)
        picture = next(iter(pictures_at(clip.path, [0.0], 96)))
        assert picture is not None and picture.shape[:2] == (96, 64), name
        assert same_pictures(film, clip, 2.9) == 48


@pytest.mark.parametrize(
    ("codec", "options", "pix_fmt", "suffix"),
    [
        ("libx264", {"g": "25", "x264-params": "open-gop=1:bframes=3"}, "yuv420p", ".mp4"),
        ("libx265", X265, "yuv420p10le", ".mp4"),
        ("libx265", {"x265-params": "keyint=25:open-gop=1:log-level=none"}, "yuv420p", ".mkv"),
        ("libsvtav1", {"g": "25", "preset": "10", "svtav1-params": "lp=1"}, "yuv420p", ".mp4"),
        ("libvpx-vp9", {"g": "25", "deadline": "realtime", "cpu-used": "8"}, "yuv420p", ".mkv"),
    ],
)
def test_codecs(
    tmp_path: Path, codec: str, options: dict[str, str], pix_fmt: str, suffix: str
) -> None:
    film = tmp_path / f"film{suffix}"
    write_video(film, 4, 25, codec=codec, options=options, pix_fmt=pix_fmt)
    for start, end in ((2.3, 3.1), (0.0, 0.9), (3.5, 99.0)):
        clip = cut_clip(film, start, end, tmp_path / f"out{suffix}")
        assert clip.start <= start + 1e-3 and same_pictures(film, clip, min(end, clip.end)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_codec_container_and_group_of_pictures(tmp_path: Path, suffix: str) -> None:
    """A clip has every picture, or the format is refused and another one is named."""
    refused = set()
    for recipe in RECIPES:
        film, _ = recipe.write(tmp_path)
        for start, end in ((2.2, 3.7), (0.0, 1.1), (4.1, 99.0)):
            out = tmp_path / f"out{suffix}"
            try:
                clip = cut_clip(film, start, end, out)
            except UserError as error:
                refused.add(recipe.codec)
                assert re.search(r"use \.m|convert the film|try another", str(error)), recipe
                assert suffix not in str(error).rpartition(";")[2], recipe
            else:
                assert clip.start <= start + 1e-3, recipe
                assert same_pictures(film, clip, min(end, clip.end)) > 0, recipe
                out.unlink()
        film.unlink()
    allowed = {"libx264", "libx265", "libsvtav1", "libvpx-vp9", "mpeg2video", "mpeg4", "mjpeg"}
    assert not refused & allowed


def test_uneven_times_and_a_broadcast_stream(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.01, 0.2, 80)).tolist()
    for name in ("film.mp4", "film.ts", "film.avi"):
        film = tmp_path / name
        if name == "film.avi":  # no time stamps of its own
            write_video(film, 6, 25, codec="mpeg4", options={"g": "25"})
        else:
            write_video(film, 0, 25, times=times, options={"g": "12"})
        if name == "film.avi" and inspect(film).pictures is None:
            with pytest.raises(UserError, match="no time stamps"):
                cut_clip(film, 2.0, 3.0, tmp_path / "out.mkv")
            continue
        for out in ("out.mp4", "out.mkv"):
            clip = cut_clip(film, 2.9, 4.4, tmp_path / out)
            assert clip.start <= 2.9 and same_pictures(film, clip, 4.4) > 10, (name, out)


@pytest.mark.skipif(not CLIPS.exists(), reason="needs the clips beside the checkout")
@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        pytest.param("dance.mp4", ".mp4", marks=pytest.mark.slow),  # 1280 x 720
        ("pancake.mkv", ".mkv"),
        ("outdoor_3fps_a.mp4", ".mkv"),
        ("video_90.mov", ".mp4"),
    ],
)
def test_real_clips(tmp_path: Path, name: str, suffix: str) -> None:
    film = CLIPS / name
    length = inspect(film).duration
    start, end = 0.4 * length, 0.7 * length
    clip = cut_clip(film, start, end, tmp_path / f"out{suffix}")
    assert same_pictures(film, clip, end) >= 3
    with av.open(str(film)) as one, av.open(str(clip.path)) as other:
        assert len(one.streams.audio) == len(other.streams.audio)


# ---- what is refused


@pytest.mark.parametrize(
    ("start", "end", "name", "words"),
    [
        (11.0, 12.0, "out.mkv", "11 s is outside"),
        (5.0, 5.0, "out.mkv", "is none"),
        (-1.0, 5.0, "out.mkv", "is none"),
        (float("nan"), 5.0, "out.mkv", "is none"),
        (1.0, 5.0, "out.gif", r"use one of \.mp4"),
        (1.0, 5.0, "no/out.mkv", "folder that is not there"),
        (1.0, 5.0, "film.mkv", "is the film itself"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    film: Path, start: float, end: float, name: str, words: str
) -> None:
    before = sorted(os.listdir(film.parent))
    with pytest.raises(UserError, match=words):
        cut_clip(film, start, end, film.parent / name)
    assert sorted(os.listdir(film.parent)) == before


def test_a_codec_that_the_format_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    write_video(film, 2, 25, codec="ffv1", options={})
    with pytest.raises(UserError, match=r"\.mov cannot hold|cannot be written"):
        cut_clip(film, 0.5, 1.5, tmp_path / "out.mov")
    assert os.listdir(tmp_path) == ["film.mkv"]


def test_a_film_that_is_gone_or_another_one_is_refused(film: Path, tmp_path: Path) -> None:
    name = fingerprint(film)
    other = tmp_path / "other.mkv"
    write_video(other, 2)
    with pytest.raises(UserError, match="not the video that it was"):
        cut_clip(other, 0.5, 1.5, tmp_path / "out.mkv", video_id=name)
    with pytest.raises(UserError, match="is not there"):
        cut_clip(tmp_path / "gone.mkv", 0.5, 1.5, tmp_path / "out.mkv", video_id=name)
    assert cut_clip(film, 0.5, 1.5, tmp_path / "out.mkv", video_id=name).nbytes > 0


def test_a_kill_leaves_the_old_file(film: Path, tmp_path: Path) -> None:
    """The process dies while packets are written: the name shows what it showed before."""
    out = tmp_path / "out.mkv"
    out.write_bytes(b"before")
    script = (
        "import os, signal, sys; from pathlib import Path; from pipeline.export import clip; "
        "from pipeline.export.cutting import side_tracks\n"
        "moved = side_tracks._moved\n"
        "def die(*args):\n"
        "    die.calls += 1\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if die.calls > 20 else None\n"
        "    return moved(*args)\n"
        "die.calls = 0; side_tracks._moved = die\n"
        "clip.cut_clip(Path(sys.argv[1]), 1.0, 8.0, Path(sys.argv[2]))\n"
    )
    code = subprocess.run(
        [sys.executable, "-c", script, str(film), str(out)], cwd=ROOT, check=False
    ).returncode
    assert code == -signal.SIGKILL and out.read_bytes() == b"before"
