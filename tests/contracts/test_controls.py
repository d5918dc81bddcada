"""The contract of every file in conf/control/: a new YAML there is tested without more work.

A control answers through `VideoQA.ask`, reads nothing after the moment of the question, and reads
the same frames twice. What each one reads is named below.
"""

import math
from dataclasses import dataclass, replace

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.strategies.retrieve import Retrieve
from pipeline.config.compose import options
from pipeline.controls.build import build_control, control_settings
from pipeline.controls.frame_choice import StoredFrame
from pipeline.controls.newest import Newest
from pipeline.controls.oracle import Oracle
from pipeline.controls.whole_video import WholeVideo
from pipeline.schema import Answer
from tests.support.qa import opened
from tests.support.toys import FRAME_TOKENS

BUDGET = 6  # frames
CLUE = ((3.2, 4.1), (9.0, 9.5))
T = 11.5
EVERY = options("control", {"full_tokens": 4096})


@dataclass(frozen=True)
class Asked:
    """What one control answered about the film, twice, and at T."""

    name: str
    answer: Answer
    again: Answer
    early: Answer
    times: list[float]  # of all frames of the film


@pytest.fixture(scope="module")
def pipeline(film, tmp_path_factory):
    """The toy model on a bank of the film."""
    root = tmp_path_factory.mktemp("bank")
    with opened(film, root, f"read_tokens={BUDGET * FRAME_TOKENS}", "recent_frames=2") as parts:
        parts[0].ingest(parts[1])
        yield parts


@pytest.fixture(scope="module", params=EVERY)
def asked(request, pipeline):
    control = build_control(EVERY[request.param])
    strategy = control.strategy(CLUE, Retrieve())
    assert strategy is not None
    qa, source = pipeline
    qa = replace(qa, answerer=replace(qa.answerer, strategy=strategy))
    rows = qa.bank.catalog.segments(source.info.video_id)
    times = [float(time) for row in rows for time in row.times]

    def ask(asked_at=math.inf):
        return qa.ask(Question("What is the code?", source.info.video_id, asked_at))

    return Asked(request.param, ask(), ask(), ask(T), times)


def frames(answer: Answer) -> list[float]:
    """The seconds of the frames that an answer read, at one frame a second."""
    return [start + i for start, end in answer.recalled for i in range(round(end - start))]


def expected(name: str, times: list[float]) -> list[float]:
    """What a control reads of frames at these times."""
    if name.startswith("last"):
        return times[-int(name.removeprefix("last")) :]
    near = [t for t in times if any(a - 1 <= t < b + 1 for a, b in CLUE)]
    return {
        "blind": [],
        "window": times[-BUDGET:],
        "oracle": near,
        "full": times,
        "needle_only": times,
    }[name]


def test_it_reads_what_its_name_says(asked: Asked) -> None:
    if asked.name in ("uniform", "haystack_only"):
        assert len(frames(asked.answer)) == BUDGET
    else:
        assert frames(asked.answer) == expected(asked.name, asked.times)
    assert asked.answer.frames_read == len(frames(asked.answer))


def test_it_sees_nothing_after_the_moment_of_the_question(asked: Asked) -> None:
    assert all(time <= T for time in frames(asked.early))
    if asked.name not in ("uniform", "haystack_only"):
        seen = [time for time in asked.times if time <= T]
        assert frames(asked.early) == expected(asked.name, seen)


def test_it_is_the_same_twice_and_says_what_it_did(asked: Asked) -> None:
    assert (asked.again.text, asked.again.recalled) == (asked.answer.text, asked.answer.recalled)
    trace = asked.answer.trace
    assert trace is not None and trace.why and len(trace.calls) == 1
    assert trace.visual_tokens == asked.answer.visual_tokens
    if asked.name != "haystack_only":
        assert trace.strategy == asked.name


def test_evenly_spread_frames_begin_at_the_first_and_end_at_the_last(asked: Asked) -> None:
    if asked.name == "uniform":
        read = frames(asked.answer)
        assert read[0] == asked.times[0] and read[-1] == asked.times[-1]


def test_the_oracle_is_not_asked_without_a_clue() -> None:
    assert Oracle().strategy((), Retrieve()) is None


def test_an_oracle_of_a_long_clue_spreads_over_it_within_the_budget() -> None:
    film = [StoredFrame(float(time), 4) for time in range(100)]
    oracle = Oracle().strategy([(20.0, 80.0)], Retrieve())
    assert isinstance(oracle, Oracle)
    chosen = [frame.time for frame in oracle.choose(film, 1.0, 40)]
    assert len(chosen) == 10 and chosen[0] == 19 and chosen[-1] == 80


def test_an_oracle_of_a_clue_between_two_frames_reads_a_frame_beside_it() -> None:
    film = [StoredFrame(float(time), 4) for time in (0, 30, 60)]
    oracle = Oracle().strategy([(40.0, 41.0)], Retrieve())
    assert isinstance(oracle, Oracle)
    assert [frame.time for frame in oracle.choose(film, 1.0, 40)] == [30]


def test_frames_of_unequal_cost_stay_within_the_budget() -> None:
    film = [StoredFrame(float(time), 1 + 15 * (time % 2)) for time in range(40)]
    for choice in (Newest(frames=None), build_control(EVERY["uniform"])):
        chosen = choice.choose(film, 1.0, 60)  # type: ignore[attr-defined]
        assert 0 < sum(frame.cost for frame in chosen) <= 60


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: control_settings(["placebo"], 1), "'placebo'"),
        (lambda: control_settings(["blind", "blind"], 1), "twice"),
        (lambda: Newest(frames=0), "control.frames=0"),
        (lambda: WholeVideo(most_tokens=0, showing="film"), "full_tokens=0"),
    ],
)
def test_bad_values_are_one_sentence(make, word: str) -> None:
    with pytest.raises(UserError, match=word):
        make()
