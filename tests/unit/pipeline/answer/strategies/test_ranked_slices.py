"""A map that reads best first and ends early: the slices that it takes, and what it skips."""

from dataclasses import replace
from itertools import pairwise

import pytest

from memory.schema import Question
from pipeline.answer.strategies.map_reduce import MapReduce
from pipeline.answer.strategies.mapping.ranked_slices import RankedSlices
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.evaluation.needle.films.film import FilmSource
from tests.support.long_film import PLAIN, plan
from tests.support.qa import opened

TEXT = "Which icon appears in the video?"
BUDGET = 10  # visual tokens: two frames of the toy


@pytest.fixture
def slices(film, tmp_path):
    """Of the first 15 of 20 frames, and how each frame ranks."""
    options = ("clip=embedded", f"read_tokens={BUDGET}", "segmenter.seconds=4")
    with opened(film, tmp_path / "bank", *options) as (qa, source):
        qa.ingest(source)
        video_id = source.info.video_id
        early = Question(TEXT, video_id, 14.2)
        part = qa.answerer.raw_scores
        ranked = qa.bank.rank_frames(TEXT, video_id, asked_at=14.2, most=99, part=part)
        order = sorted(ranked, key=lambda moment: (-moment.score, moment.start))
        yield RankedSlices(qa.answerer, early, video_id, TEXT), [one.start for one in order]


def test_every_visible_frame_is_taken_once_within_the_budget(slices):
    own, order = slices
    taken = own.take(99)
    frames = [time for one in taken for time in order if one.start <= time <= one.end]
    assert sorted(frames) == sorted(order) == [float(second) for second in range(15)]
    assert all(one.end - one.start <= 1 and int(one.end) // 4 == one.segment for one in taken)
    assert own.take(1) == [] and own.frames_read == own.frames == 15


def test_the_best_frames_come_first(slices):
    own, order = slices
    taken = [own.take(1)[0] for _ in range(3)]
    best = [min(order.index(t) for t in order if a.start <= t <= a.end) for a in taken]
    assert best[0] == 0 and all(a < b for a, b in pairwise(best))


def test_frames_that_an_answer_does_not_rest_on_are_taken_again(slices):
    own, _ = slices
    (first,) = own.take(1)
    own.give_back(first, [(first.start, first.start + 1.0)])
    again = [one for one in own.take(99) if first.start <= one.start <= first.end]
    assert all(one.start > first.start for one in again)
    assert bool(again) == (first.end > first.start)


def test_an_answer_that_rests_on_no_frame_gives_nothing_back(slices):
    """Its slice came again for ever."""
    own, _ = slices
    (first,) = own.take(1)
    read = own.frames_read
    for spans in ((), [(99.0, 100.0)]):
        own.give_back(first, spans)
        assert own.frames_read == read


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A minute and a half of cards in a bank, read by the embedded model."""
    film, asked = plan(90.0, 101)
    bank = tmp_path_factory.mktemp("early") / "bank"
    config = compose("ask", ["answer=map_reduce", "answer.patience=4", *PLAIN, f"bank={bank}"])
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    width, height = backbone.frame_size
    with qa.bank:
        source = FilmSource(film, config.fps, width=width, height=height)
        qa.ingest(source)
        yield qa, source.info.video_id, [each for each in asked if each[0] != "retrieve"]


@pytest.mark.slow
def test_a_map_that_ends_early_says_what_a_whole_one_says_for_less(rendered):
    qa, video_id, asked = rendered
    whole = replace(qa, answerer=replace(qa.answerer, strategy=MapReduce(keep_findings=False)))
    early = replace(
        qa, answerer=replace(qa.answerer, strategy=MapReduce(keep_findings=False, patience=4))
    )
    for _, text, truth in asked[:4:2]:
        first, second = (each.ask(Question(text, video_id)) for each in (whole, early))
        assert first.text == second.text == truth
        assert second.visual_tokens < 0.6 * first.visual_tokens
        assert second.trace.notes and "best first" in second.trace.notes[0]
        assert not first.trace.notes


def test_its_findings_stay_and_those_of_a_whole_map_serve_it(rendered):
    qa, video_id, asked = rendered
    question = Question(asked[0][1], video_id)
    first, again = qa.ask(question), qa.ask(question)
    assert first.trace.calls and not again.trace.calls and again.trace.reused == 12
    assert (first.text, first.spans) == (again.text, again.spans)
    qa.bank.findings.forget(video_id)
    whole = replace(qa, answerer=replace(qa.answerer, strategy=MapReduce()))
    whole.ask(question)
    assert not qa.ask(question).trace.calls
