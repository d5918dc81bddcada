"""Two banks together equal one bank that holds both, with the embedded model: the same ranking, the
same frames bit by bit, the same answer and citations. Banks of different models are refused.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import openai
import pytest
import torch

import reelbank
from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.schema import Question
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.needle_world.video import insert, parse
from pipeline.qa import VideoQA
from pipeline.runtime.stage_timer import StageTimer
from tests.support.painted_films import PaintedFilm, copy_film
from tests.support.records import same
from tests.support.serving import serving
from tests.support.videos import write_video

SECONDS = 8
# film -> card; the other films show none
CARDS = {
    "f03": "code:4821@5", "f07": "shape:red star@4", "f11": "name:Alice@3", "f12": "icon:sun@3",
    "f17": "icon:key@4",
}  # fmt: skip
FILMS = [f"f{number:02d}" for number in range(21)]
# neither bank holds a run of neighbors, and each has films of every kind
FIRST, SECOND = FILMS[::2], FILMS[1::2]
SAID = {"f04": "The first pier was built of oak in 1721.", "f09": "A ferry crossed until 1850."}
# clip=embedded: rows of other embedders lie beside the segments, and are not copied
OPTIONS = ("text=none", "dense=none", "clip=embedded", "prefill.dtype=float32")


def opened(root: Path, *banks: str, more: tuple[str, ...] = ()) -> VideoQA:
    folders = [str(root / each) for each in banks]
    also = [f"also_banks=[{','.join(folders[1:])}]"] if folders[1:] else []
    line = ["video=x", "question=x", f"bank={folders[0]}", *also, *OPTIONS, *more]
    config = compose("ask", line)
    return build_qa(config, build_backbone(config))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """All films in one bank, and the same films in two; the films of the first one come first."""
    root = tmp_path_factory.mktemp("banks")
    parts = {name: opened(root, name) for name in ("one", "first", "second")}
    one = parts["one"]
    for name in (*FIRST, *SECOND):
        number = FILMS.index(name)
        size = one.backbone.frame_size
        one.ingest(PaintedFilm(name, number, size, CARDS.get(name, ""), SECONDS))
        own = parts["first" if name in FIRST else "second"].bank
        copy_film(one.bank, name, own, name)
        for bank in (one.bank, own):
            text = SAID.get(name, f"Film number {number} has nothing of that.")
            lines = (TextLine(name, 4.0, 6.0, "subtitle", text, 6.0),)
            block = TextBlock(name, "subtitles", "made so", 0, TextSpan(0, SECONDS, lines, True))
            bank.text.write(block)
    for each in parts.values():
        each.bank.close()
    return root


@pytest.fixture(scope="module")
def both(root) -> Iterator[tuple[VideoQA, VideoQA]]:
    one, two = opened(root, "one"), opened(root, "first", "second")
    with one.bank, two.bank:
        yield one, two


QUESTIONS = [
    Question("What is the code on the card?", "f03"),
    Question("What color is the star?", ("f02", "f07", "f10")),
    Question("What is the secret word?", FILMS),
    Question("What is the code on the card?", FILMS),
    Question("What is the code on the card?", FILMS, 4.0),
    Question("When was the first pier built?", FILMS),
    Question("When was the first pier built?", "f04"),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: f"{one.text}-{len(one.videos)}")
def test_two_banks_equal_one_that_holds_both(both, question):
    evidence = [qa.answerer.recall(question, StageTimer(), 240) for qa in both]
    assert evidence[0].names == evidence[1].names and same(evidence[0].runs, evidence[1].runs)
    assert evidence[0].hits.names == evidence[1].hits.names
    assert torch.equal(evidence[0].hits.scores, evidence[1].hits.scores)
    answers = [asdict(qa.ask(question)) for qa in both]
    for answer in answers:
        del answer["seconds"]
        for call in answer["trace"]["calls"]:
            del call["seconds"]
    assert answers[0] == answers[1]
    ranked = [qa.bank.library.best_videos(question, (), 4) for qa in both]
    assert ranked[0] == ranked[1]


@pytest.mark.slow
def test_strategies_read_both_banks(root, both):
    """Findings are kept in the bank of their film."""
    question = Question("In what order did the icons appear?", ("f11", "f12", "f17"))
    more = ("answer=map_reduce",)
    one, two = opened(root, "one", more=more), opened(root, "first", "second", more=more)
    with one.bank, two.bank:
        answers = [qa.ask(question) for qa in (one, two)]
        assert answers[0].text == answers[1].text == "sun, key"
        assert answers[0].spans == answers[1].spans and answers[0].videos == answers[1].videos
        assert two.ask(question).trace.reused == 3
    assert {path.parents[1].name for path in (root / "second").rglob("findings/*/*/*.jsonl")} == {
        "f11",
        "f17",
    }


@pytest.mark.slow
def test_commands_take_several_banks(root, run, tmp_path):
    banks = ("--bank", str(root / "first"), "-b", str(root / "second"))
    plain = ("--bank", str(root / "one"))

    def answered(*words):
        code, out, err = run(*words, "--json", *(OPTIONS if words[0] == "ask" else ()))
        assert code == 0, err
        values = json.loads(out)
        for key in ("seconds", "trace", "bank"):
            values.pop(key, None)
        return values

    for words in (
        ("ask", "--all", "What color is the star?"),
        ("find", "the first pier", "dense=none"),
        ("find", "a red star", "channels=[picture]"),
    ):
        assert answered(*words, *banks) == answered(*words, *plain)
    code, out, _ = run("summary", "--query", "pier", *banks, "dense=none", "top=1")
    assert code == 0 and SAID["f04"] in out
    (tmp_path / "jobs.jsonl").write_text('{"video": "*", "question": "What color is the star?"}\n')
    batch = ("batch", str(tmp_path / "jobs.jsonl"), "--out", str(tmp_path / "out"), *banks)
    assert run(*batch, *OPTIONS)[0] == 0
    (row,) = map(json.loads, (tmp_path / "out" / "answers.jsonl").read_text().splitlines())
    assert row["answer"] == "red" and row["videos"][0]["video_id"] == "f07"
    with reelbank.open([root / "first", root / "second"], options=OPTIONS) as bank:
        answer = bank.ask("What color is the star?")
        assert answer.text == "red" and answer.video.bank == str(root / "second")
        assert [video.id for video in bank.videos] == FILMS
        hits = bank.find("pier", video=["f04", "f09"], channels=["subtitle"])
        assert [hit.video.id for hit in hits] == ["f04"]


@pytest.mark.slow
def test_a_server_answers_from_several_banks(root, tmp_path):
    also = f"also_banks=[{root / 'second'}]"
    with serving(tmp_path, f"bank={root / 'first'}", also, "whole_bank=true", *OPTIONS) as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)

        def ask(text):
            said: list = [{"role": "user", "content": text}]
            return client.chat.completions.create(model="reelbank-bank", messages=said)

        for question, text, film in (
            ("What color is the star?", "red", "f07"),
            ("What is the secret word?", "Alice", "f11"),
            ("What is the code on the card?", "4821", "f03"),
        ):
            assert ask(question).choices[0].message.content.startswith(f"{text}\n\nSeen in {film}")


def test_mistakes_are_one_sentence(root, run, tmp_path):
    first, second = ("--bank", str(root / "first")), ("--bank", str(root / "second"))
    question = ("--all", "What color is the star?")

    def refused(*words):
        code, out, err = run(*words)
        assert code == 2 and not out and len(err.strip().splitlines()) == 1, err
        return err

    assert "there is no bank at" in refused("ask", *question, *first, "-b", str(tmp_path / "no"))
    assert "is named twice; name each bank once" in refused("ask", *question, *first, *first)
    write_video(tmp_path / "raw.mp4", 4, 5)
    insert(tmp_path / "raw.mp4", tmp_path / "new.mp4", (parse("code:1234@1", 0),))
    film = str(tmp_path / "new.mp4")
    err = refused("ask", film, "What is the code?", *first, *second, *OPTIONS)
    assert f"{film} is in none of the banks" in err and "encodes it" in err
    assert "reelbank add works with one bank" in refused("add", film, *first, *second)
    err = refused("ingest", f"video={film}", f"bank={root / 'first'}", f"also_banks=[{root}]")
    assert "works with one bank; leave also_banks= out" in err
    assert "works with one bank" in refused("bank", "ls", *first, *second)
    assert run("add", film, "-b", str(tmp_path / "other"), "--fps", "2", *OPTIONS)[0] == 0
    for words in (("ask", *question, *OPTIONS), ("find", "x", "channels=[subtitle]")):
        err = refused(*words, *first, "-b", str(tmp_path / "other"))
        assert "cannot be read as one" in err and "fps=1.0" in err and ": 2.0)" in err
