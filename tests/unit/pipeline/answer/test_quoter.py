"""Quotes: which lines, joined how far, and how sure."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from pipeline.answer.quotes import answer_type
from pipeline.answer.quotes.quotation import Quotation
from pipeline.answer.quotes.quoter import Quoter
from pipeline.schema import NOT_SAID
from tests.support.quoted_films import films, shared
from tests.support.records import info

SECONDS = 60.0
Box = tuple[float, float, float, float]
Quote = Callable[..., Quotation | None]


@pytest.fixture
def quote(tmp_path: Path) -> Iterator[Quote]:
    """Quotes from lines of (start, end, text) and perhaps a box, by words alone."""
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
    ) as bank:
        bank.record_video(info("v"), 1.0, finished=True)

        def run(
            question: str,
            *lines: tuple[float, float, str] | tuple[float, float, str, Box],
            kind: str = "subtitle",
            asked_at: float = math.inf,
        ) -> Quotation | None:
            bank.text.drop("v", "subtitles")
            rows = tuple(
                TextLine("v", a, b, kind, text, a, box=box[0] if box else None)
                for a, b, text, *box in lines
            )
            bank.text.write(
                TextBlock("v", "subtitles", "made up", 0, TextSpan(0, SECONDS, rows, True))
            )
            return Quoter(bank).quote(Question(question, "v", asked_at), {"v": SECONDS})

        yield run


PIER = (
    (1.0, 3.0, "Good evening to everybody."),
    (4.0, 6.0, "The pier was built of oak"),
    (6.1, 8.0, "and tar by six carpenters."),
    (9.0, 11.0, "Later a storm broke it."),
    (20.0, 22.0, "The mayor was not amused."),
)


def test_a_broken_sentence_is_quoted_whole(quote: Quote) -> None:
    found = quote("Who built the pier of oak?", *PIER)
    assert found is not None and found.is_said and found.channel == "subtitle"
    assert found.text == '00:04 "The pier was built of oak and tar by six carpenters."'
    assert found.spans == ((4.0, 8.0),)
    again = quote("What did the carpenters have besides tar?", *PIER)
    assert again is not None and again.lines == found.lines


TWO_ROWS = (
    (4.0, 9.0, "built of stone.", (0.2, 0.52, 0.7, 0.6)),  # the lower row comes first
    (4.0, 9.0, "The old bridge was", (0.2, 0.4, 0.75, 0.49)),
    (4.0, 9.0, "Channel 5", (0.8, 0.02, 0.98, 0.06)),
    (9.0, 14.0, "The new one is of steel.", (0.2, 0.4, 0.75, 0.49)),
)


def test_a_sentence_on_two_rows_of_print_is_quoted_whole(quote: Quote) -> None:
    whole = '00:04 "The old bridge was built of stone."'
    for question in ("What was the old bridge?", "What is built of stone?"):
        found = quote(question, *TWO_ROWS, kind="ocr")
        assert found is not None and found.text == whole and found.spans == ((4.0, 9.0),)
    apart = [(start, end, text) for start, end, text, _ in TWO_ROWS]
    alone = quote("What was the old bridge?", *apart, kind="ocr")  # nobody knows where it stands
    assert alone is not None and alone.text == '00:04 "The old bridge was"'


@pytest.mark.parametrize(
    ("box", "start"),
    [
        ((0.2, 0.7, 0.7, 0.79), 4.0),  # far below
        ((0.76, 0.52, 0.98, 0.6), 4.0),  # beside
        ((0.2, 0.52, 0.7, 0.9), 4.0),  # of much larger letters
        ((0.2, 0.52, 0.7, 0.6), 8.5),  # on the screen later
    ],
)
def test_a_row_of_another_block_is_no_part_of_the_sentence(
    quote: Quote, box: Box, start: float
) -> None:
    row = (start, start + 5.0, "built of stone.", box)
    found = quote("What was the old bridge?", TWO_ROWS[1], row, kind="ocr")
    assert found is not None and found.text == '00:04 "The old bridge was"'


def test_the_name_of_a_thing_is_no_quote(quote: Quote) -> None:
    assert quote("What does the dog do?", (1.0, 9.0, "dog"), kind="object") is None
    assert quote("What does the dog do?", (1.0, 9.0, "dog"), kind="ocr") is not None


def test_when_a_thing_is_there_is_answered_with_all_its_times(quote: Quote) -> None:
    things = ((1.0, 9.0, "dog"), (5.0, 12.0, "dog"), (2.0, 50.0, "hot dog"), (30.0, 40.0, "dog"))
    for question in ("When is a dog in the picture?", "Are there any dogs?"):
        found = quote(question, *things, kind="object")
        assert found is not None and found.is_said and found.channel == "object"
        assert found.spans == ((1.0, 12.0), (30.0, 40.0)) and found.confidence == 1.0
        assert found.text == "dog: 00:01-00:12, 00:30-00:40"
    early = quote("Is there a dog?", *things, kind="object", asked_at=8.0)
    assert early is not None and early.spans == ((1.0, 8.0),)  # no look-ahead
    half = quote("Is there a dog in the second half?", *things, kind="object")
    assert half is not None and half.spans == ((30.0, 40.0),)
    assert quote("Is there a cat?", *things, kind="object") is None
    assert quote("Is there a dog?", *PIER) is None  # nobody says so


def test_many_times_are_counted_and_labels_stand_in_for_objects(quote: Quote) -> None:
    labels = [(2.0 * n, 2.0 * n + 1.0, "Border collie, dog") for n in range(12)]
    found = quote("When can one see a dog?", *labels, kind="label")
    assert found is not None and found.channel == "label" and len(found.spans) == 12
    assert found.text.startswith("Border collie: 00:00-00:01, ")
    assert found.text.endswith(", and 4 times more")


def test_rows_of_a_slide_stand_alone(quote: Quote) -> None:
    rows = [(1.0, 9.0, "Pier of oak"), (1.0, 9.0, "storm and rain"), (1.0, 9.0, "the mayor")]
    found = quote("What about the oak pier?", *rows, kind="ocr")
    assert found is not None and [line.text for line in found.lines] == ["Pier of oak"]


def test_a_neighbor_gives_the_number_that_is_asked_for(quote: Quote) -> None:
    lines = (
        (1.0, 3.0, "The crane is the pride of the harbor."),
        (3.5, 5.0, "It has 42 wheels."),
        (30.0, 32.0, "Thank you."),
    )
    found = quote("How many wheels has the pride crane of the harbor?", *lines)
    assert found is not None and "42" in found.text


def test_nothing_after_the_moment_of_the_question(quote: Quote) -> None:
    assert quote("Who built the pier of oak?", *PIER, asked_at=3.5) is None
    found = quote("Who built the pier of oak?", *PIER, asked_at=5.0)
    assert found is not None and "carpenters" not in found.text
    assert all(line.end <= 5.0 for line in found.lines)


def test_what_no_line_says_is_refused(quote: Quote) -> None:
    assert quote("Which helmet is best for cyclists?", *PIER) is None
    unsure = quote("How much did the mayor of Lisbon earn in spring?", *PIER)
    assert unsure is not None and not unsure.is_said
    assert unsure.text == NOT_SAID and unsure.spans == ()


def test_what_a_question_asks_for() -> None:
    number, time = answer_type.has_number, answer_type.has_time
    name, person = answer_type.has_name, answer_type.has_person
    for question, expected in {
        "How many steps are there?": number,
        "What does it cost?": number,
        "When did it open?": time,
        "In which year was it made?": time,
        "What is the name of the ship?": name,
        "What was the cow called?": name,
        "Who built it?": person,
        "Why is it green?": None,
    }.items():
        assert answer_type.expected(question) is expected, question
    assert number("forty steps") and number("42") and not number("some steps")
    assert time("on Mondays") and not time("on the roof")
    assert name("a banker called Lorenz") and not name("The banker. He left.")
    assert person("my aunt has it") and not person("The roof is flat.")


def test_films_of_the_measurement_are_what_they_claim() -> None:
    """Half of the questions share no telling word with their line, and every truth is said."""
    for name, count in (("test", 9), ("calibration", 7), ("training", 64), ("confirmation", 12)):
        sample = films(name)
        assert len(sample) == count
        asked = [one for film in sample for one in film.questions if one.truths]
        other = [one for one in asked if one.words == "other"]
        assert 2 * len(other) == len(asked)
        assert 2 * sum(not one.truths for film in sample for one in film.questions) == len(asked)
        for film in sample:
            for question in film.questions:
                lines = [one.text for one in film.lines if question.line in one.text]
                if question.truths:
                    (line,) = lines
                    assert question.is_answered_by(line)
                    assert bool(shared(question.text, line)) == (question.words == "same")
