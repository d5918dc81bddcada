"""The contract of every option in conf/answer/ for a question about two films.

The trace adds up, films are named, and nothing of any film after its moment is read (law 3).
"""

from dataclasses import dataclass

import pytest

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.strategies.schema import MOST_WHOLE, refuse_more
from pipeline.cli.keys import options_of
from pipeline.schema import Answer
from tests.support.qa import loaded_once, opened
from tests.support.videos import write_video

# of the two films; the last frames before are the last of a segment. Between two pictures: one at a
# moment is seen then, and is none of a film that ends there
MOMENTS = (15.5, 7.45)
OPTIONS = ("prefill.dtype=float32", "read_tokens=24", "recent_frames=2")
QUESTIONS = ("In what order did the star and the heart appear?", "What is this film about?")


@dataclass(frozen=True)
class Asked:
    """What one strategy answered to each of the questions."""

    whole: list[Answer]
    early: list[Answer]  # asked at MOMENTS
    of_parts: list[Answer]  # in a bank of films that end there


@pytest.fixture(scope="module")
def folder(film, tmp_path_factory):
    """A bank of two films, and one of their beginnings."""
    root = tmp_path_factory.mktemp("several")
    write_video(root / "other.mp4", 12, 10)
    for name, ends in (("whole", (None, None)), ("parts", MOMENTS)):
        for path, end in zip((film, root / "other.mp4"), ends, strict=True):
            more = () if end is None else (f"end={end}",)
            with opened(path, root / name, *OPTIONS, *more) as (qa, source):
                qa.ingest(source)
    return root


@pytest.fixture(scope="module", params=options_of("answer"))
def asked(request, film, folder):
    strategy = f"answer={request.param}"

    def ask(bank, *several):
        with opened(film, folder / bank, *OPTIONS, strategy, build=loaded_once) as (qa, _):
            rows = sorted(qa.bank.catalog.videos(), key=lambda row: row.info.path != str(film))
            ids = [row.info.video_id for row in rows]
            return [
                [
                    qa.ask(Question(text, ids, moments=dict(zip(ids, moments, strict=False))))
                    for text in QUESTIONS
                ]
                for moments in several
            ]

    early, whole = ask("whole", MOMENTS, ())
    return Asked(whole, early, *ask("parts", ()))


def test_the_trace_adds_up(asked):
    for answer in (*asked.whole, *asked.early):
        assert answer.trace is not None
        assert sum(call.visual_tokens for call in answer.trace.calls) == answer.visual_tokens
        assert sum(call.frames for call in answer.trace.calls) == answer.frames_read


def test_what_is_cited_names_its_film(asked):
    for answer in asked.whole:
        named = {one.video_id: one.spans for one in answer.videos}
        if answer.shown:
            assert named[answer.video_id] == answer.spans
        assert {line.video_id for line in answer.lines} <= named.keys()
        for basis in answer.trace.basis:
            for video_id, start, end in basis.videos:
                assert any(a <= start and end <= b for a, b in named[video_id])


def test_nothing_of_later_is_read_of_any_film(asked):
    def plain(answer):
        spans = [(one.path, one.spans) for one in answer.videos]
        lines = [(line.start, line.end, line.text) for line in answer.lines]
        return answer.text, answer.spans, spans, lines

    for early, alone in zip(asked.early, asked.of_parts, strict=True):
        assert plain(early) == plain(alone)


def test_more_films_than_a_strategy_reads_whole_are_one_sentence():
    question = Question("What?", [str(number) for number in range(MOST_WHOLE + 1)])
    with pytest.raises(UserError, match="answer=full reads all of at most 64 videos, and these"):
        refuse_more(question, "full")
