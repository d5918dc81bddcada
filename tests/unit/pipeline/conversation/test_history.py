"""Earlier rounds of a conversation about a film, with the model that ships."""

import math
from pathlib import Path

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.schema import local
from pipeline.conversation.history import MAX_ROUNDS, FollowUp, History
from pipeline.conversation.round import Round
from pipeline.engine import Engine
from pipeline.needle_world import video as needle_video
from tests.support.toys import toy_backbone, toy_parts
from tests.support.videos import write_video

SHAPE = "What shape is red?"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    """A film with a red star at 4 s and a red heart at 14 s."""
    folder = tmp_path_factory.mktemp("history")
    placed = tuple(
        needle_video.parse(text, seed)
        for seed, text in enumerate(("shape:red star@4", "shape:red heart@14"))
    )
    footage = needle_video.procedural_footage(seed=1, size=(192, 108))
    needle_video.write(folder / "film.mp4", placed, 20.0, footage, size=(192, 108))
    with Engine.compose([f"bank={folder / 'bank'}", "text=none"]) as opened:
        opened.add(str(folder / "film.mp4"))
        yield opened


@pytest.fixture
def film(engine: Engine) -> str:
    return str(Path(engine.bank).parent / "film.mp4")


@pytest.mark.slow  # seconds of CPU
def test_a_follow_up_goes_on_where_the_last_answer_ended(engine: Engine, film: str) -> None:
    history = History(engine.backbone)
    first = engine.ask(SHAPE, film, 10.0, history=history)
    assert first.text == "star" and first.spans
    after = engine.ask("And after that?", film, history=history)
    assert (after.question, after.text) == (SHAPE, "heart")
    assert after.recalled[0][0] >= first.spans[-1][1] - 1.0
    before = engine.ask("and before that?", film, history=history)
    assert before.text == "star" and before.recalled[-1][1] <= after.spans[0][0] + 1.0
    assert [each.answer for each in history.rounds] == ["star", "heart", "star"]


@pytest.mark.slow
def test_and_now_asks_for_the_newest_moment(engine: Engine, film: str) -> None:
    history = History(engine.backbone)
    first = engine.ask("What shape is red in the first 10 seconds?", film, history=history)
    now = engine.ask("And now?", film, history=history)
    assert (first.text, now.question, now.text) == ("star", SHAPE, "heart")
    assert now.trace is not None and now.trace.strategy == "latest"
    assert history.resolve("And now?").newest and not history.resolve("again?").newest
    history.add(Round("What does the sign say on Tuesday?", "", (), ()))
    assert history.resolve("what about now?").text == "What does the sign say?"
    history.add(Round('Who says "on Tuesday"?', "", (), ()))
    assert history.resolve("And now?").text == 'Who says "on Tuesday"?'


def test_rounds_carry_the_frames_that_they_cite(engine: Engine, film: str) -> None:
    per_frame = engine.backbone.tokens_per_frame
    history = History(engine.backbone, history_tokens=per_frame)
    answer = engine.ask(SHAPE, film, 10.0, history=history)
    asked = history.carry(Question("What is the code?", answer.video_id))
    assert asked.keep == history.rounds[0].frames[:1] != ()
    assert asked.context == ""  # no rounds are told
    assert History(engine.backbone).carry(Question("x", "v")) == Question("x", "v")


def test_a_model_that_reads_text_is_told_the_newest_rounds(engine: Engine, film: str) -> None:
    history = History(toy_backbone(), tell_rounds=1)
    for _ in range(MAX_ROUNDS + 1):
        history.add(Round.of(engine.ask(SHAPE, film, 10.0)))
    assert len(history.rounds) == MAX_ROUNDS
    asked = history.carry(Question("Why?", "v"))
    assert asked.prompt == f"Earlier question: {SHAPE}\nAnswer: star\n\nWhy?"
    history.clear()
    assert history.carry(Question("Why?", "v")).prompt == "Why?"


def test_rounds_beyond_the_window_are_refused_in_one_sentence(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 3, 5)
    film = str(tmp_path / "film.mp4")
    with Engine.compose([f"bank={tmp_path / 'bank'}", *toy_parts()]) as toy:
        window = local(toy.qa.answerer.reader, "a test").backbone.language_model.max_positions
        assert window is not None
        history = History(toy.backbone, tell_rounds=1)
        earlier = Round("What is it?", "a harbour " * window, (), ())
        history.add(earlier)
        with pytest.raises(UserError, match=rf"than the {window} .* lower .*tell_rounds=.*\.$"):
            toy.ask("Why?", film, history=history)
        assert history.rounds == (earlier,)
        history.clear()
        assert toy.ask("Why?", film, history=history).frames_read == 3
        assert len(history.rounds) == 1


def test_a_follow_up_is_about_the_seconds_that_it_names() -> None:
    asked = Question("And then?", "v", 30.0)
    about = FollowUp("Who?", since=4.0).about(asked)
    assert (about.text, about.asked_at, about.spans) == ("Who?", 30.0, {"v": ((4.0, math.inf),)})
    assert FollowUp("Who?", until=40.0).about(asked).asked_at == 30.0
    assert FollowUp("Who?", until=20.0).about(asked).asked_at == 20.0


@pytest.mark.parametrize(
    ("asked", "why"),
    [("And after that?", "names no moment"), ("again?", "no question before this one")],
)
def test_a_follow_up_that_follows_nothing_is_refused(
    engine: Engine, film: str, asked: str, why: str
) -> None:
    history = History(engine.backbone)
    with pytest.raises(UserError, match=f"{why}.*ask a whole question"):
        engine.ask(asked, film, history=history)
    assert history.rounds == ()


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        ((0, 1), "tell_rounds=1 needs a model that reads text"),
        ((0, -1), "tell_rounds=-1 is below 0"),
        ((-1, 0), "history_tokens=-1 is below 0"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(
    engine: Engine, bounds: tuple[int, int], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        History(engine.backbone, *bounds)
