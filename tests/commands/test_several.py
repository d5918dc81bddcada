"""`reelbank ask` and the Python package about several films, with the embedded model."""

import json
from pathlib import Path

import pytest

import reelbank
from pipeline.answer.requests import request
from pipeline.needle_world.video import insert, parse
from tests.support.videos import write_video

CARDS = {
    "a.mp4": ("code:4821@5", "icon:sun@8"),
    "b.mp4": ("shape:red star@3.5", "icon:key@7"),
    "c.mp4": ("name:Alice@4",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films of ten seconds with a card each, in one bank."""
    folder = tmp_path_factory.mktemp("several")
    with reelbank.open(folder / "bank") as bank:
        for name, cards in CARDS.items():
            write_video(folder / "raw.mp4", 10, 5)
            places = tuple(parse(card, number) for number, card in enumerate(cards))
            insert(folder / "raw.mp4", folder / name, places)
            bank.add(folder / name)
    return folder


def test_the_right_film_answers_and_is_named(folder: Path, run, monkeypatch) -> None:
    ask = ("ask", f"bank={folder / 'bank'}", "video=*")
    code, out, _ = run(*ask, "question=What color is the star?")
    assert code == 0 and out.startswith("red\nseen in b.mp4 at 00:0")
    code, out, _ = run(*ask, "question=What is the code on the card?", "format=json")
    answer = json.loads(out)
    assert code == 0 and answer["text"] == "4821"
    named = {Path(each["path"]).name: each for each in answer["videos"]}
    assert set(named) == set(CARDS) and named["a.mp4"]["spans"] == answer["spans"]
    assert named["a.mp4"]["video_id"] == answer["video_id"] == answer["cited"][0]["video_id"]
    assert not named["b.mp4"]["spans"] and named["b.mp4"]["recalled"]
    code, out, _ = run(*ask, "question=What is the code on the card?", "asked_at=3")
    assert code == 0 and out.startswith("not in the video")
    # of more films than lie side by side, the best are read
    monkeypatch.setattr(request, "MOST_READ", 1)
    code, out, _ = run(*ask, "question=What is the secret word?")
    assert code == 0 and out.startswith("Alice\nseen at 00:0")
    assert "3 videos were searched and the best 1 read." in out


@pytest.mark.slow
def test_every_segment_of_every_film_is_counted(folder: Path, run) -> None:
    ask = ("ask", "--all", "--bank", str(folder / "bank"), "--answer", "map_reduce")
    code, out, _ = run(*ask, "In what order did the icons appear?", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["text"] == "sun, key"  # film by film
    spans = {Path(each["path"]).name: each["spans"] for each in answer["videos"]}
    assert set(spans) == {"a.mp4", "b.mp4"} and spans["a.mp4"][0][0] >= 7.5
    sun, key = answer["trace"]["basis"]
    assert (sun["text"], key["text"]) == ("sun", "key")
    assert sun["videos"][0][0] != key["videos"][0][0]
    assert {line["video_id"] for line in answer["lines"]} == {
        one["video_id"] for one in answer["videos"]
    }
    code, out, _ = run(*ask, "How many icons were shown?")  # from the findings of each film
    assert code == 0 and out.startswith("2\nseen in a.mp4 at 00:08")
    assert "in b.mp4 at 00:0" in out
    code, out, _ = run(*ask, "How many icons were shown?", "--at", "7.5")
    assert code == 0 and out.startswith("1\n") and "in a.mp4" not in out
    code, out, _ = run(*ask[:-1], "route", "How many icons were shown?", "--json")
    answer = json.loads(out)
    assert answer["text"] == "2" and answer["trace"]["strategy"] == "map_reduce"
    assert answer["trace"]["reused"] == 6 and not answer["trace"]["calls"]


def test_several_films_by_path_and_from_python(folder: Path, run) -> None:
    ask = ("ask", f"bank={folder / 'bank'}", f"video={folder / 'b.mp4'}")
    code, out, _ = run(*ask, f"also=[{folder / 'c.mp4'}]", "question=What is the secret word?")
    assert code == 0 and out.startswith("Alice\nseen in c.mp4 at ")
    with reelbank.open(folder / "bank") as bank:
        whole = bank.ask("What is the secret word?")
        some = bank.ask("What is the secret word?", video=[folder / "c.mp4", folder / "b.mp4"])
        assert whole.text == some.text == "Alice"
        assert {Path(span.video.path).name for span in whole.spans} == {"c.mp4"}
        assert Path(whole.video.path).name == "c.mp4"
        missing = bank.ask("What is the secret word?", video=[folder / "a.mp4", folder / "b.mp4"])
        assert missing.text == "not in the video" and missing.spans == ()


def test_mistakes_are_one_sentence(folder: Path, tmp_path: Path, run, monkeypatch) -> None:
    code, _, error = run("ask", f"bank={tmp_path / 'none'}", "video=*", "question=What?")
    assert code == 2 and "holds no video" in error
    monkeypatch.setattr(request, "MOST_SEARCHED", 2)
    code, _, error = run("ask", f"bank={folder / 'bank'}", "video=*", "question=What?")
    assert code == 2 and "A question about 3 videos is too much" in error
