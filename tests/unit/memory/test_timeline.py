"""Timelines share their room: each shows what it was made of, whoever goes on from it."""

import numpy as np
import pytest

from memory.timeline import Timeline

Made = list[tuple[int, np.ndarray, np.ndarray]]


def segments(count: int, first: int = 0, tokens: int = 1) -> Made:
    """Of three frames each."""
    return [
        (n, np.arange(3.0) + 3 * n, np.full(3, tokens, np.int32))
        for n in range(first, first + count)
    ]


def shown(timeline: Timeline) -> list[list]:
    return [
        each.tolist()
        for each in (timeline.times, timeline.tokens, timeline.edges, timeline.numbers)
    ]


def plainly(made: Made) -> list[list]:
    """What a timeline of these segments shows, written out."""
    times = [time for _, part, _ in made for time in part.tolist()]
    tokens = [count for _, _, part in made for count in part.tolist()]
    return [times, tokens, list(range(0, len(times) + 1, 3)), [number for number, _, _ in made]]


@pytest.mark.parametrize("step", [1, 7, 200])
def test_it_grows_as_if_made_at_once_and_earlier_ones_stay(step):
    made, timeline, seen = segments(200), Timeline.empty(), []
    for at in range(0, 200, step):
        timeline = timeline.extended(made[at : at + step], revision=at)
        seen.append((timeline, made[: at + step], at))
    for one, of, revision in seen:
        assert shown(one) == plainly(of) and one.revision == revision
        assert one.times.dtype == np.float64 and {
            each.dtype for each in (one.tokens, one.edges, one.numbers)
        } == {np.dtype(np.int64)}
        assert one.next_number == of[-1][0] + 1 and len(one) == 3 * len(of)


def test_two_that_go_on_from_one_do_not_mix():
    begun = Timeline.empty().extended(segments(5))
    one, other = begun.extended(segments(4, 5)), begun.extended(segments(9, 6, tokens=2))
    again = begun.extended(segments(2, 5, tokens=3))
    assert shown(begun) == plainly(segments(5))
    assert shown(one) == plainly([*segments(5), *segments(4, 5)])
    assert shown(other) == plainly([*segments(5), *segments(9, 6, tokens=2)])
    assert shown(again) == plainly([*segments(5), *segments(2, 5, tokens=3)])
    assert Timeline.empty().next_number == 0 and shown(Timeline.empty()) == [[], [], [0], []]


def test_a_segment_more_copies_nothing_of_what_is_there():
    timeline = Timeline.empty().extended(segments(3000)).extended(segments(1, 3000))
    later = timeline.extended(segments(1, 3001))
    for name in ("times", "tokens", "edges", "numbers"):
        assert np.shares_memory(getattr(timeline, name), getattr(later, name))


def leaning(tokens: list[int], numbers: list[int] | None = None) -> Timeline:
    """Segments of two frames each. numbers: of the segments; None: none is missing."""
    counts = np.array(tokens, np.int32).reshape(-1, 2)
    return Timeline.empty().extended(
        [
            (number, np.arange(2.0) + 2 * number, own)
            for number, own in zip(numbers or range(len(counts)), counts, strict=True)
        ]
    )


def test_frames_with_one_token_lean_on_the_last_whole_frame() -> None:
    timeline = leaning([1, 1, 8, 1, 1, 1, 1, 7, 1, 1])
    assert timeline.holders(10).tolist() == [0, 1, 2, 2, 2, 2, 2, 7, 7, 7]
    assert timeline.holders(6).tolist() == [0, 1, 2, 2, 2, 2]
    with_gap = leaning([8, 1, 1, 1, 1, 9], [0, 1, 3])
    assert with_gap.holders(6).tolist() == [0, 0, 0, 0, 4, 5]  # nobody knows what 2 showed


def test_a_stretch_begins_with_the_frame_that_is_shown() -> None:
    timeline = leaning([1, 1, 8, 1, 1, 1, 1, 7, 1, 1])
    assert timeline.with_holders([range(5, 7)]) == [range(2, 3), range(5, 7)]
    assert timeline.with_holders([range(3, 5), range(6, 9)]) == [range(2, 5), range(6, 9)]
    assert timeline.with_holders([range(0, 1), range(7, 9)]) == [range(0, 1), range(7, 9)]
    assert timeline.with_holders([]) == []
