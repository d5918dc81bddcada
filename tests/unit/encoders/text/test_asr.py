"""Speech recognition: lines, and messages about videos without speech. Needs pocketsphinx."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.text.asr import Asr
from encoders.text.lines import TextSpan, VideoFile
from tests.support.videos import write_video
from tests.support.voices import film_with_sound, speak

pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")


def listened(path: Path, seconds: float, **options: object) -> list[TextSpan]:
    return list(Asr(workers=0, **options).spans(VideoFile("v", path, duration=seconds)))  # type: ignore[arg-type]


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 2, 5)
    (stretch,) = listened(tmp_path / "a.mp4", 2.0)
    assert stretch == TextSpan(0.0, 2.0, (), True, "a.mp4 has no sound track")


@pytest.mark.parametrize("level", [0, 20])
def test_silent_sound_says_so(tmp_path: Path, level: int) -> None:
    noise = (level * np.random.default_rng(0).normal(0, 1, 48_000)).astype(np.int16)
    film_with_sound(tmp_path / "a.mp4", noise, 16_000)
    (stretch,) = listened(tmp_path / "a.mp4", 3.0)
    assert stretch.lines == () and stretch.last and stretch.note == "the sound of a.mp4 is silent"


def test_stretches_end_in_pauses_and_go_on_there(tmp_path: Path, monkeypatch) -> None:
    """The sound is faint noise with gaps, which is not transcribed. From any border, the same
    borders follow.
    """
    monkeypatch.setattr("encoders.text.asr.SPAN_S", 6.0)
    monkeypatch.setattr("encoders.text.asr.PAUSE_S", 2.0)
    noise = (40 * np.random.default_rng(0).normal(0, 1, 20 * 16_000)).astype(np.int16)
    for gap in (4.7, 8.0, 11.2):  # the second is not near a border
        noise[round((gap - 0.25) * 16_000) : round((gap + 0.25) * 16_000)] = 0
    film_with_sound(tmp_path / "a.mp4", noise, 16_000)
    found = listened(tmp_path / "a.mp4", 20.0)
    assert [stretch.end for stretch in found][:2] == pytest.approx([4.7, 11.2], abs=0.15)
    assert (
        16.0 <= found[2].end < 18.0
        and found[-1].end == 20.0
        and [s.last for s in found] == [False] * 3 + [True]
    )
    assert all(a.end == b.start for a, b in pairwise(found))
    again = Asr(workers=0).spans(VideoFile("v", tmp_path / "a.mp4", duration=20.0), found[1].start)
    assert [(s.start, s.end) for s in again] == [(s.start, s.end) for s in found[1:]]


def test_a_path_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text\.asr\.path=.* no faster-whisper model"):
        Asr(path=str(tmp_path))


@pytest.mark.slow
def test_what_a_voice_says_is_heard_roughly(tmp_path: Path) -> None:
    """Some of the words, not more; where somebody speaks, to a second."""
    told = "the harbor was built with stone and water"
    voice, rate = speak(told, tmp_path)
    quiet = np.zeros(2 * rate, np.int16)
    film_with_sound(tmp_path / "a.mp4", np.concatenate([quiet, voice, quiet]), rate)
    (stretch,) = listened(tmp_path / "a.mp4", 4.0 + len(voice) / rate)
    text = " ".join(line.text for line in stretch.lines)
    print(f"\nsaid: {told}\nheard: {text}")
    assert len(set(text.split()) & set(told.split())) >= 2 and "rough" in stretch.note
    assert abs(stretch.lines[0].start - 2.0) < 1.0 and all(
        line.confidence == 0.3 for line in stretch.lines
    )
