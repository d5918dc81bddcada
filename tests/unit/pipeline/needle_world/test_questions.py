"""Which questions are about cards."""

import numpy as np
import pytest

from pipeline.needle_world.cards import COLORS, SHAPES
from pipeline.needle_world.questions import (
    CODE,
    COLOR,
    COUNT,
    FAMILIES,
    ICON,
    NAME,
    ORDER_GIVEN,
    ORDER_ICONS,
    ORDER_NAMES,
    SHAPE,
    is_about_cards,
    listed,
    plural,
)
from pipeline.needle_world.scenes import demo_scene


def test_every_question_of_the_needle_world_is_about_cards() -> None:
    questions = [*CODE, *NAME, *ICON, *ORDER_NAMES, *ORDER_ICONS]
    questions += [text.format(shape=shape) for text in COLOR for shape in SHAPES]
    questions += [text.format(color=color) for text in SHAPE for color in COLORS]
    counted = ["codes", "names", "secret words", "icons", *map(plural, SHAPES)]
    questions += [text.format(items=items) for text in COUNT for items in counted]
    questions += [text.format(items=listed(SHAPES[:3])) for text in ORDER_GIVEN]
    questions += [one.text for one in demo_scene(np.random.default_rng(3))[1]]
    assert [text for text in questions if not is_about_cards(text)] == [] and FAMILIES


@pytest.mark.parametrize(
    "text",
    ["what's the code", "Please tell me the secret word.", "WHAT COLOR IS THE STAR, PLEASE?"],
)
def test_similar_words_are_about_cards(text: str) -> None:
    assert is_about_cards(text)


@pytest.mark.parametrize(
    "text",
    [
        "What does the baby hold?",
        "What colour is the car?",
        "What is the name of the speaker?",
        "How many people are there?",
        "When was the pier built?",
        "What is shown in the video?",
        "x",
        "?",
        "",
    ],
)
def test_other_questions_are_not(text: str) -> None:
    assert not is_about_cards(text)
