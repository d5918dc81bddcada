"""Several questions in one pass get the answers they get alone, in every family and with both
readers.

Float32.
"""

from contextlib import nullcontext

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.prefill import WindowPrefill
from memory.schema import Evidence, Hits, Question, Run
from pipeline.answer.attention import attention_shares
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.reader import KVReader, TokenReader
from tests.support.families import FAMILIES, backbone_of, frames_for

QUESTIONS = (
    "What is the code?",
    "In what order did the star and the circle appear?",
    "Which shape is red?",
    "How many stars?",
)
READERS = [TokenReader, KVReader]


def silent(stage: str):
    return nullcontext()


@pytest.fixture(params=sorted(FAMILIES))
def backbone(request):
    if FAMILIES[request.param].needs:
        pytest.importorskip(FAMILIES[request.param].needs)
    return backbone_of(request.param)


def group(backbone) -> list[Evidence]:
    """Four questions that read different frames, one of them none: contexts of unequal length."""
    frames = frames_for(backbone, 12)
    prefill = WindowPrefill(backbone, window_frames=4, dtype="float32")
    runs: list[Run] = []
    first = 0
    for number in range(3):
        seen = backbone.encode_frames(frames.part(4 * number, 4 * number + 4))
        runs.append(Run("toy", number, first, seen, prefill(seen)))
        first += len(seen.times)
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    read: tuple[list[Run], ...] = (runs, runs[:1], [], runs[1:])
    return [
        Evidence(Question(text, "toy"), tuple(own), none, 0, 0.5)
        for text, own in zip(QUESTIONS, read, strict=True)
    ]


def close(one: dict[int, float], other: dict[int, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[at] - other[at]) < 1e-4 for at in one)


@pytest.mark.parametrize("reader_class", READERS)
def test_answers_are_those_of_one_at_a_time(backbone, reader_class):
    reader = reader_class(backbone, max_new_tokens=6)
    asked = group(backbone)
    alone = [reader.read(evidence, silent) for evidence in asked]
    # or a row could have another's answer unnoticed
    assert len({reading.text for reading in alone}) > 1
    together = BatchedReader(reader)
    for _ in range(2):  # the second time in the buffer of the first
        found = together.read(asked, silent)
        assert [reading.text for reading in found] == [reading.text for reading in alone]
        assert all(close(a.weights, b.weights) for a, b in zip(found, alone, strict=True))
    smaller = together.read(asked[1:3], silent)  # after a larger group
    assert [reading.text for reading in smaller] == [reading.text for reading in alone[1:3]]
    assert reader.read(asked[0], silent).text == alone[0].text  # and the reader is free again


@pytest.mark.parametrize("reader_class", READERS)
@pytest.mark.parametrize("ends", [True, False])
def test_options_weigh_as_much_as_one_at_a_time(backbone, reader_class, ends):
    reader = reader_class(backbone)
    asked = group(backbone)
    options = [
        ["red star", "blue"],
        ["one"],
        ["4821", "77", "circle, star"],
        ["star", "ring ring ring"],
    ]
    ids = [[backbone.prompt.ids(word) for word in own] for own in options]
    alone = [
        reader.log_likelihoods(one, q, own, silent, ends=ends)
        for one, q, own in zip(asked, QUESTIONS, ids, strict=True)
    ]
    found = BatchedReader(reader).log_likelihoods(asked, QUESTIONS, ids, silent, ends=ends)
    for (scores, weights), (expected, own) in zip(found, alone, strict=True):
        assert scores == pytest.approx(expected, abs=1e-3)
        assert close(weights, own)


def test_queries_of_several_are_those_of_each(backbone):
    model = backbone.language_model
    found = model.queries_of(QUESTIONS)
    assert all(
        torch.allclose(row, model.queries_of([text])[0], atol=1e-4)
        for row, text in zip(found, QUESTIONS, strict=True)
    )
    assert not torch.allclose(found[0].mean(0), found[1].mean(0), atol=1e-1)


def test_plain_attention_hides_the_same():
    backbone = FAMILIES["llava_ov"].load(attention="eager")
    reader = KVReader(backbone, max_new_tokens=6)
    asked = group(backbone)
    found = BatchedReader(reader).read(asked, silent)
    assert [reading.text for reading in found] == [
        reader.read(evidence, silent).text for evidence in asked
    ]


def test_shares_do_not_depend_on_how_many_steps_are_settled_at_once(monkeypatch):
    reader = KVReader(backbone_of("llava_ov"), max_new_tokens=6)
    asked = group(reader.backbone)
    whole = [reader.read(asked[0], silent), *BatchedReader(reader).read(asked, silent)]
    monkeypatch.setattr(attention_shares, "_MAX_SCORES", 1)  # a part for every step
    parts = [reader.read(asked[0], silent), *BatchedReader(reader).read(asked, silent)]
    assert any(reading.weights for reading in whole)
    assert all(close(a.weights, b.weights) for a, b in zip(whole, parts, strict=True))
