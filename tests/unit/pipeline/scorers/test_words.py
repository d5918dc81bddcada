"""Scores of open answers, against what independent implementations gave for the same texts."""

import pytest

from encoders.errors import UserError
from pipeline.scorers.exact import Exact
from pipeline.scorers.number import RelativeAccuracy, relative_accuracy
from pipeline.scorers.rouge_l import rouge_l
from pipeline.scorers.schema import AnsweredQuestion, Scorer
from pipeline.scorers.token_f1 import TokenF1

# answer, references, exact match, F1: of torchmetrics.functional.text.squad, version 1.9.0
SQUAD = [
    ("1976", ["1976"], 1.0, 1.0),
    ("the year of 1976", ["1976"], 0.0, 0.5),
    ("A red ball!", ["red ball"], 1.0, 1.0),
    ("a red, red ball", ["the red ball"], 0.0, 0.8),
    ("Denver Broncos", ["Carolina Panthers"], 0.0, 0.0),
    ("gold", ["gold", "golden", "a gold theme"], 1.0, 1.0),
    ("the golden anniversary", ['"golden anniversary"', "gold-themed", "gold"], 1.0, 1.0),
    ("", ["red"], 0.0, 0.0),
    ("the", ["red"], 0.0, 0.0),
    ("the", ["a"], 1.0, 1.0),
    ("Santa Clara, California", ["Santa Clara, California", "Levi's Stadium"], 1.0, 1.0),
    (
        "It is in Levis Stadium at Santa Clara",
        ["Levi's Stadium in the San Francisco Bay Area at Santa Clara, California."],
        0.0,
        0.631579,
    ),
]
# answer, reference, F of rougeL: of rouge-score 0.1.2 without a stemmer
ROUGE = [
    ("The quick brown fox jumps over the lazy dog.", "A quick brown dog jumps over the lazy fox.",
     0.666666667),
    ("police killed the gunman", "police kill the gunman", 0.75),  # Lin's own example
    ("police killed the gunman", "the gunman kill police", 0.5),
    ("He opens the door, then he leaves.", "he leaves", 0.444444444),
    ("he leaves", "He opens the door, then he leaves.", 0.444444444),
    ("red", "red", 1.0),
    ("red ball", "blue", 0.0),
    ("", "red", 0.0),
    ("Room 12-B, at 3:45 p.m.", "room 12 b at 3 45 pm", 0.8),
    ("a b c d e f g", "g f e d c b a", 0.142857143),
    ("The man in the green shirt washes the car and the dog watches him",
     "A man washes his car while a dog watches", 0.434782609),
    ("one two three one two three", "one two three", 0.666666667),
    ("can't won't", "cant wont", 0.0),
    ("snake_case words", "snake case words", 1.0),
]  # fmt: skip


def value(scorer: Scorer, answer: str, *references: str, rule: str = "") -> float:
    question = AnsweredQuestion("1", "v", "q", answer, references=references, rule=rule)
    return next(iter(scorer([question])[0].numbers.values()))


@pytest.mark.parametrize(("answer", "references", "exact", "f1"), SQUAD)
def test_as_squad_counts(answer, references, exact, f1):
    assert value(Exact(normalization="squad"), answer, *references) == exact
    assert value(TokenF1(), answer, *references) == pytest.approx(f1, abs=1e-6)


@pytest.mark.parametrize(("answer", "reference", "f"), ROUGE)
def test_as_rouge_score_counts(answer, reference, f):
    assert rouge_l(answer, reference) == pytest.approx(f, abs=1e-8)


def test_letters_of_other_scripts_are_words():
    assert rouge_l("Ein Bär schläft", "ein Bär") == pytest.approx(0.8)
    assert rouge_l("красный шар", "красный куб") == 0.5


def test_an_exact_answer_is_equal_up_to_case_and_a_full_stop():
    plain = Exact(normalization="plain")
    assert value(plain, " Red. ", "red") == 1 and value(plain, "a red", "red") == 0
    assert value(plain, "crimson", "red", "Crimson") == 1
    assert value(plain, "3 of them", "3", rule="number") == 1
    with pytest.raises(UserError, match="normalization=nix is not known"):
        Exact(normalization="nix")


@pytest.mark.parametrize(
    ("number", "reference", "expected"),
    [  # the share of 0.50, 0.45 ... 0.05 that the relative error does not exceed
        (10, 10, 1.0), (10.5, 10, 1.0), (9.5, 10, 1.0), (9, 10, 0.9), (12, 10, 0.7), (15, 10, 0.1),
        (5, 10, 0.1), (15.1, 10, 0.0), (0, 10, 0.0), (-10, 10, 0.0), (0, 0, 1.0), (1, 0, 0.0),
    ],
)  # fmt: skip
def test_mean_relative_accuracy(number, reference, expected):
    assert relative_accuracy(number, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("4 metres", 1.0), ("about 4.0", 1.0), ("four", 0.0), ("", 0.0), ("1,004", 0.0)],
)
def test_the_first_number_of_an_answer_counts(answer, expected):
    assert value(RelativeAccuracy(), answer, "4", rule="number") == expected


def test_a_reference_that_is_no_number_is_told():
    question = AnsweredQuestion("7", "v", "q", "4", references=("four",), rule="number")
    assert "7: the answers ['four'] are not all numbers" in RelativeAccuracy()([question])[0].error
