"""Days, dates and weeks in a question, "as of" and "before" them, and clocks that change."""

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from pipeline.query.present_state import without_present
from pipeline.query.wall_clock import as_of, wall_clock_range

NOW = datetime(2026, 11, 27, 14, 30)  # a Friday


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 11, day) + timedelta(hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "since", "until", "rest"),
    [
        ("the code on Tuesday morning", at(24, 5), at(24, 12), "The code"),
        ("the code on Tuesday in the morning", at(24, 5), at(24, 12), "The code"),
        ("the code on the morning of Tuesday", at(24, 5), at(24, 12), "The code"),
        ("Tuesday's code", at(24), at(25), "The code"),
        ("the code of Wednesday", at(25), at(26), "The code"),
        ("the code 3 days ago", at(24), at(25), "The code"),
        ("the code on 24 November", at(24), at(25), "The code"),
        ("the code on November 24th at noon", at(24, 11, 45), at(24, 12, 15), "The code"),
        ("the code on the 24th of November 2026", at(24), at(25), "The code"),
        ("the code on 2026-11-24 between 2 and 3 pm", at(24, 14), at(24, 15), "The code"),
        ("the code yesterday between 10 and 11", at(26, 10), at(26, 11), "The code"),
        ("the code at 10 on Tuesday", at(24, 9, 45), at(24, 10, 15), "The code"),
        ("the code on Tuesday after 10:00", at(24, 10), at(25), "The code"),
        ("the code before 10:00 on Tuesday", at(24), at(24, 10), "The code"),
        ("the code last week", at(16), at(23), "The code"),
        ("the code this week", at(23), NOW, "The code"),
        ("last week's code", at(16), at(23), "The code"),
        ("the code in the last 2 days", NOW - timedelta(days=2), NOW, "The code"),
        ("the code since Tuesday evening", at(24, 18), NOW, "The code"),
        ("the code from Tuesday on", at(24), NOW, "The code"),
        ("the code after Tuesday", at(25), NOW, "The code"),
        ("the code before Wednesday", None, at(25), "The code"),
        ("the code until Tuesday noon", None, at(24, 12), "The code"),
        ("the code by yesterday", None, at(27), "The code"),
        ("as of Tuesday, the code", None, at(25), "The code"),
        ("the code as of Tuesday at 10:30", None, at(24, 10, 30), "The code"),
        ("the code as of last week", None, at(23), "The code"),
        ("the code as of 10:30 on Tuesday", None, at(24, 10, 30), "The code"),
        ("the code the day before yesterday", at(25), at(26), "The code"),
    ],
)
def test_phrases(text, since, until, rest):
    found = wall_clock_range(text, NOW.timestamp())
    assert found is not None and found.phrase.rest == rest
    assert found.since == (-math.inf if since is None else since.timestamp())
    assert found.until == until.timestamp()
    is_as_of = "as of" in text
    assert (as_of(text, NOW.timestamp()) is not None) == is_as_of


@pytest.mark.parametrize(
    "text",
    [
        "Do between 2 and 3 people come?",
        "What did the Monday club do?",
        "What was the code today at 18:00?",  # is to come
        "the code on 2027-01-01",
        "the code on 31 February",
    ],
)
def test_what_means_no_time_that_was(text):
    assert wall_clock_range(text, NOW.timestamp()) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("What is the code now?", "What is the code?"),
        ("What is the code right now?", "What is the code?"),
        ("What is the current code?", "What is the code?"),
        ("At the moment, what is the code?", "What is the code?"),
        ("Which is the most recent name?", "Which is the name?"),
        ("What is the code?", None),
        ("How many came until now?", None),
        ("Who comes now and then?", None),
        ("What is strong at the moment of impact?", None),
        ('Who says "right now"?', None),
        ("now?", None),
    ],
)
def test_the_present_state(text, rest):
    assert without_present(text) == rest


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the time zone of the process."""

    def choose(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield choose
    monkeypatch.undo()
    time.tzset()


def utc(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


@pytest.mark.parametrize(
    ("now", "text", "since", "until"),
    [
        # Berlin goes back from 3:00 to 2:00 on 2026-10-25, at 1:00 UTC
        ("2026-10-25T12:00", "the code today", "2026-10-24T22:00", "2026-10-25T12:00"),
        ("2026-10-26T12:00", "the code yesterday", "2026-10-24T22:00", "2026-10-25T23:00"),
        (
            "2026-10-25T12:00",
            "the code today between 2:00 and 3:00",
            "2026-10-25T00:00",
            "2026-10-25T02:00",
        ),
        (
            "2026-10-25T01:30",
            "in the past 2 hours, the code",
            "2026-10-24T23:30",
            "2026-10-25T01:30",
        ),
        ("2026-10-25T01:30", "the code an hour ago", "2026-10-25T00:24", "2026-10-25T00:36"),
        # and forward from 2:00 to 3:00 on 2026-03-29, at 1:00 UTC
        ("2026-03-30T12:00", "the code yesterday", "2026-03-28T23:00", "2026-03-29T22:00"),
        (
            "2026-03-30T12:00",
            "the code yesterday between 1:30 and 2:30",
            "2026-03-29T00:30",
            "2026-03-29T01:00",
        ),
        ("2026-03-30T12:00", "the code yesterday between 2:10 and 2:50", None, None),
        ("2026-03-29T06:00", "the code last night", "2026-03-28T21:00", "2026-03-29T04:00"),
    ],
)
def test_clocks_that_change(zone, now, text, since, until):
    zone("Europe/Berlin")
    found = wall_clock_range(text, utc(now))
    if since is None:
        assert found is None or found.phrase.form.name == "HOURS"
        return
    assert found is not None
    assert (found.since, found.until) == pytest.approx((utc(since), utc(until)), abs=0.6)


@pytest.mark.parametrize(
    ("name", "hours"), [("UTC", 0), ("America/New_York", 5), ("Asia/Kolkata", -5.5)]
)
def test_a_day_is_one_of_the_time_zone(zone, name, hours):
    zone(name)
    found = wall_clock_range("the code on 24 November", utc("2026-11-27T12:00"))
    assert found is not None
    assert found.since == utc("2026-11-24T00:00") + 3600 * hours
    assert found.until - found.since == 86400
