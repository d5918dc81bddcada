"""Guesses change how often the whole context is read, and nothing of the answer."""

from dataclasses import replace

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models.generation import Generation
from encoders.prefill import WindowPrefill
from memory.retrieval.common import hits
from memory.schema import Evidence, Question, Run, Stretch
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.answer.speculation.guessing import Guesser
from pipeline.kv_policy.guessed_tokens import GuessedTokens
from pipeline.runtime.stage_timer import StageTimer
from tests.support.toys import toy_backbone, toy_frames

MOST = 9


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    backbone = toy_backbone()
    seen = backbone.encode_frames(toy_frames(6))
    block = WindowPrefill(backbone, window_frames=1000, dtype="float32")(seen)
    best = hits([4, 1], [2.0, 1.0], (Stretch("toy", 0, 6),))
    return Evidence(Question("What is it?", "toy"), (Run("toy", 0, 0, seen, block),), best, 0, 1.0)


class Counting(KVReader):
    """Keeps its guesser, and counts passes over the whole context."""

    guesser: Guesser | None = None

    def _guesser(self, *args):
        self.guesser = super()._guesser(*args)
        return self.guesser


def asked(text: str, evidence: Evidence, **generation) -> Evidence:
    return replace(evidence, question=Question(text, "toy", generation=Generation(**generation)))


@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (1, 20), (2, 3), (6, 3)])
def test_the_answer_and_its_citations_are_those_of_the_whole_context(evidence, frames, tokens):
    timer, policy = StageTimer(), GuessedTokens(toy_backbone(), frames=frames, tokens=tokens)
    reader = Counting(toy_backbone(), max_new_tokens=MOST, kv_policy=policy)
    plain = KVReader(toy_backbone(), max_new_tokens=MOST)
    guessed = right = 0
    for text in ("What is it?", "Which star?", "How many hearts are there?"):
        for most in (None, 1, 4):
            one = asked(text, evidence, max_tokens=most)
            expected, found = plain.read(one, timer), reader.read(one, timer)
            assert (found.text, found.is_cut) == (expected.text, expected.is_cut)
            assert found.answer_tokens == expected.answer_tokens
            assert found.weights.keys() == expected.weights.keys()
            for name, weight in expected.weights.items():
                assert found.weights[name] == pytest.approx(weight, abs=1e-4)
            assert reader.guesser is not None
            guessed, right = guessed + reader.guesser.guessed, right + reader.guesser.right
    assert guessed > 0
    if frames == 6:  # the short context is the whole one
        assert right == guessed
    elif frames == 1:
        assert right < guessed


def test_a_short_context_has_the_frames_that_rank_first_then_the_newest(evidence):
    for frames, expected in ((1, [4]), (2, [1, 4]), (3, [1, 4, 5]), (99, [0, 1, 2, 3, 4, 5])):
        assert [name.ordinal for name in evidence.of_best(frames).names] == expected


def test_nothing_is_guessed_where_tokens_are_drawn_or_heads_read_apart(evidence):
    policy, timer = GuessedTokens(toy_backbone()), StageTimer()
    reader = Counting(toy_backbone(), max_new_tokens=4, kv_policy=policy)
    reader.read(asked("x", evidence, temperature=1.0, seed=1), timer)
    assert reader.guesser is None
    heads = torch.arange(6).expand(3, 4, -1)
    reader.read(replace(evidence, per_head=heads), timer)
    assert reader.guesser is None
    tokens = TokenReader(toy_backbone(), max_new_tokens=4, kv_policy=policy)
    plain = TokenReader(toy_backbone(), max_new_tokens=4)
    assert tokens.read(evidence, timer).text == plain.read(evidence, timer).text
    with pytest.raises(UserError, match=r"frames=0 .* guesses nothing"):
        GuessedTokens(toy_backbone(), frames=0)
