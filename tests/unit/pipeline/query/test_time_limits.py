"""Words of time in a question, and the stretches of its videos that it is limited to."""

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.schema import Question
from pipeline.query.time_limits import TimedQuestion, read_times
from tests.support.banks import opened
from tests.support.records import info, make_segment, make_video, write_video

YESTERDAY_TEN = datetime.combine(
    datetime.now().date() - timedelta(days=1), datetime.min.time()
) + timedelta(hours=10)


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Iterator[MemoryBank]:
    """`film` lasts 100 s by its file; `camera` runs from ten o'clock yesterday, for 40 s."""
    with opened(tmp_path_factory.mktemp("bank")) as bank:
        write_video(bank, make_video("film", segments=25))
        bank.record_video(info("camera"), 1.0, finished=False)
        for number in range(10):
            segment = make_segment("camera", number)
            wall = YESTERDAY_TEN.timestamp() + segment.start
            bank.write(replace(segment, wall=wall))
        yield bank


def read(
    bank: MemoryBank, text: str, videos: str | tuple[str, ...] = "film", **more
) -> TimedQuestion:
    question = Question(text, videos, **more)
    rows = {row.info.video_id: row for row in bank.catalog.videos()}
    return read_times(question, bank, {each: rows[each] for each in question.videos})


@pytest.mark.parametrize(
    ("text", "span", "query"),
    [
        ("What is the code in the first half?", (0.0, 50.0), "What is the code?"),
        ("In the last 10 seconds, what is the code?", (90.0, 100.0), "what is the code?"),
        ("What is the code between 0:10 and 0:20?", (10.0, 20.0), "What is the code?"),
        ("What comes after 0:42?", (42.0, math.inf), "What comes?"),
        ("What comes at second 30?", (0.0, 60.0), "What comes?"),
    ],
)
def test_words_that_only_say_when_limit_frames(bank, text, span, query):
    timed = read(bank, text)
    assert timed.question.spans == {"film": (span,)} and timed.question.text == text
    assert timed.question.search_text == query and timed.note.startswith("The words")


@pytest.mark.parametrize(
    "text",
    [
        "Follow the cards from Alice: which code stands at the end?",
        "Which code stands at the beginning?",
        "What does he say about 12:30?",
        "What takes about 90 seconds?",
        'Who says "in the first half"?',
        "What is the code?",
    ],
)
def test_words_that_may_say_what_limit_nothing(bank, text):
    assert read(bank, text) == TimedQuestion(Question(text, "film"))


def test_shares_count_to_the_moment_of_the_question(bank):
    timed = read(bank, "What is the code in the last half?", asked_at=40.0)
    assert timed.question.spans == {"film": ((20.0, 40.0),)}
    limited = read(bank, "the code in the first half", spans={"film": ((0.0, 5.0), (45.0, 70.0))})
    assert limited.question.spans == {"film": ((0.0, 5.0), (45.0, 50.0))}


def test_the_clock_on_the_wall(bank):
    timed = read(bank, "What was the code yesterday between 10 am and 11 am?", ("film", "camera"))
    (span,) = timed.question.spans["camera"]
    assert span == pytest.approx((0.0, 40.0), abs=1.0) and timed.question.spans["film"] == ()
    assert "leaves out 1 of 2 videos" in timed.note
    assert timed.question.search_text == "What was the code?"
    # of a moment in the camera's past, yesterday is the day before
    with pytest.raises(UserError, match='No video here was running "yesterday'):
        read(bank, "the code yesterday at 10:00", "camera", asked_at=20.0)
    again = read(bank, "the code today at 10:00", "camera", asked_at=20.0)
    assert again.question.spans["camera"][0][0] == 0.0


def test_a_time_that_no_video_has_is_one_sentence(bank):
    with pytest.raises(UserError, match='"after 12:30" name a time that no video here has'):
        read(bank, "What comes after 12:30?")


def test_a_day_of_the_week_leads_to_the_stream_of_that_day(tmp_path):
    """Seven cameras' days, the last one today; later days are not seen as of an earlier one."""
    names = [f"day-{back}" for back in range(6, -1, -1)]
    today = datetime.combine(datetime.now().date(), datetime.min.time())
    with opened(tmp_path) as bank:
        for back, name in zip(range(6, -1, -1), names, strict=True):
            bank.record_video(info(name), 1.0, finished=False)
            began = (today - timedelta(days=back)).timestamp() + 8 * 3600.0 * (back > 0)
            for number in range(3):
                segment = make_segment(name, number)
                bank.write(replace(segment, wall=began + segment.start))
        two_days_ago = f"{today - timedelta(days=2):%A}"
        timed = read(bank, f"What was the code on {two_days_ago} morning?", tuple(names))
        assert [each for each in names if timed.question.spans[each]] == ["day-2"]
        evidence = bank.recall(timed.question, read_tokens=100)
        assert {name.video_id for name in evidence.names} == {"day-2"}
        assert "limit what was read to a part of one video" in timed.note


def test_as_of_moves_the_moment_and_asks_for_the_present_state(bank):
    both = ("film", "camera")
    timed = read(bank, "What is the code as of yesterday at 10:00:20?", both)
    assert timed.is_present and timed.question.search_text == "What is the code?"
    assert timed.question.moment("camera") == pytest.approx(20.0)
    assert timed.question.moment("film") == math.inf and "1 of 2 videos" in timed.note
    alone = read(bank, "What is the code as of yesterday?", "film")
    assert alone.question.moment("film") == math.inf and "limit nothing" in alone.note
    with pytest.raises(UserError, match='No video here had begun "as of yesterday at 9:00"'):
        read(bank, "What is the code as of yesterday at 9:00?", "camera")


def test_an_earlier_day_within_what_was_known(bank):
    """Of a moment in the words, yesterday is the day before."""
    with pytest.raises(UserError, match='No video here was running "yesterday"'):
        read(bank, "As of yesterday at 11:00, what was the code yesterday?", "camera")


def test_now_asks_for_the_present_state(bank):
    timed = read(bank, "What is the code now?")
    assert timed.is_present and timed.question == Question(
        "What is the code now?", "film", query="What is the code?"
    )
    assert not read(bank, "What is the code?").is_present


def test_a_time_that_is_to_come_is_one_sentence(bank):
    with pytest.raises(UserError, match='"on 2999-01-01" name a time that has not come yet'):
        read(bank, "What is the code on 2999-01-01?", "camera")
