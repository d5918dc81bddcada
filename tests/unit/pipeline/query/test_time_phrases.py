"""What people say about time, and the stretch that is meant."""

import math
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.query.time_phrases import parse_reference, parse_video_time
from pipeline.query.wall_clock import wall_clock_range

NOW = datetime(2026, 11, 21, 14, 30, 0)


def at(day: int, clock: str) -> datetime:
    hours, minutes = map(int, clock.split(":"))
    return datetime(2026, 11, day, hours, minutes)


@pytest.mark.parametrize(
    ("text", "since", "until", "rest"),
    [
        (
            "What was the code yesterday at noon?",
            at(20, "11:45"),
            at(20, "12:15"),
            "What was the code?",
        ),
        ("What is the code in the last ten minutes?", at(21, "14:20"), NOW, "What is the code?"),
        ("In the past 2 hours, who came?", at(21, "12:30"), NOW, "Who came?"),
        ("Who came in the last minute?", at(21, "14:29"), NOW, "Who came?"),
        ("Who came this morning?", at(21, "5:00"), at(21, "12:00"), "Who came?"),
        ("Who came this afternoon?", at(21, "12:00"), NOW, "Who came?"),
        ("Who came last night?", at(20, "22:00"), at(21, "6:00"), "Who came?"),
        ("Who came yesterday evening?", at(20, "18:00"), at(20, "23:00"), "Who came?"),
        ("Who came between 12:00 and 12:30?", at(21, "12:00"), at(21, "12:30"), "Who came?"),
        ("Who came between 23:30 and 0:10?", at(20, "23:30"), at(21, "0:10"), "Who came?"),
        (
            "Who came yesterday between 12:00 and 1pm?",
            at(20, "12:00"),
            at(20, "13:00"),
            "Who came?",
        ),
        (
            "Who came between 12:00 and 12:30 yesterday?",
            at(20, "12:00"),
            at(20, "12:30"),
            "Who came?",
        ),
        ("Who came since 2 pm?", at(21, "14:00"), NOW, "Who came?"),
        ("Who came at 14:05?", at(21, "14:04"), at(21, "14:06"), "Who came?"),
        ("Who came at 15:00?", at(20, "14:59"), at(20, "15:01"), "Who came?"),  # not yet today
        ("Who came half an hour ago?", at(21, "13:57"), at(21, "14:03"), "Who came?"),
        ("Who came after noon?", at(21, "12:00"), NOW, "Who came?"),
        ("Who came yesterday before 9:30?", at(20, "0:00"), at(20, "9:30"), "Who came?"),
        ("Who came today?", at(21, "0:00"), NOW, "Who came?"),
        ("Who came the day before yesterday?", at(19, "0:00"), at(20, "0:00"), "Who came?"),
    ],
)
def test_phrases(text, since, until, rest):
    found = wall_clock_range(text, NOW.timestamp())
    assert found is not None
    assert (datetime.fromtimestamp(found.since), datetime.fromtimestamp(found.until)) == (
        since,
        until,
    )
    assert found.phrase.rest == rest


@pytest.mark.parametrize(
    "text",
    [
        "What is the code?",
        "Who came at 25:00?",
        "Who came tomorrow?",
        "Who came at 13 pm?",
        "Is it noonday?",
        "",
    ],
)
def test_what_names_no_time(text):
    assert wall_clock_range(text, NOW.timestamp()) is None


@pytest.mark.parametrize(
    ("text", "since", "until", "dated", "bare"),
    [
        ("Who came at 14:05?", at(3, "14:04"), at(3, "14:06"), False, True),
        ("Who came between 23:30 and 0:10?", at(3, "23:30"), at(4, "0:10"), False, True),
        ("Who came at noon?", at(3, "11:45"), at(3, "12:15"), False, False),
        ("Who came in the morning?", at(3, "5:00"), at(3, "12:00"), False, False),
        ("Who came after 0:00?", at(3, "0:00"), at(4, "0:00"), False, True),
        ("Who came yesterday at 14:05?", at(20, "14:04"), at(20, "14:06"), True, False),
        ("Who came this morning?", at(21, "5:00"), at(21, "12:00"), True, False),
        ("Who came an hour ago?", at(21, "13:24"), at(21, "13:36"), True, False),
    ],
)
def test_a_time_of_day_on_another_day(text, since, until, dated, bare):
    found = wall_clock_range(text, NOW.timestamp(), at(3, "0:00").date())
    assert found is not None
    assert (datetime.fromtimestamp(found.since), datetime.fromtimestamp(found.until)) == (
        since,
        until,
    )
    assert (found.phrase.is_dated, found.phrase.is_bare) == (dated, bare)


MOMENTS = st.datetimes(datetime(1990, 1, 2), datetime(2100, 1, 1)).map(
    lambda when: when.replace(microsecond=0)
)


@given(now=MOMENTS, count=st.integers(1, 999), unit=st.sampled_from(["second", "minute", "hour"]))
def test_the_last_so_much_ends_now(now, count, unit):
    found = wall_clock_range(f"Who came in the last {count} {unit}s?", now.timestamp())
    assert found is not None and found.until == now.timestamp()
    assert datetime.fromtimestamp(found.since) == now - timedelta(**{unit + "s": count})


@given(now=MOMENTS, a=st.integers(0, 1439), b=st.integers(0, 1439))
def test_between_two_clock_times_is_the_latest_such_stretch(now, a, b):
    text = f"Who came between {a // 60}:{a % 60:02d} and {b // 60}:{b % 60:02d}?"
    found = wall_clock_range(text, now.timestamp())
    if found is None:  # it begins this very minute
        assert (now.hour, now.minute, now.second) == (a // 60, a % 60, 0) or a == b
        return
    since, until = datetime.fromtimestamp(found.since), datetime.fromtimestamp(found.until)
    assert (since.hour, since.minute) == (a // 60, a % 60) and since < until <= now
    assert now - since <= timedelta(days=1) and (
        until == now or (until.hour, until.minute) == (b // 60, b % 60)
    )


@given(now=MOMENTS, text=st.text(max_size=60))
def test_any_text_is_survived_and_never_means_the_future(now, text):
    found = wall_clock_range(text + " yesterday at noon", now.timestamp())
    assert found is None or (found.since < found.until <= now.timestamp() and found.phrase.words)


@pytest.mark.parametrize(
    ("text", "span", "rest"),
    [
        ("bread after 12:30", (750.0, math.inf), "bread"),
        ("bread at minute 5", (270.0, 330.0), "bread"),
        ("Who came in the last nine minutes?", (460.0, 1000.0), "Who came ?"),
        ("bread in the first half an hour", (0.0, 1800.0), "bread"),
        ("bread in the first half as well", (0.0, 500.0), "bread as well"),
        ("bread in the last third", (pytest.approx(2000 / 3), 1000.0), "bread"),
        ("bread before ten seconds", (0.0, 10.0), "bread"),
        ("bread in the first tenminutes", (0.0, 600.0), "bread"),
    ],
)
def test_video_time(text, span, rest):
    phrase = parse_video_time(text)
    assert phrase is not None and (phrase.time.span(1000.0), phrase.rest) == (span, rest)


@pytest.mark.parametrize(
    "text", ["bread", "about a second attempt", "after two days", "in the last act", "after 0:12"]
)
def test_no_video_time(text):
    assert parse_video_time(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("1.5 hours", 5400), ("90 s", 90), ("9min", 540), ("a day", 86400)]
)
def test_lengths_of_both_kinds_of_time_have_one_vocabulary(text, seconds):
    found = wall_clock_range(f"Who came in the last {text}?", NOW.timestamp())
    assert found is not None and found.until - found.since == seconds


@pytest.mark.parametrize(
    ("text", "direction", "rest"),
    [
        ("And after that?", "AFTER", ""),
        ("What is the word before it?", "BEFORE", "What is the word"),
        ("  who came before then?", "BEFORE", "who came"),
        ("Earlier, what came after that?", "AFTER", "Earlier, what came"),
        ("and now?", "NOW", ""),
        ("once more", "AGAIN", ""),
    ],
)
def test_references(text, direction, rest):
    phrase = parse_reference(text)
    assert phrase is not None and (phrase.direction.name, phrase.rest) == (direction, rest)


def test_a_question_without_a_reference():
    assert parse_reference("Now who came?") is None
