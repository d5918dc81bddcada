"""Speech: what is heard, and what is said of videos that nothing can be heard in. Needs pocketsphinx; made-up voices."""

from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.text import sound
from encoders.text.asr import Asr
from encoders.text.lines import Stretch, VideoFile
from tests.videos import write_video
from tests.voices import film_with_sound, speak

pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")


def listened(path: Path, seconds: float, **options: object) -> list[Stretch]:
    return list(Asr(workers=0, **options).stretches(VideoFile("v", path, duration=seconds)))  # type: ignore[arg-type]


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 2, 5)
    (stretch,) = listened(tmp_path / "a.mp4", 2.0)
    assert stretch == Stretch(0.0, 2.0, (), True, "a.mp4 has no sound track")


@pytest.mark.parametrize("level", [0, 20])
def test_silent_sound_says_so(tmp_path: Path, level: int) -> None:
    noise = (level * np.random.default_rng(0).normal(0, 1, 48_000)).astype(np.int16)
    film_with_sound(tmp_path / "a.mp4", noise, 16_000)
    (stretch,) = listened(tmp_path / "a.mp4", 3.0)
    assert stretch.lines == () and stretch.last and stretch.note == "the sound of a.mp4 is silent"


def test_sound_comes_at_its_time(tmp_path: Path) -> None:
    """A tone from 1 s to 2 s, from any beginning."""
    tone = np.zeros(64_000, np.int16)
    tone[16_000:32_000] = (8000 * np.sin(np.arange(16_000) * 0.3)).astype(np.int16)
    film_with_sound(tmp_path / "a.mp4", tone, 16_000)
    for start, end in ((0.0, 4.0), (0.5, 2.5), (1.5, 4.0)):
        heard = sound.stretch(tmp_path / "a.mp4", 0.0, start, end)
        loud = np.flatnonzero(np.abs(heard) > 2000) / sound.RATE + start
        assert abs(loud[0] - max(1.0, start)) < 0.08 and abs(loud[-1] - 2.0) < 0.08


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
    assert abs(stretch.lines[0].start - 2.0) < 1.0 and all(line.confidence == 0.3 for line in stretch.lines)
