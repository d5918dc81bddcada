"""Needles in the words of films: what is heard, what is printed, and the subtitles of both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import UserError
from encoders.text.subtitle_files import read_file
from pipeline.config.compose import compose
from pipeline.evaluation import espeak
from pipeline.evaluation.needle import command
from pipeline.evaluation.needle.films import make, sound
from pipeline.evaluation.needle.films.film import write
from pipeline.evaluation.needle.films.schema import Film
from tests.support.needle_films import GRID
from tests.support.voices import recording

needs_voice = pytest.mark.skipif(not espeak.can_speak(), reason="espeak-ng is not there")


MINUTES = 0.7


def film_of(task: str) -> Film:
    return make.make(replace(GRID, tasks=(task,), films=(1,), minutes=(MINUTES,)))[0][0]


@needs_voice
def test_a_spoken_needle_is_heard_while_the_plan_says_so(tmp_path: Path) -> None:
    film = film_of("spoken")
    path = tmp_path / "film.mp4"
    write(film, path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["film.mp4", "film.srt"]
    rate = 8000
    samples = np.abs(recording(path, rate).astype(float))
    loud = np.zeros(len(samples), bool)
    for one in film.shown:
        span = slice(round((one.start - 0.1) * rate), round((one.end + 0.1) * rate))
        loud[span] = True
        assert samples[span].max() > 3000
        # the sentence is over before the plan says that the needle ends
        assert samples[round((one.end - 1.0) * rate) : span.stop].max() < 300
    assert samples[~loud].max() < 300 and len(samples) / rate == pytest.approx(
        60 * MINUTES, abs=0.3
    )


@pytest.mark.parametrize("task", ["spoken", "printed"])
def test_subtitles_hold_the_sentences_at_their_times(tmp_path: Path, task: str) -> None:
    film = film_of(task)
    sound.write_transcript(film, tmp_path / "film.mp4")
    lines, _ = read_file(tmp_path / "film.srt")
    assert len(lines) == 4
    for (start, end, text), one in zip(lines, film.shown, strict=True):
        assert text == one.card.text and (start, end) == pytest.approx((one.start, one.end))
    sound.write_transcript(film_of("motion"), tmp_path / "other.mp4")
    assert not (tmp_path / "other.srt").exists()


def test_the_control_of_a_film_with_words_is_a_file_too() -> None:
    film = replace(film_of("printed"), file="VNBench/printed-1.mp4")
    alone = make.needles_alone(film)
    assert alone.file == "VNBench/printed-1-needles.mp4"
    assert make.needles_alone(replace(film, file="")).file == ""
    assert make.needles_alone(replace(film_of("motion"), file="VNBench/motion-1.mp4")).file == ""


def grid(*overrides: str) -> make.Grid:
    return command._grid(compose("needle", ["preset=smoke", *overrides]))


def test_without_a_voice_spoken_needles_are_left_out(monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "can_speak", lambda: False)
    assert grid("tasks=[spoken,printed]", "files=true").tasks == ("printed",)
    err = capsys.readouterr().err
    assert err == ("reelbank: task spoken is left out, because espeak-ng is not installed.\n")
    with pytest.raises(UserError, match="install espeak-ng"):
        grid("tasks=[spoken]", "files=true")


def test_spoken_needles_need_files() -> None:
    with pytest.raises(UserError, match="files=true"):
        grid("tasks=[spoken]")
