"""How much each frame embedder counts for a question."""

import pytest

from pipeline.needle_world.questions import may_name_cards
from pipeline.query.picture_weights import picture_weights

BOTH = ("embedded", "conse")


@pytest.mark.parametrize(
    ("question", "embedded", "conse"),
    [
        ("What is the code on the card?", 1, 0),
        ("In what order did the star, the circle and the heart appear?", 1, 0),
        ("What color is the star?", 1, 0),
        ("a red star", 1, 1),
        ("key", 1, 1),  # on a card, or in the film
        ("4821", 1, 1),
        ("a dog on the stairs", 0, 1),
        ("a red dress", 0, 1),
        ("When was the first pier built?", 0, 1),
        ("Where does Alice meet the queen?", 0, 1),
    ],
)
def test_questions_about_cards_are_for_the_embedded_one(question, embedded, conse):
    assert picture_weights(question, BOTH) == {"embedded": embedded, "conse": conse}


def test_one_embedder_alone_always_counts():
    assert picture_weights("a dog", ("embedded",)) == {"embedded": 1.0}
    assert picture_weights("What is the code?", ("conse",)) == {"conse": 1.0}
    assert picture_weights("What is the code?", ("b32", "conse")) == {"b32": 1.0, "conse": 1.0}
    assert picture_weights("a dog", ()) == {}


def test_words_of_the_world_are_not_of_cards():
    assert not may_name_cards("the code word") and not may_name_cards("")
    assert may_name_cards("Alice")
