"""A context in two places: the answer and the citations are those of one, whatever the parts."""

from dataclasses import replace

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.errors import UserError
from encoders.models.context.host_context import HostContext
from encoders.models.kv_cache import FixedCache
from encoders.models.position.dual_chunk import DualChunks
from encoders.prefill import WindowPrefill
from encoders.text.lines import TextLine
from memory.schema import Evidence, Hits, Question, Run, VideoTitle
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.reader import KVReader, TokenReader
from pipeline.kv_policy.host_part import HostPart
from pipeline.runtime.stage_timer import StageTimer
from tests.support.plain_attention import dense
from tests.support.toys import toy_backbone, toy_frames

TEXT = "In what order did the star and the circle appear?"


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    backbone = toy_backbone()
    runs, none = [], Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    for number, first in enumerate((0, 4)):  # two segments: the edge lies in either
        seen = backbone.encode_frames(toy_frames(4, seed=number, first=float(first)))
        block = WindowPrefill(backbone, window_frames=1000, dtype="float32")(seen)
        runs.append(Run("toy", number, first, seen, block))
    return Evidence(Question(TEXT, "toy"), tuple(runs), none, 0, 1.0)


def reader_of(device_tokens: int, **settings) -> KVReader:
    policy = HostPart(toy_backbone(), device_tokens=device_tokens)
    return KVReader(toy_backbone(), kv_policy=policy, **settings)


@pytest.mark.parametrize("device_tokens", [0, 3, 21, 1000])
def test_two_parts_answer_and_cite_as_one(evidence, device_tokens):
    plain, parts = KVReader(toy_backbone(), max_new_tokens=4), reader_of(device_tokens)
    parts.max_new_tokens, timer = 4, StageTimer()
    expected, found = plain.logits(evidence, timer), parts.logits(evidence, timer)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found, expected) == (device_tokens == 1000)
    with parts.context(evidence, 8, timer) as (cache, frames_of):
        assert isinstance(cache, FixedCache)
        on_device = cache.layers[0].filled - len(parts.sink)
        context = frames_of.shape[1] - len(parts.sink)
        assert on_device == min(device_tokens, context)
        if device_tokens < context:
            assert isinstance(cache.host, HostContext)
            assert cache.host.filled == context - device_tokens and not cache.host.room
    told, cited = plain.read(evidence, timer), parts.read(evidence, timer)
    assert told.text == cited.text and told.weights.keys() == cited.weights.keys()
    for name, weight in told.weights.items():
        assert cited.weights[name] == pytest.approx(weight, abs=1e-4)
    one, two = BatchedReader(parts).read([evidence, evidence], timer)
    assert one.text == two.text == cited.text


def test_the_merge_is_the_sum_of_both_parts():
    """In float64 by the equation: dense attention over the parts side by side."""
    chance = torch.Generator().manual_seed(1)
    key, value = torch.randn(2, 1, 2, 30, 8, generator=chance)
    query = torch.randn(1, 4, 3, 8, generator=chance) * 4
    layer = type("Layer", (), {"layer_idx": 0})
    expected = dense(layer, *(x.double() for x in (query, key, value)), None, scaling=0.5)[0]
    for sink, count in ((0, 1), (4, 20), (4, 23)):
        host = HostContext(*(x[None, :, :, sink : sink + count] for x in (key, value)), sink)
        host.filled = count
        left = [*range(sink), *range(sink + count, 30)]
        device = query, key[:, :, left], value[:, :, left]
        found = host.attend(dense, layer, *device, None, scaling=0.5)[0]
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(host.whole_keys(0, key[:, :, left]), key)


def test_what_does_not_fit_is_told(evidence):
    backbone, timer = toy_backbone(), StageTimer()
    policy = HostPart(backbone, device_tokens=3)
    with pytest.raises(UserError, match="host_part needs reader=kv"):
        TokenReader(backbone, kv_policy=policy)
    with pytest.raises(UserError, match=r"fits no position=dual_chunk"):
        reader_of(3, position=DualChunks(8, 12))
    titled = replace(evidence, titles={"toy": VideoTitle("toy")})
    layers = torch.tensor([[0, 1]]).expand(backbone.language_model.kv_shape.layers, -1)
    lines = (TextLine("toy", 1.0, 2.0, "speech", "a line", 0.0),)
    between = reader_of(3, lines="between")
    for reader, one in (
        (reader_of(3), titled),
        (reader_of(3), replace(evidence, per_layer=layers)),
        (between, replace(evidence, lines=lines)),
    ):
        with pytest.raises(UserError, match="one video without text between them"):
            reader.logits(one, timer)
