"""A conversation about a running stream, with the embedded model.

Follow-ups, times in words, history, cancelling.
"""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.errors import UserError
from memory.schema import FrameName
from pipeline.conversation.history import decay
from pipeline.conversation.round import Round, context_text
from pipeline.live.dialogue import Dialogue
from pipeline.live.session import Session
from pipeline.runtime.cancel import Cancelled
from tests.support.qa import held_at
from tests.support.sessions import feed, pushed, wait_until_seen, wait_until_stored, world

SHAPE = "What shape is red?"
# when second 0 of the stream was: around midnight, times of day would name two days
BEGAN = 1_795_001_200.25


@pytest.fixture(scope="module")
def running(embedded, tmp_path_factory):
    """A red star at 4 s, a red heart at 14 s, a name at 20 s;
    the newest are in the open segment."""
    with embedded(tmp_path_factory.mktemp("dialogue") / "bank") as qa:
        source = pushed(qa)
        start_clock = source.start_clock
        source.start_clock = lambda start: start_clock(start) and BEGAN
        with Session(qa, source) as session:
            feed(source, world("shape:red star@4", "shape:red heart@14", "name:Alice@20"), 0, 24)
            wait_until_seen(session, 23)
            wait_until_stored(session, 2)
            yield session


@pytest.mark.slow
def test_follow_ups_go_on_where_the_last_answer_ended(running):
    dialogue = Dialogue(running)
    first = dialogue.ask(SHAPE, until=10.0)
    assert first.stream.answer.text == "star" and first.stream.answer.spans == ((4.0, 6.0),)
    after = dialogue.ask("And after that?")
    assert (after.text, after.since, after.until) == (SHAPE, 6.0, None)
    assert after.stream.answer.text == "heart" and after.stream.answer.spans == ((14.0, 16.0),)
    before = dialogue.ask("and before that?")
    assert before.until < 14.0 and before.stream.answer.text == "star"
    # a question of its own, with a time from the last answer
    whole = dialogue.ask("What is the secret word after that?")
    assert (whole.text, whole.since) == (
        "What is the secret word?",
        6.0,
    ) and whole.stream.answer.text == "Alice"
    assert [each.answer for each in dialogue.rounds] == ["star", "heart", "star", "Alice"]
    dialogue.forget()
    assert dialogue.rounds == ()


def test_times_in_words_and_again(running, monkeypatch):
    dialogue = Dialogue(running)
    assert running.qa.bank.catalog.segments("page")[0].wall == BEGAN
    monkeypatch.setattr("pipeline.live.dialogue.time.time", lambda: BEGAN + 30)
    clock = [time.strftime("%H:%M:%S", time.localtime(BEGAN + second)) for second in (11, 18)]
    turn = dialogue.ask(f"What shape is red between {clock[0]} and {clock[1]}?")
    assert (
        (turn.text, turn.stream.answer.text) == (SHAPE, "heart")
        and 10 <= turn.since <= 11
        and 17 <= turn.until <= 18
    )
    again = dialogue.ask("And in the last 22 seconds?")
    assert (again.text, again.stream.answer.text) == (
        SHAPE,
        "heart",
    ) and again.since == pytest.approx(8.0, abs=1e-3)
    assert dialogue.ask("And now?").text == SHAPE
    with pytest.raises(UserError, match="was not there"):
        dialogue.ask(f"{SHAPE} the day before yesterday")


def test_what_follows_nothing_is_told(running, monkeypatch):
    monkeypatch.setattr("pipeline.live.dialogue.time.time", lambda: BEGAN + 30)
    dialogue = Dialogue(running)
    for said in ("And after that?", "and before that?", "And now?", "in the last ten minutes?"):
        with pytest.raises(UserError, match="ask a whole question"):
            dialogue.ask(said)


def test_a_new_question_cancels_the_running_answer(running):
    dialogue = Dialogue(running)
    with held_at(running.qa, 0) as (reached, go_on):
        first = dialogue.ask(SHAPE)
        assert reached.wait(20)
        second = dialogue.ask("What is the secret word?")
        go_on.set()
        with pytest.raises(Cancelled):
            list(first.stream)
    assert second.stream.answer.text == "Alice"
    # what was cancelled is not remembered
    assert [each.answer for each in dialogue.rounds] == ["Alice"]


def test_frames_of_earlier_rounds_come_along_within_their_budget(running):
    per_frame = running.qa.backbone.tokens_per_frame
    dialogue = Dialogue(running, history_tokens=2 * per_frame)
    assert dialogue.ask(SHAPE, until=10.0).stream.answer.text == "star"
    turn = dialogue.ask("What is the secret word?")
    evidence = running.qa.bank.recall(running.question("x"), read_tokens=10 * per_frame)
    assert turn.stream.answer.frames_read <= 24 and evidence.frame_count == 10
    (first, *_) = dialogue.rounds
    question = running.question("What is the code?")
    with_them = running.qa.bank.recall(
        replace(question, keep=first.frames),
        read_tokens=10 * per_frame,
    )
    assert set(first.frames) <= set(with_them.names) and with_them.frame_count == 10
    assert context_text(dialogue.rounds[:1]) == f"Earlier question: {SHAPE}\nAnswer: star"


@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=12),
    most=st.integers(0, 60),
)
def test_older_rounds_decay_and_the_newest_gives_way_last(counts, most):
    rounds = [
        Round(f"q{i}", f"a{i}", (), tuple(FrameName("v", 100 * i + k) for k in range(n)))
        for i, n in enumerate(counts)
    ]
    left = decay(rounds, most)
    assert [(each.text, each.answer) for each in left] == [
        (each.text, each.answer) for each in rounds
    ]
    assert left[-1].frames == rounds[-1].frames[:most]
    # the heaviest stay
    assert all(b.frames == a.frames[: len(b.frames)] for a, b in zip(rounds, left, strict=True))
    total = sum(len(each.frames) for each in left)
    assert total <= most
    if sum(counts) <= most:
        assert left == rounds
    shrunk = [len(b.frames) < len(a.frames) for a, b in zip(rounds, left, strict=True)]
    for i, younger in enumerate(shrunk[1:-1]):  # decays only when the one before it is down to one
        assert not younger or len(left[i].frames) <= 1
