"""Which strategy `route` and `full` choose, and why."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.schema import local
from pipeline.answer.strategies.call_log import ROOM
from pipeline.answer.strategies.full import Full
from pipeline.answer.strategies.map_reduce import MapReduce
from pipeline.answer.strategies.route import Route
from pipeline.answer.strategies.schema import Turn
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from tests.support.long_film import PLAIN
from tests.support.painted_films import PaintedFilm
from tests.support.qa import opened


def route(film, bank, text, *options, says=""):
    with opened(film, bank, "answer=route", *options, says=says) as (qa, source):
        qa.ingest(source)
        trace = qa.ask(Question(text, source.info.video_id)).trace
    return trace.strategy, trace.why


@pytest.mark.parametrize(
    ("text", "options", "expected", "why"),
    [
        ("How many dogs are there?", ["read_tokens=24"], "map_reduce", 'the aim "count"'),
        ("What is the film about?", ["read_tokens=24"], "map_reduce", "about the whole video"),
        ("Who enters?", ["read_tokens=24"], "retrieve", "single moments"),
        ("Who enters?", ["read_tokens=80"], "full", "all 80 visual tokens fit"),
        ("Who enters?", ["read_tokens=24", "answer.full_tokens=80"], "full", "fit one pass"),
        ("Who enters?", ["read_tokens=24", "answer.margin=1000", "clip=embedded"], "map_reduce",
         "no frame stands out"),
    ],
)  # fmt: skip
def test_rules(film, bank, text, options, expected, why):
    found, said = route(film, bank, text, *options)
    assert found == expected and why in said and said.startswith("answer=route: ")


def test_the_model_may_choose(film, tmp_path):
    found, why = route(
        film, tmp_path, "Who enters?", "read_tokens=24", "answer.by=model", says="shown in"
    )
    assert found == "retrieve" and "single moments" in why


class EarlyRetrieve:
    """Sees the first two seconds alone, where no card is."""

    name = "retrieve"

    def answer(self, question, answerer, turn):
        return answerer.retrieve(replace(question, asked_at=2.0), turn.emit)


def test_a_refusal_about_cards_is_looked_at_again(tmp_path):
    """Frames that fit best alone, and all of it is counted. What no card shows stays refused."""
    config = compose("ask", [*PLAIN, f"bank={tmp_path / 'bank'}", "read_tokens=64"])
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank:
        qa.ingest(PaintedFilm("film", 3, backbone.frame_size, "shape:red star@9", 16))
        strategy = Route(map_reduce=MapReduce(patience=4, keep_findings=False))
        strategy._strategies["retrieve"] = EarlyRetrieve()
        for text, expected in (("What shape is red?", "star"), ("What shape is blue?", "not in")):
            pieces: list[str] = []
            answer = strategy.answer(Question(text, "film"), qa.answerer, Turn(pieces.append))
            assert answer.text.startswith(expected) and "".join(pieces) == answer.text
            assert answer.shown == (expected == "star")
            steps = [call.step for call in answer.trace.calls]
            assert steps[0] == "answer" and len(steps) > 1
            assert answer.visual_tokens == sum(call.visual_tokens for call in answer.trace.calls)
            assert "read again alone" in answer.trace.why
        whole = Route(map_reduce=MapReduce(keep_findings=False))
        whole._strategies["retrieve"] = EarlyRetrieve()
        once = whole.answer(Question("What shape is red?", "film"), qa.answerer, Turn())
        assert not once.shown and len(once.trace.calls) == 1


def test_full_refuses_what_does_not_fit(film, bank):
    with opened(film, bank, "answer=full", "answer.max_tokens=79") as (qa, source):
        qa.ingest(source)
        with pytest.raises(UserError, match="80 visual tokens, and the model takes 79 at once"):
            qa.ask(Question("Who enters?", source.info.video_id))
        answer = qa.ask(Question("Who enters?", source.info.video_id, 18.0))
        assert answer.frames_read == 19 and answer.trace.strategy == "full"


def test_full_counts_the_positions_that_the_reader_gives_frames(film, bank):
    """A window of 40 positions of frames holds 80 tokens at half their distance alone."""
    for position, fits in (("none", False), ("visual", True)):
        with opened(film, bank, "answer=full", f"position={position}") as (qa, source):
            qa.ingest(source)
            model = local(qa.answerer.reader, "a test").language_model
            before, model.max_positions = model.max_positions, ROOM + 40
            refusal = nullcontext() if fits else pytest.raises(UserError, match="takes 40 at once")
            with refusal:
                qa.ask(Question("Who enters?", source.info.video_id))
            model.max_positions = before


@pytest.mark.parametrize(
    "make",
    [
        lambda: Full(0),
        lambda: MapReduce(reduce="guess"),
        lambda: MapReduce(contexts=0),
        lambda: MapReduce(reduce_tokens=1),
        lambda: Route(map_reduce=MapReduce(), by="chance"),
        lambda: Route(map_reduce=MapReduce(), margin=-1),
        lambda: Route(map_reduce=MapReduce(), full_tokens=-1),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(UserError, match="answer\\."):
        make()
