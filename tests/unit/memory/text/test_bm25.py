"""Words and ranks: what finds what, in every script, and how channels are fused. Mostly without a
bank.
"""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.bank import MemoryBank
from memory.retrieval.fusion import Moment, fuse, widen
from memory.retrieval.uniform import UniformRetriever
from memory.text import bm25
from memory.text.bm25 import K1, MEAN_WORDS, B, LineFilter
from memory.text.tokenizer import query, words
from pipeline.query.plan import plan
from tests.support.records import info


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=1
    ) as opened:
        yield opened


def fill(bank: MemoryBank, texts: list[str], gap: float = 100.0, video_id: str = "v") -> None:
    lines = tuple(
        TextLine(video_id, gap * i, gap * i + 2, "subtitle", text, gap * i + 2)
        for i, text in enumerate(texts)
    )
    bank.record_video(info(video_id), 1.0, finished=False)
    bank.text.write(
        TextBlock(video_id, "subtitles", "made so", 0, TextSpan(0, gap * len(texts), lines, True))
    )


def best(bank: MemoryBank, text: str, **wanted) -> str | None:
    found = bank.text.search(query(text), LineFilter(**wanted))
    return found[0].line.text if found else None


SCRIPTS = [
    ("The bridges were flooding", "bridge flooded"),
    ("Wasser kocht über die Straße", "STRASSE uber"),
    ("Ça coûte où à Noël", "coute noel"),
    ("火山在去年爆发了", "去年"),
    ("火山在去年爆发了", "火山爆发"),
    ("東京タワーは高いです", "東京タワー"),
    ("한국어를 배웁니다", "한국"),
    ("สวัสดีชาวโลก", "ชาวโลก"),
    ("مَرْحَباً بالعالم", "مرحبا"),
    ("שלום עולם", "עולם"),
    ("Привет, мир", "мир"),
    ("नमस्ते दुनिया", "दुनिया"),
    ("room 4821-B, 3.14", "4821"),
    ("ＦＵＬＬ width", "full"),
]


@pytest.mark.parametrize(("text", "asked"), SCRIPTS)
def test_every_script_is_found_by_a_part_of_it(bank: MemoryBank, text: str, asked: str) -> None:
    fill(bank, [text for text, _ in SCRIPTS])
    assert best(bank, asked) == text


def test_scores_are_bm25(bank: MemoryBank) -> None:
    """Against the formula, written out; lines so far apart that none is another's neighbour."""
    rng = random.Random(3)
    vocabulary = [f"w{i}x" for i in range(12)]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 12))) for _ in range(60)]
    fill(bank, texts)
    asked = ["w1x", "w5x", "w7x"]
    counts = {word: sum(word in text.split() for text in texts) for word in asked}
    expected = {}
    for text in texts:
        told = text.split()
        score = 0.0
        for word in asked:
            n = told.count(word)
            idf = math.log(1 + (len(texts) - counts[word] + 0.5) / (counts[word] + 0.5))
            score += idf * n * (K1 + 1) / (n + K1 * (1 - B + B * len(told) / MEAN_WORDS))
        if score:
            expected[text] = score
    found = {
        one.line.text: one.score
        for one in bank.text.search(query(" ".join(asked)), LineFilter(), 100)
    }
    assert found == pytest.approx(expected) and len(found) > 20


def test_common_words_are_cut_to_candidates_without_losing_the_line_that_has_all(
    bank, monkeypatch
) -> None:
    monkeypatch.setattr(bm25, "COMMON_LINES", 10)
    monkeypatch.setattr(bm25, "MAX_CANDIDATES", 5)
    rng = random.Random(4)
    texts = [" ".join(rng.sample(["red", "green", "blue", "grey"], 2)) for _ in range(80)]
    texts[70] = "red green blue"
    fill(bank, texts)
    assert best(bank, "blue green red") == "red green blue"
    assert best(bank, "grey blue red green") is not None  # no line has all four


def test_a_sentence_over_two_cues_is_found_as_one(bank: MemoryBank) -> None:
    fill(
        bank,
        ["granite is a stone", "the harbour was rebuilt", "with granite blocks", "bread"],
        gap=2.5,
    )
    found = bank.text.search(query("harbour rebuilt granite"), LineFilter())
    assert found[0].line.text == "the harbour was rebuilt" and found[0].coverage == pytest.approx(
        1.0
    )
    assert found[0].start <= 2.5 and found[0].end >= 7.0


def test_quoted_words_have_to_be_there_in_that_order(bank: MemoryBank) -> None:
    fill(bank, ["granite harbour", "harbour of granite", "the granite harbour lights"])
    found = {one.line.text for one in bank.text.search(query('"granite harbour"'), LineFilter())}
    assert found == {"granite harbour", "the granite harbour lights"}
    assert best(bank, "“granite harbour” lights") == "the granite harbour lights"
    assert best(bank, '"harbour lights" 火') == "the granite harbour lights"


@pytest.mark.parametrize(
    "text", ["", "?!", '""', "AND OR NOT (", 'a"b*', "* ^ : -", "NEAR(a b)", "the of", "x" * 5000]
)
def test_any_text_can_be_asked(bank: MemoryBank, text: str) -> None:
    fill(bank, ["and the harbour", "near"])
    for one in bank.text.search(query(text), LineFilter()):
        assert one.score >= 0


def test_words_that_say_nothing_do_not_count_unless_there_are_no_others() -> None:
    assert query("What did they say about the harbour?").terms == (("harbour",),)
    assert query("to be or not to be").terms == (("not",),) and query("who was it").terms
    assert words("It's 5:30, isn't it?") == ["it", "s", "5", "30", "isn", "t", "it"]


# ---- fusion


def moment(start: float, score: float = 1.0, video_id: str = "v", share: float = 1.0) -> Moment:
    return Moment(video_id, start, start + 2, score, (), at=start, share=share)


def test_what_two_channels_find_comes_before_what_one_finds() -> None:
    found = fuse({"a": [moment(10), moment(50), moment(90)], "b": [moment(200), moment(51)]}, {})
    assert found[0].start == 50 and found[0].channels == ("a", "b")
    assert {m.start for m in found} == {10, 50, 90, 200}


def test_a_moment_of_two_channels_reaches_over_both_unless_one_is_long() -> None:
    (near,) = fuse({"a": [moment(10)], "b": [moment(15)]}, {"a": 2.0})
    assert (near.start, near.end, near.at) == (10, 17, 10)
    slide = Moment("v", 0, 600, 1.0, ())
    (short,) = fuse({"a": [moment(10)], "b": [slide]}, {"a": 2.0})
    assert (short.start, short.end) == (10, 12)


def test_neighbours_of_a_better_moment_are_dropped_within_a_channel() -> None:
    found = fuse(
        {"a": [moment(10), moment(13), moment(11), moment(30), moment(10, video_id="w")]}, {}
    )
    assert [(m.video_id, m.start) for m in found] == [("v", 10), ("v", 30), ("w", 10)]


def test_weights_and_shares_decide_between_channels() -> None:
    rankings = {"a": [moment(10)], "b": [moment(50, share=0.4)]}
    assert fuse(rankings, {})[0].start == 10 and fuse(rankings, {"b": 3.0})[0].start == 50
    assert [m.start for m in fuse(rankings, {"a": 0.0})] == [50]


def test_scores_of_a_channel_count_by_rank_alone() -> None:
    """A channel whose scores are huge says no more than one whose scores are small."""
    rankings = {
        "a": [moment(10, 0.03), moment(20, 0.02), moment(30, 0.01)],
        "b": [moment(90, 1e6), moment(20, 1.0)],
    }
    assert fuse(rankings, {})[0].start == 20
    small = {"a": rankings["a"], "b": [replace(m, score=m.score / 1e9) for m in rankings["b"]]}
    assert fuse(small, {}) == fuse(rankings, {})
    assert widen(moment(1), 5.0, 6.0) == moment(1).__class__("v", 0.0, 6.0, 1.0, (), at=1)


# ---- the planner


@pytest.mark.parametrize(
    ("question", "span"),
    [
        ("what is said of bread in the first half?", (0, 500)),
        ("bread in the last third", (2000 / 3, 1000)),
        ("bread after 12:30", (750, math.inf)),
        ("bread before 1:00:00", (0, 3600)),
        ("between 1:00 and 2:30 what about bread", (60, 150)),
        ("from minute 5 to minute 6, bread", (300, 360)),
        ("in the first ten minutes, who baked bread?", (0, 600)),
        ("bread in the last 90 seconds", (910, 1000)),
        ("what happens with bread at the beginning", (0, 150)),
        ("bread near the end", (850, 1000)),
        ("bread around 2:00", (90, 150)),
        ("bread in the middle", (1000 / 3, 2000 / 3)),
        ("the first half of the bread", (0, math.inf)),  # no time
        ("who ate the last bread", (0, math.inf)),
        ("room 12:30", (0, math.inf)),
    ],
)
def test_times_of_a_question(question: str, span: tuple[float, float]) -> None:
    made = plan(question)
    assert made.time.span(1000.0) == pytest.approx(span)
    assert "bread" in made.text or "room" in made.text
    if span != (0, math.inf):
        assert all(term[0] in ("bread", "bake", "happen") for term in made.query.terms), made.query


def test_cue_words_weigh_channels_and_are_not_searched() -> None:
    said, written, shown = (
        plan("Who says bread?"),
        plan("What is written on the sign about bread?"),
        plan("What color is bread?"),
    )
    assert (
        said.weights["subtitle"] > said.weights["ocr"]
        and written.weights["ocr"] > written.weights["subtitle"]
    )
    assert shown.weights["picture"] > shown.weights["ocr"]
    seen = plan("Where can bread be seen?")
    assert seen.weights["object"] > seen.weights["ocr"] and seen.query.terms == (("bread",),)
    assert said.query.terms == written.query.terms == (("bread",),)
    quoted = plan('the "opening sign" of it')
    assert quoted.query.phrases and quoted.weights["ocr"] > quoted.weights["picture"]
