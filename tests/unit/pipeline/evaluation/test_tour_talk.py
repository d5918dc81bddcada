"""The talk of `make demo`."""

from pathlib import Path

import numpy as np
import pytest

from encoders.conse.required_packages import missing_packages
from encoders.sources.container import inspect
from encoders.sources.pictures import pictures_at
from encoders.text.lines import VideoFile
from encoders.text.speech.sound import has_sound
from encoders.text.subtitles import Subtitles
from pipeline import cli
from pipeline.evaluation import tour_talk
from pipeline.evaluation.tour import find_shown
from pipeline.evaluation.tour_talk import (
    QUESTIONS,
    SHOWN,
    SLIDES,
    make_talk,
    photograph,
    speaks,
)
from tests.support.videos import numbered, write_video


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


@pytest.mark.skipif(photograph() is None, reason="matplotlib is not installed")
def test_a_photograph_ends_the_talk(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tour_talk, "speaks", lambda: False)
    film = tmp_path / "talk.mp4"
    seconds = make_talk(film)
    slide, photo = pictures_at(film, [seconds - 6, seconds - 1], (64, 36))
    assert slide is not None and photo is not None
    assert len(np.unique(photo[:, 16:48])) > 2 * len(np.unique(slide[:, 16:48]))
    (tmp_path / "without").mkdir()
    monkeypatch.setattr(tour_talk, "photograph", lambda: None)
    assert make_talk(tmp_path / "without" / "talk.mp4") == seconds - tour_talk._PHOTO_S


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_packages()), reason="the packages of clip=conse are not installed")
@pytest.mark.skipif(photograph() is None, reason="matplotlib is not installed")
def test_what_the_talk_shows_is_found_among_other_films(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tour_talk, "speaks", lambda: False)
    make_talk(tmp_path / "talk.mp4")
    write_video(tmp_path / "other.mp4", 8, 2, paint=lambda number, _: numbered(number, (64, 64)))
    bank = f"bank={tmp_path / 'bank'}"
    for name in ("other.mp4", "talk.mp4"):
        line = [f"video={tmp_path / name}", bank, "text=none", "clip=[embedded,conse]"]
        assert cli.run("ingest", line) == 0
    said = find_shown(tmp_path, tmp_path / "talk.mp4")
    assert said.endswith(": right") and SHOWN in said


def test_every_answer_is_said_or_printed() -> None:
    words = " ".join(text for slide in SLIDES for text in (slide.title, *slide.rows, *slide.said))
    answers = [one.answer for one in QUESTIONS]
    assert all(answer in words for answer in answers) and answers.count("") == 1
