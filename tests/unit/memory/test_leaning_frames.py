"""Recall where a compressor carries whole frames on: what a frame leans on is read too."""

from pathlib import Path

import pytest

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from tests.support.banks import PROVENANCE, ordinals, spent
from tests.support.records import make_segment, write_video

COMPRESSORS = {"carry": "CarriedMerge(segments=8, threshold=0.95)", "merge": "Merge()"}
# frames 0, 5 and 13 are whole; every segment but the first begins with one that leans on them
TOKENS = [[9, 1, 1], [1, 1, 8], [1, 1, 1], [1, 1, 1], [1, 7, 1], [1, 1, 1]]


@pytest.fixture
def banks(tmp_path: Path):
    """A bank with the same segments for each compressor."""
    made = {}
    for name, compressor in COMPRESSORS.items():
        provenance = {**PROVENANCE, "compressor": compressor}
        bank = MemoryBank.open(tmp_path / name, provenance, UniformRetriever(), recent_frames=2)
        segments = [make_segment("v", n, frames=3, tokens=own) for n, own in enumerate(TOKENS)]
        write_video(bank, segments)
        made[name] = bank
    yield made
    for bank in made.values():
        bank.close()


def test_the_newest_frames_are_read_behind_the_whole_one(banks) -> None:
    question = Question("x", "v")
    assert {13, 16, 17} < set(ordinals(banks["carry"].recall(question, read_tokens=10)))
    assert 13 not in ordinals(banks["merge"].recall(question, read_tokens=8))


def test_a_question_about_a_while_reads_what_is_shown_then(banks) -> None:
    question = Question("x", "v", spans={"v": ((9.0, 12.0),)})
    assert ordinals(banks["carry"].recall(question, read_tokens=40)) == [5, 9, 10, 11]
    assert ordinals(banks["merge"].recall(question, read_tokens=40)) == [9, 10, 11]
    early = banks["carry"].recall(Question("x", "v", 10.0, spans=question.spans), read_tokens=40)
    assert ordinals(early) == [5, 9, 10]  # nothing behind the question's moment


@pytest.mark.parametrize("read_tokens", [9, 12, 20, 60])
def test_the_budget_holds(banks, read_tokens: int) -> None:
    for asked_at in (2.0, 7.0, 13.0, 99.0):
        evidence = banks["carry"].recall(Question("x", "v", asked_at), read_tokens=read_tokens)
        assert spent(evidence) <= read_tokens
        assert all(run.tokens.times.max() <= asked_at for run in evidence.runs)


def test_behind_pruned_segments_frames_are_read_as_they_are(banks) -> None:
    bank = banks["carry"]
    bank._store.prune("v", 2)
    question = Question("x", "v", spans={"v": ((6.0, 9.0),)})
    assert len(ordinals(bank.recall(question, read_tokens=40))) == 3
    assert bank.check.verify() == []
