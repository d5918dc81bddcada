"""Sightings become lines: from when to when, and since when they are known."""

from encoders.text.lines import TextLine
from encoders.text.sightings.detector import Sighting
from encoders.text.sightings.sighting_tracker import SightingTracker

LEFT, RIGHT = (0.0, 0.0, 0.2, 0.2), (0.8, 0.0, 1.0, 0.2)


def track(*readings: str, gap: float = 3.0, minimum: float = 2.0) -> tuple[TextLine, ...]:
    """Lines of readings a second apart, each the names of what is seen in it."""
    tracker = SightingTracker("v", "object", 0.6, gap, minimum)
    for time, names in enumerate(readings):
        tracker.take(time, [Sighting(name, 0.7, LEFT) for name in names.split()], time)
    return tracker.finish(len(readings))


def test_a_line_lasts_from_the_first_sighting_until_the_next_look_misses_it() -> None:
    (line,) = track("", "dog", "dog", "dog", "")
    assert (line.kind, line.text, line.start, line.end) == ("object", "dog", 1.0, 4.0)
    assert (line.confidence, line.box) == (0.7, LEFT)


def test_gaps_are_bridged_up_to_their_limit() -> None:
    (line,) = track("dog", "dog", "", "", "dog")
    assert (line.start, line.end) == (0.0, 5.0)
    times = [(line.start, line.end) for line in track("dog", "dog", "", "", "dog", "dog", gap=1.0)]
    assert times == [(0.0, 2.0), (4.0, 6.0)]


def test_short_lines_are_left_out() -> None:
    assert track("bird", "", "", "", "", "") == ()
    assert [line.text for line in track("bird", "", "", "", "", "", minimum=0.0)] == ["bird"]


def test_a_weak_sighting_continues_a_line_but_begins_none() -> None:
    tracker = SightingTracker("v", "object", 0.6, 1.0, 2.0)
    for time, score in enumerate((0.4, 0.4, 0.7, 0.4, 0.4, 0.4)):
        tracker.take(time, [Sighting("dog", score, LEFT)], time)
    (line,) = tracker.finish(6.0)
    assert (line.start, line.end, line.confidence) == (2.0, 6.0, 0.7)


def test_two_of_a_name_are_two_lines_that_keep_their_places() -> None:
    tracker = SightingTracker("v", "object", 0.6, 3.0, 2.0)
    near, far = (0.1, 0.0, 0.3, 0.2), (0.7, 0.0, 0.9, 0.2)
    tracker.take(0.0, [Sighting("cup", 0.9, LEFT), Sighting("cup", 0.8, RIGHT)], 0.0)
    tracker.take(1.0, [Sighting("cup", 0.9, far), Sighting("cup", 0.8, near)], 1.0)
    tracker.take(2.0, [Sighting("cup", 0.7, far)], 2.0)
    tracker.take(3.0, [Sighting("cup", 0.7, far)], 3.0)
    left, right = tracker.finish(4.0)
    assert (left.box, left.end, right.end) == (LEFT, 2.0, 4.0)
    assert (right.box, right.confidence) == (far, 0.9)  # its surest sighting


def test_nothing_of_a_line_comes_from_after_it_is_known() -> None:
    """A question at second 3 must not see the better score of second 4."""
    scores = (0.6, 0.7, 0.65, 0.99)
    tracker = SightingTracker("v", "object", 0.6, 3.0, 2.0)
    for time, score in enumerate(scores):
        tracker.take(time, [Sighting("dog", score, LEFT if score < 0.9 else RIGHT)], time)
    (line,) = tracker.finish(4.0)
    assert (line.known, line.confidence, line.box) == (2.0, 0.7, LEFT)


def test_a_line_that_lasted_long_enough_is_known_where_that_is_seen() -> None:
    (line,) = track("dog", "dog", "", "", "", "", "")
    assert (line.end, line.known) == (2.0, 2.0)
    (late,) = track("", "dog", "dog")
    assert (late.end, late.known) == (3.0, 3.0)


def test_a_still_picture_holds_its_things_until_it_changes() -> None:
    """Read at seconds 0, 60 and 65; the picture changed at 59 and at 64."""
    tracker = SightingTracker("v", "object", 0.6, 3.0, 2.0)
    tracker.take(0.0, [Sighting("tv", 0.9, LEFT)], 0.0)
    tracker.take(60.0, [Sighting("dog", 0.9, LEFT), Sighting("tv", 0.8, LEFT)], 59.0)
    tracker.take(65.0, [], 64.0)
    assert [(line.text, line.start, line.end) for line in tracker.finish(66.0)] == [
        ("tv", 0.0, 64.0),
        ("dog", 60.0, 64.0),
    ]
