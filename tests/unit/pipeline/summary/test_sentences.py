"""Lines become sentences, word for word."""

import pytest

from encoders.text.lines import TextLine
from pipeline.summary.sentences import Sentence, sentences


def said(*texts: str, kind: str = "subtitle", pause: float = 0.1) -> list[TextLine]:
    return [
        TextLine("v", at * (2 + pause), at * (2 + pause) + 2, kind, text, 0.0)
        for at, text in enumerate(texts)
    ]


def is_verbatim(sentence: Sentence) -> bool:
    return sentence.text in " ".join(line.text for line in sentence.lines)


def test_a_sentence_goes_on_over_lines_and_ends_within_one() -> None:
    found = sentences(said("The harbour was", "rebuilt. It took", "nine years."))
    assert [each.text for each in found] == ["The harbour was rebuilt.", "It took nine years."]
    assert [(each.start, each.end) for each in found] == [(0, 4.1), (2.1, 6.2)]
    assert all(map(is_verbatim, found))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Vos came. He left.", 2),
        ("He paid 3.5 million. Then he left.", 2),
        ("At e.g. Rossmoor they dug.", 1),
        ('"Stop!" he said. Nobody did.', 2),
        ("\u4f60\u597d\u3002\u518d\u89c1\u3002", 2),
        ("It cost U.S. Dollars. Many.", 2),
    ],
)
def test_a_full_stop_ends_a_sentence_and_that_of_a_short_form_does_not(text, count) -> None:
    found = sentences(said(text))
    assert len(found) == count and all(map(is_verbatim, found))


def test_a_pause_ends_a_sentence() -> None:
    found = sentences(said("the harbour", "was rebuilt.", pause=2.0))
    assert [each.text for each in found] == ["the harbour", "was rebuilt."]


def test_lines_without_any_full_stop_are_joined_by_three() -> None:
    found = sentences(said(*(f"words number {n}" for n in range(7))))
    assert [len(each.lines) for each in found] == [3, 3, 1]


def test_a_sentence_without_end_is_cut_between_lines() -> None:
    found = sentences(said("It ends.", "Yes.", "And so", *(f"and then {n}" for n in range(12))))
    assert [len(each.lines) for each in found] == [1, 1, 6, 6, 1]
    assert all(map(is_verbatim, found))


def test_noise_is_left_out_and_rolled_up_lines_count_once() -> None:
    noise = ("[music]", "\u266a la la \u266a", "...")
    found = sentences(said(*noise, "We sail.", "We sail.", "Home."))
    assert [each.text for each in found] == ["We sail.", "Home."]


def test_what_is_said_comes_from_one_channel_and_print_counts_once() -> None:
    lines = said("We sail.") + said("we sale", kind="speech")
    lines += [TextLine("v", at, at + 2, "ocr", "Ferry times", 0.0) for at in (1.0, 9.0)]
    found = sentences(lines)
    assert [(each.kind, each.text) for each in found] == [
        ("subtitle", "We sail."),
        ("ocr", "Ferry times"),
    ]


def test_no_lines_are_no_sentences() -> None:
    assert sentences([]) == []
