"""`reelbank clip`, `--clips` of find and ask, and a round trip: a clip is a film as well."""

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from encoders.sources.container import inspect
from pipeline.needle_world import video as needle_video
from pipeline.needle_world.cards import random_needle
from tests.support.console import sentence
from tests.support.talks import WORDS
from tests.support.toys import toy_parts
from tests.support.videos import write_video


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_a_stretch_is_cut_and_its_list_says_of_what(run, film) -> None:
    code, out, err = run("clip", str(film), "0:11-0:14.5", "-o", "out.mp4")
    facts = inspect(Path("out.mp4"))
    assert code == 0 and out.startswith("out.mp4: 00:10-00:14 (10.0-14.6 s)")
    assert "begins 1.0 s before the moment, at a keyframe" in err
    row = json.loads(Path("out.mp4.json").read_text())
    assert row["files"][0] | {"video_id": ""} == {
        "file": "out.mp4", "source": str(film), "video_id": "", "start": 11.0, "end": 14.5,
        "file_start": 10.0, "file_end": 14.6, "score": None, "channels": [], "words": "",
    }  # fmt: skip
    assert facts.duration == pytest.approx(4.8, abs=0.3)
    code, out, err = run("clip", str(film), "11-14.5", "-o", "out.mp4", "--exact", "-f", "--json")
    assert (code, err) == (0, "") and json.loads(out)["encoded"] == 18
    with av.open("out.mp4") as clip:
        assert clip.duration == pytest.approx(3.5e6, abs=1e4)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_pictures_that_move(run, film, suffix: str) -> None:
    assert run("clip", str(film), "2-4", "-o", f"out{suffix}", "--fps", "5")[0] == 0
    with Image.open(f"out{suffix}") as picture:
        assert getattr(picture, "n_frames", 0) == 10 and picture.size == (64, 64)


def test_a_hit_of_the_last_search_is_cut(run, bank, film) -> None:
    assert run("find", "granite", "--bank", str(bank), WORDS, "-o", "channels=[subtitle]")[0] == 0
    code, out, _ = run("clip", "@1", "--exact")
    assert code == 0 and out.startswith("a_00-04.mp4: 00:00:04-00:00:06"[:11])
    row = json.loads(Path("a_00-04.mp4.json").read_text())
    assert row["query"] == "granite" and row["bank"] == str(bank)
    assert row["files"][0]["channels"] == ["subtitle"] and "1847" in row["files"][0]["words"]
    assert row["files"][0]["file_start"] == pytest.approx(4.1, abs=0.2)
    assert run("clip", "@1", "--exact")[1].startswith("a_00-04_1.mp4")
    sentence(run("clip", "@9")[2], "@9 is no hit of the last search", "1 to 1")
    sentence(run("clip", "@0")[2], "@0 is no hit")


def test_all_hits_are_cut(run, bank, film) -> None:
    words = ["--bank", str(bank), toy_parts()[1], "--top", "3", "--clips", "hits"]
    code, _, err = run("find", "harbour granite bread", *words)
    rows = json.loads(Path("hits/clips.json").read_text())["files"]
    assert code == 0 and f"{len(rows)} clips" in err and len(rows) > 1
    assert sorted(os.listdir("hits")) == sorted([*(row["file"] for row in rows), "clips.json"])
    assert rows[0]["file"].startswith("01_a_00-")
    Path("file").write_text("")
    sentence(run("find", "granite", *words[:-1], "file")[2], "file is a file")
    sentence(run("find", "granite", *words[:-1], "no/where")[2], "folder that is not there")


def test_hits_are_exported_and_shown_on_a_sheet(run, bank, film) -> None:
    words = ["granite", "--bank", str(bank), WORDS, "-o", "channels=[subtitle]"]
    assert run("find", *words, "--export", "hits.csv")[0] == 0
    assert "granite" in Path("hits.csv").read_text()
    assert json.loads(Path("hits.csv.json").read_text())["query"] == "granite"
    code, out, _ = run("export", "-o", "hits.edl")
    assert (code, out) == (0, 'hits.edl: 1 moment of "granite"\n')
    assert run("sheet", "@", "-o", "hits.png")[1] == "hits.png: 1 picture\n"
    code, out, _ = run("sheet", str(film), "--count", "6")
    assert (code, out) == (0, "a_sheet.jpg: 6 pictures\n")
    with Image.open("a_sheet.jpg") as sheet:
        assert sheet.width == 4 * 328 + 8
    sentence(run("find", *words, "--export", "hits.doc")[2], "hits.doc is no name")
    sentence(run("export", "-o", "hits.doc")[2], "hits.doc is no name")
    sentence(run("sheet", str(film), "--count", "0")[2], "count=0 shows nothing")
    sentence(run("sheet", str(film), "--start", "99")[2], "leaves nothing of")
    sentence(run("sheet", "nothere.mp4")[2], "There is no file nothere.mp4")


def test_a_film_that_is_gone_is_named(run, tmp_path) -> None:
    film, bank = tmp_path / "b.mp4", tmp_path / "bank"
    write_video(film, 6, 5)
    film.with_suffix(".srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nA lantern.\n")
    assert run("ingest", f"video={film}", f"bank={bank}", "text=subtitles", *toy_parts())[0] == 0
    film.rename(tmp_path / "gone.mp4")
    code, out, err = run(
        "find", "lantern", "--bank", str(bank), WORDS, "channels=[subtitle]", "--clips", "hits"
    )
    assert code == 2 and "is not there" in err and "lantern" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothere.mp4", "1-2"], ["There is no file nothere.mp4"]),
        (["{film}"], ["Which moment of"]),
        (["{film}", "5-4"], ["ends before it begins"]),
        (["{film}", "soon"], ["is no stretch"]),
        (["{film}", "99-100"], ["99 s is outside of"]),
        (["{film}", "1-2", "-o", "out.txt"], ["out.txt has no suffix"]),
        (["{film}", "1-2", "-o", "there.mp4"], ["there.mp4 is there already", "--overwrite"]),
        (["{film}", "1-2", "-o", "out.gif", "--fps", "0"], ["fps=0 is no rate"]),
        (["{film}", "0-20", "-o", "out.gif", "--fps", "50"], ["1000 pictures", "600 at most"]),
        (["@1"], ["There is no hit yet"]),
        (["{film}", "1-2", "widen=-1"], ["widen=-1 is below 0"]),
    ],
)
def test_what_is_refused(run, film, words: list[str], says: list[str]) -> None:
    Path("there.mp4").write_bytes(b"mine")
    code, out, err = run("clip", *(word.replace("{film}", str(film)) for word in words))
    assert (code, out) == (2, "")
    sentence(err, *says)
    assert os.listdir() == ["there.mp4"] and Path("there.mp4").read_bytes() == b"mine"


@pytest.mark.slow
def test_a_clip_is_a_film_in_which_the_needle_is_found_earlier(run, tmp_path) -> None:
    """The embedded model; a clip that begins five seconds before the card shows it at second 5."""
    film, size = tmp_path / "cards.mp4", (480, 270)
    rng = np.random.default_rng(20_261_130)
    (card,) = needle_video.plan(rng, [random_needle(rng, "code")], 60.0)
    footage = needle_video.procedural_footage(3, size)
    needle_video.write(film, (card,), 60.0, footage, size=size)
    start = max(card.start - 5.0, 0.0)
    span = f"{start}-{card.end + 5}"
    assert run("clip", str(film), span, "--exact", "-o", "clip.mp4")[0] == 0
    question = "What is the code on the card?"
    code, out, _ = run("ask", "clip.mp4", question, "--bank", str(tmp_path / "bank"), "--json")
    answer = json.loads(out)
    assert code == 0 and answer["text"] == card.needle.text
    shown = (card.start - start, card.end - start)
    assert any(begin < shown[1] and end > shown[0] for begin, end in answer["spans"])
