"""Titles are words of the film."""

from encoders.text.lines import TextLine
from pipeline.summary import key_phrases
from pipeline.summary.sentences import Sentence, sentences
from tests.support.quoted_films import films


def chapter(*texts: str) -> list[Sentence]:
    return [
        Sentence(text, (TextLine("v", 3.0 * at, 3.0 * at + 2, "subtitle", text, 0.0),))
        for at, text in enumerate(texts)
    ]


def slide_of(rows: list[tuple[str, float, float]]) -> list[Sentence]:
    """rows: text, top and bottom."""
    return [
        Sentence(text, (TextLine("v", 1.0, 9.0, "ocr", text, 0.0, 1.0, (0.1, top, 0.6, low)),))
        for text, top, low in rows
    ]


def test_a_title_names_what_comes_here_and_not_elsewhere() -> None:
    here = chapter(*["The friends."] * 3, *["The bees."] * 2, "The honey.")
    others = [chapter("The friends sail."), chapter("The friends sing."), chapter("My friends.")]
    assert key_phrases.title(here, others) == "bees, friends"
    assert key_phrases.title(here, []) == "friends, bees"  # what comes most often


def test_every_phrase_stands_in_one_sentence_as_it_is() -> None:
    talks = [sentences(film.text_lines(film.name)) for film in films("calibration")]
    for number, talk in enumerate(talks):
        others = talks[:number] + talks[number + 1 :]
        phrases = key_phrases.key_phrases(talk, others, most=5)
        assert len(phrases) == 5
        for phrase in phrases:
            assert any(phrase in sentence.text for sentence in talk), phrase


def test_a_large_row_above_others_is_the_title() -> None:
    rows = [("Warning signs", 0.1, 0.18), ("More gas", 0.3, 0.35), ("Small quakes", 0.4, 0.45)]
    assert key_phrases.title([*slide_of(rows), *chapter("Bees like gas.")], []) == "Warning signs"
    # rows of one height have no heading
    even = slide_of([(text, top, top + 0.05) for text, top, _ in rows])
    assert key_phrases.title(even, []) != "Warning signs"


def test_a_chapter_of_plain_words_is_named_by_its_beginning() -> None:
    assert key_phrases.title(chapter("So, what did you do with it then, and why?"), []) == (
        "So, what did you do with"
    )
    assert key_phrases.title([], []) == ""
