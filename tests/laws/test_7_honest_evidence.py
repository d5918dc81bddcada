"""Law 7, honest evidence: cited spans were in the context, and "not in the video" cites nothing."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory.schema import Evidence, Hits, Question
from pipeline.answer.citations import cite, cited_spans
from pipeline.schema import CitedFrame, is_shown
from tests.support.qa import TEXT, ask, opened


def test_cited_frames_were_read(long_film, tmp_path):
    with opened(
        long_film, tmp_path / "bank", "read_tokens=40", "recent_frames=2", "cite_share=0.1"
    ) as (qa, source):
        qa.ingest(source)
        for asked_at in (math.inf, 31.5):
            question = Question(TEXT, source.info.video_id, asked_at)
            evidence = qa.bank.recall(question, read_tokens=40)
            read = {
                o: t
                for run in evidence.runs
                for o, t in zip(run.ordinals, run.tokens.times.tolist(), strict=True)
            }
            answer = qa.ask(question)
            assert answer.cited and answer.shown
            assert all(read[frame.ordinal] == frame.time for frame in answer.cited)
            assert [f.weight for f in answer.cited] == sorted(
                (f.weight for f in answer.cited), reverse=True
            )
            times = [frame.time for frame in answer.cited]
            for a, b in answer.spans:  # each begins and ends with a frame that was read and cited
                assert (
                    min(abs(a - t) for t in times) < 1e-3
                    and min(abs(b - 1 - t) for t in times) < 1e-3
                )
                assert max(read.values()) + 1 >= b - 1e-3
            assert all(any(a - 1e-3 <= t < b for a, b in answer.spans) for t in times)


def test_not_in_the_video_cites_nothing(film, tmp_path):
    with opened(film, tmp_path / "bank", says="not in the video") as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
        assert (answer["text"], answer["shown"], answer["spans"], answer["cited"]) == (
            "not in the video",
            False,
            (),
            (),
        )
        assert answer["frames_read"] == 20
    with opened(film, tmp_path / "other", says="star, circle") as (qa, source):
        qa.ingest(source)
        answer = ask(qa, source)
        assert (answer["text"], answer["shown"]) == ("star, circle", True)


def test_what_counts_as_not_shown():
    assert not is_shown("not in the video") and not is_shown("It is Not in the Video.")
    assert is_shown("4821") and is_shown("")


def frame_at(ordinal: int, time_: float, interval: float = 1.0) -> CitedFrame:
    return CitedFrame(ordinal, 0, time_, time_ + interval, 0.5, None)


@pytest.mark.parametrize(
    ("times", "interval", "expected"),
    [
        ([], 1.0, ()),
        ([3.0], 1.0, ((3.0, 4.0),)),
        ([3.0, 4.0, 5.0], 1.0, ((3.0, 6.0),)),
        ([5.0, 3.0, 4.0], 1.0, ((3.0, 6.0),)),
        ([3.0, 5.0], 1.0, ((3.0, 4.0), (5.0, 6.0))),
        ([3.0, 4.04], 1.0, ((3.0, 5.04),)),  # uneven frame times are still neighbours
        ([3.0, 3.5, 4.5], 0.5, ((3.0, 4.0), (4.5, 5.0))),
        ([0.1 * i for i in range(5)], 0.1, ((0.0, 0.5),)),
    ],
)
def test_neighbouring_frames_become_one_span(times, interval, expected):
    assert (
        cited_spans(tuple(frame_at(i, t, interval) for i, t in enumerate(times)), interval)
        == expected
    )


@given(st.sets(st.integers(0, 60)))
def test_spans_cover_exactly_the_cited_seconds(seconds):
    found = cited_spans(tuple(frame_at(s, float(s)) for s in seconds), 1.0)
    assert {s for a, b in found for s in range(int(a), int(b))} == seconds
    assert all(b < c for (_, b), (c, _) in pairwise(found))


def test_which_frames_are_cited(film, tmp_path):
    with opened(film, tmp_path / "bank") as (qa, source):
        qa.ingest(source)
        evidence = qa.bank.recall(Question(TEXT, source.info.video_id), read_tokens=1000)
    hits = Hits(torch.tensor([4, 2]), torch.tensor([0.9, 0.5]))
    evidence = replace(evidence, hits=hits)
    weights = dict.fromkeys(range(20), 0.01) | {4: 0.5, 7: 0.2, 2: 0.12}
    cited = cite(evidence, weights, share=0.25)
    assert [(f.ordinal, f.time, f.segment) for f in cited] == [(4, 4.0, 0), (7, 7.0, 0)]
    assert cited[0].score == pytest.approx(0.9) and cited[1].score is None
    assert [f.ordinal for f in cite(evidence, weights, share=0.2)] == [4, 7, 2]
    assert cite(evidence, {}, share=0.25) == ()
    even = dict.fromkeys(range(20), 1 / 20)
    assert len(cite(evidence, even, share=0.25)) == 20  # nothing stands out, nothing is hidden
    assert isinstance(evidence, Evidence)
