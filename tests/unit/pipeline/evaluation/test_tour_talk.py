"""The talk of `make demo`."""

from pathlib import Path

import pytest

from encoders.sources.container import inspect
from encoders.text.lines import VideoFile
from encoders.text.speech.sound import has_sound
from encoders.text.subtitles import Subtitles
from pipeline.evaluation import tour_talk
from pipeline.evaluation.tour_talk import QUESTIONS, SLIDES, make_talk, speaks


def test_without_a_voice_subtitles_say_the_talk(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tour_talk, "speaks", lambda: False)
    film = tmp_path / "talk.mp4"
    seconds = make_talk(film)
    assert abs(float(inspect(film).duration) - seconds) < 0.5 and not has_sound(film)
    spans = Subtitles().spans(VideoFile("talk", film, duration=seconds))
    lines = [line.text for span in spans for line in span.lines]
    assert lines == [words for slide in SLIDES for words in slide.said]


@pytest.mark.skipif(not speaks(), reason="espeak-ng or Whisper weights are not there")
def test_a_voice_says_the_talk(tmp_path: Path) -> None:
    film = tmp_path / "talk.mp4"
    make_talk(film)
    assert has_sound(film) and not film.with_suffix(".srt").exists()


def test_every_answer_is_said_or_printed() -> None:
    words = " ".join(text for slide in SLIDES for text in (slide.title, *slide.rows, *slide.said))
    answers = [one.answer for one in QUESTIONS]
    assert all(answer in words for answer in answers) and answers.count("") == 1
