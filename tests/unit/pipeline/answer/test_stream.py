"""An answer in pieces equals the answer in one piece, with both readers.

It can end between two tokens, and it blocks nobody else.
"""

import queue
import time

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.stream import AnswerStream
from pipeline.runtime.cancel import Cancelled
from tests.support.qa import TEXT, held_at, opened
from tests.support.videos import write_video


@pytest.fixture(scope="module", params=["kv", "tokens"])
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streaming")
    write_video(folder / "a.mp4", 6, 5)
    says = "star, circle and heart"
    with opened(folder / "a.mp4", folder / "bank", f"reader={request.param}", says=says) as (
        qa,
        source,
    ):
        qa.ingest(source)
        yield qa, Question(TEXT, source.info.video_id), says


def test_pieces_joined_are_the_answer(both):
    qa, question, says = both
    whole = qa.ask(question)
    with qa.stream(question) as stream:
        pieces = list(stream)
        again = stream.answer
    assert len(pieces) > 2 and "".join(pieces) == again.text == whole.text == says
    assert (again.cited, again.spans, again.frames_read) == (
        whole.cited,
        whole.spans,
        whole.frames_read,
    )
    assert stream.is_done and list(stream) == []


class SlowToEnd(queue.SimpleQueue):
    """The writer's thread goes on for a moment after the end has been put."""

    def put(self, item, *more):
        super().put(item, *more)
        if item is None:
            time.sleep(0.05)


def test_whoever_saw_the_last_piece_sees_that_it_is_done(monkeypatch):
    """Otherwise a follow-up would cancel an answer that was read to its end, and forget it."""
    monkeypatch.setattr("pipeline.answer.stream.queue.SimpleQueue", SlowToEnd)
    answer = object()

    def work(emit, cancelled):
        emit("piece")
        return answer

    stream = AnswerStream(work)
    assert list(stream) == ["piece"] and stream.is_done and stream.result is answer


def test_a_cancelled_answer_ends_between_two_tokens_and_frees_the_model(both):
    qa, question, _ = both
    with held_at(qa, 2) as (reached, go_on):
        stream = qa.stream(question)
        assert reached.wait(20)
        stream.cancel()
        go_on.set()
        pieces = []
        with pytest.raises(Cancelled):
            pieces.extend(stream)
        with pytest.raises(Cancelled):
            _ = stream.answer
    assert stream.is_done
    assert qa.ask(question).text  # the reader is free, and its buffer in order


def test_who_waits_for_the_model_can_be_cancelled_too(both):
    qa, question, _ = both
    with held_at(qa, 0) as (reached, go_on):
        first = qa.stream(question)
        assert reached.wait(20)
        second = qa.stream(question)
        began = time.monotonic()
        second.close()
        assert time.monotonic() - began < 5 and not first.is_done
        go_on.set()
        assert first.answer.text
    with pytest.raises(Cancelled):
        list(second)


def test_who_takes_no_piece_holds_nobody_up(both):
    qa, question, says = both
    untaken = qa.stream(question)
    assert qa.ask(question).text == says
    assert untaken.answer.text == says  # read to its end although nobody took a piece


def test_a_mistake_is_told_where_the_pieces_are_taken(both):
    qa, question, _ = both
    with pytest.raises(UserError, match="question is empty"):
        list(qa.stream(Question(" ", question.video_id)))
