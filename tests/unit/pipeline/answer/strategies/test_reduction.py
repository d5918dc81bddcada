"""Findings -> answer, by rule."""

from dataclasses import replace
from itertools import permutations

import pytest

from pipeline.answer.strategies.mapping.map_plan import map_plan
from pipeline.answer.strategies.mapping.reduction import Item, appearances, labels, reduce
from pipeline.needle_world.segment_questions import segment_questions

A, B = Item("Ivy", 2, 4), Item("Leo", 9, 11)
AGAIN, EDGE = Item("ivy.", 20, 22), Item("Ivy", 4, 5)


@pytest.mark.parametrize(
    ("aim", "items", "text"),
    [
        ("count", [A, B, AGAIN], "2"),
        ("count", [], "0"),
        ("times", [A, B, AGAIN, EDGE], "3"),
        ("order", [A, B, AGAIN], "Ivy, Leo"),
        ("most_frequent", [A, B, AGAIN], "Ivy"),
        ("most_frequent", [A, EDGE, B], "Ivy, Leo"),
        ("union", [A, B, AGAIN], "Ivy, Leo"),
        ("union", [], "not in the video"),
    ],
)
def test_rules(aim, items, text):
    for order in permutations(items):  # no result depends on the order of the parts
        assert reduce(aim, order, [""], 0.5).text == text


def test_the_items_of_the_question_come_in_their_order():
    items = [Item("red", 9, 10, "star"), Item("blue", 2, 3, "ring"), Item("red", 30, 31, "ring")]
    done = reduce("order_of", items, ["star", "ring", "heart"], 0.5)
    assert done.text == "ring, star"
    assert done.basis == (("ring", (("", 2, 3),)), ("star", (("", 9, 10),)))


def test_several_films_are_reduced_together_one_after_another():
    films = ("second", "first")  # the order of the question
    items = [
        replace(A, video_id="first"),
        replace(B, video_id="second"),
        replace(EDGE, video_id="second"),  # no appearance goes on in another film
    ]
    for order in permutations(items):
        assert reduce("times", order, [""], 0.5, films).text == "3"
        assert reduce("count", order, [""], 0.5, films).text == "2"
        assert reduce("most_frequent", order, [""], 0.5, films).text == "Ivy"
        done = reduce("order", order, [""], 0.5, films)
        assert done.text == "Ivy, Leo"
        assert done.basis[0] == ("Ivy", (("second", 4, 5), ("first", 2, 4)))
    late = [Item("red", 1, 2, "star", "first"), Item("blue", 9, 10, "ring", "second")]
    assert reduce("order_of", late, ["star", "ring"], 0.5, films).text == "ring, star"


def test_what_lies_across_the_edge_of_two_parts_appears_once():
    assert [(one.start, one.end) for one in appearances([EDGE, A], 0.5)] == [(2, 5)]
    assert len(appearances([A, Item("Ivy", 4.6, 5)], 0.5)) == 2


def test_names_are_compared_without_articles_and_marks():
    assert Item("A red car.", 0, 1).name == Item("the red car", 0, 1).name == "red car"


@pytest.mark.parametrize(
    "text", ["a cat, a dog and a bird", "- a cat\n- a dog\n- a bird.", "1. a cat; 2) a dog; a bird"]
)
def test_lists(text):
    assert labels(text) == ["a cat", "a dog", "a bird"]


def test_a_list_of_nothing():
    assert labels(" . ") == []


@pytest.mark.parametrize(
    ("question", "aim", "asked"),
    [
        ("How many secret words were shown?", "count", ["Which name appears in the video?"]),
        ("How many stars appeared in the video?", "count", ["What color is the star?"]),
        ("In what order did the icons appear?", "order", ["Which icon appears in the video?"]),
        ("In what order did the heart and the star appear?", "order_of",
         ["What color is the heart?", "What color is the star?"]),
        ("Which name appeared most often in the video?", "most_frequent",
         ["Which name appears in the video?"]),
        ("What is the code?", "union", ["What is the code?"]),
    ],
)  # fmt: skip
def test_questions_about_parts_of_a_film_of_cards(question, aim, asked):
    plan = segment_questions(question)
    assert plan.aim == aim and [one.text for one in plan.questions] == asked


def test_a_model_of_cards_is_asked_about_nothing_else():
    assert map_plan("How many dogs are there?", only_cards=True, reduce="auto") is None


@pytest.mark.parametrize(
    ("question", "aim"),
    [
        ("How many dogs are there?", "count"),
        ("How many times does the bell ring?", "times"),
        ("In which order do they enter?", "order"),
        ("Which dog barks most often?", "most_frequent"),
        ("List all tools that are used.", "union"),
        ("Why does she leave?", "model"),
    ],
)
def test_the_aim_of_any_question(question, aim):
    assert map_plan(question, only_cards=False, reduce="auto").aim == aim
    assert map_plan(question, only_cards=False, reduce="model").aim == "model"
