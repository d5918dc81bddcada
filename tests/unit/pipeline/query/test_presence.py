"""Questions about a thing in the pictures: which ones, and whose names fit."""

import pytest

from pipeline.query.plan import plan
from pipeline.query.presence import asked_thing, is_named


@pytest.mark.parametrize(
    ("question", "thing"),
    [
        ("Is there a dog?", "dog"),
        ("when is a dog in the picture", "dog"),
        ("When is the dog visible?", "dog"),
        ("Are there any dogs in this video?", "dogs"),
        ("Can you see a cell phone?", "cell phone"),
        ("When does a dog appear?", "dog"),
        ("Does the film show a car?", "car"),
        ("Where can a dog be seen?", "dog"),
        ("is there anybody?", "person"),
        ("What does the dog do?", ""),
        ("Is there a brown dog on the stairs?", ""),
        ("Is there a talk about granite?", ""),
        ("How many dogs are there?", ""),
        ("Is the dog tired?", ""),
        ("", ""),
    ],
)
def test_the_thing_of_a_question(question: str, thing: str) -> None:
    assert asked_thing(question) == thing


@pytest.mark.parametrize(
    ("thing", "names", "fits"),
    [
        ("dogs", "dog", True),
        ("dog", "hot dog", False),
        ("hot dog", "hot dog", True),
        ("table", "dining table", True),
        ("dining", "dining table", False),
        ("phone", "telephone, phone", True),
        ("bear", "teddy bear", False),
        ("brown dog", "dog", False),
        ("?", "dog", False),
    ],
)
def test_names_and_kinds(thing: str, names: str, fits: bool) -> None:
    assert is_named(thing, names) is fits


def test_only_the_thing_is_searched() -> None:
    assert plan("When is a dog in the picture?").query.terms == (("dog",),)
    assert plan("Where was the pier built?").query.terms == (("pier",), ("built",))
