"""The newest moment that answers: a code that changes every day, with the embedded model."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.strategies.streams.latest import Latest
from pipeline.answer.strategies.streams.stream_clock import StreamClock
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.qa import VideoQA
from tests.support.dated_streams import DatedStream
from tests.support.sessions import world

SECONDS = 24
DAYS = {9: "1573", 10: "2864", 11: "3907"}  # of March 2026, from Monday on
CODE = "What is the code on the card"
END = 3.0 * SECONDS


@pytest.fixture(scope="module")
def qa(tmp_path_factory) -> Iterator[VideoQA]:
    """A camera that runs at nine on three days, and its first two days as videos of their own."""
    config = compose(
        "ask",
        ["video=x", "question=x", f"bank={tmp_path_factory.mktemp('bank')}", "clip=embedded"],
    )
    qa = build_qa(config, build_backbone(config))
    with qa.bank:
        for number, (day, code) in enumerate(DAYS.items()):
            wall = datetime(2026, 3, day, 9).timestamp()
            paint = world(f"code:{code}@5", f"name:Alice@{12 + number}")
            size = qa.backbone.frame_size
            qa.follow(DatedStream("camera", paint, SECONDS, wall, size))
            if number < 2:
                qa.follow(DatedStream(f"day-{number}", paint, 16, wall, size))
        yield qa


def ask(qa: VideoQA, text: str, asked_at: float = END, videos: tuple[str, ...] = ("camera",)):
    return qa.ask(Question(text, videos, asked_at))


@pytest.mark.parametrize(
    ("text", "asked_at", "number"),
    [
        (f"{CODE} now?", END, 2),
        (f"{CODE} now?", 2.0 * SECONDS, 1),  # asked before the update
        (f"As of Tuesday, {CODE[0].lower()}{CODE[1:]}?", END, 1),
        ("What was the code as of Monday at 10:00?", END, 0),
        ("What is the latest code?", END, 2),
        ("What was the code on Monday morning?", END, 0),
        ("What was the code yesterday?", END, 1),
        ("What was the code before Tuesday?", END, 0),
    ],
)
def test_the_newest_value_counts_and_later_ones_do_not(qa, text, asked_at, number):
    answer = ask(qa, text, asked_at)
    assert answer.text == list(DAYS.values())[number] and answer.question == text
    ((wall, _), *_) = answer.wall_clock
    assert f"{datetime.fromtimestamp(wall):%d %H:%M}" == f"{list(DAYS)[number]:02d} 09:00"
    assert any(
        start < number * SECONDS + 7 and end > number * SECONDS + 5 for start, end in answer.spans
    )


def test_the_trace_says_why_and_adds_up(qa):
    answer = ask(qa, f"{CODE} now?")
    trace = answer.trace
    assert trace.strategy == "latest" and "present state" in trace.why
    assert sum(call.visual_tokens for call in trace.calls) == answer.visual_tokens
    assert sum(call.frames for call in trace.calls) == answer.frames_read
    assert min(call.frames for call in trace.calls) <= 4  # the moment alone


def test_a_group_of_questions_keeps_its_order(qa):
    texts = ("What was the code on Monday?", f"{CODE} now?", "What was the code on Tuesday?")
    answers = qa.ask_all([Question(text, "camera", END) for text in texts])
    assert [answer.text for answer in answers] == ["1573", "3907", "2864"]


def test_videos_of_their_own_share_the_clock_on_the_wall(qa):
    days = ("day-0", "day-1")
    newest = ask(qa, f"{CODE} now?", 16.0, days)
    assert (newest.text, newest.video_id) == ("2864", "day-1")
    assert [each.video_id for each in newest.videos] == ["day-1"]
    before = ask(qa, "What was the code as of Monday?", 16.0, days)
    assert (before.text, before.video_id) == ("1573", "day-0")


def test_what_is_not_shown_stays_not_shown(qa):
    answer = ask(qa, "What is the icon on the card now?")
    assert (answer.text, answer.shown, answer.spans) == ("not in the video", False, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("What was the code on Monday at 3 am?", 'No video here was running "on Monday at 3 am"'),
        ("What was the code as of Sunday?", 'No video here had begun "as of Sunday"'),
        ("What was the code today at 23:00?", "name a time that has not come yet"),
    ],
)
def test_a_time_without_a_stream_is_one_sentence(qa, text, message):
    with pytest.raises(UserError, match=message) as caught:
        ask(qa, text)
    assert len(str(caught.value).splitlines()) == 1


def test_windows_grow_backwards_and_cover_everything(qa):
    clock = StreamClock.of(Question("x", "camera", END), qa.bank)
    assert clock is not None
    (window,) = clock.windows()
    assert window == (float("-inf"), float("inf"))
    longer = StreamClock(clock.pieces, 10_000.0, 0)
    edges = list(longer.windows())
    assert edges[0] == (9400.0, float("inf")) and edges[-1][0] == float("-inf")
    assert all(older[1] == newer[0] for newer, older in pairwise(edges))


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match="answer\\.looks"):
        Latest(looks=0)
