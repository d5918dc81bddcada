"""Streams that encode in turn share one cache, and none of them can tell."""

import gc

import pytest
import torch

from encoders.prefill import WindowPrefill
from encoders.prefill_caches import PrefillCaches, prefill_caches
from encoders.schema import VisualTokens
from tests.support.toys import toy_backbone, toy_frames


@pytest.fixture(scope="module")
def streams() -> list[list[VisualTokens]]:
    """Visual tokens of two streams, three segments of each."""
    backbone = toy_backbone()
    return [
        [backbone.encode_frames(toy_frames(4, seed=seed + number)) for number in range(3)]
        for seed in (0, 10)
    ]


def test_two_streams_in_turn_give_the_bytes_of_each_alone(streams: list[list[VisualTokens]]):
    alone = []
    for segments in streams:
        prefill = WindowPrefill(toy_backbone(), window_frames=6)
        alone.append([prefill(segment) for segment in segments])
    both = [WindowPrefill(toy_backbone(), window_frames=6) for _ in streams]
    for number in range(3):
        for prefill, segments, blocks in zip(both, streams, alone, strict=True):
            block = prefill(segments[number])
            assert torch.equal(block.keys, blocks[number].keys)
            assert torch.equal(block.values, blocks[number].values)
    caches = both[0]._caches
    assert caches is both[1]._caches and len(caches._idle) == 1


def test_caches_that_are_used_at_the_same_time_are_two_and_go_with_the_last_stream():
    model = toy_backbone().language_model
    sink = model.embed(toy_backbone().prompt.preamble_ids())
    caches = prefill_caches(model, sink)
    with caches.empty(len(sink) + 8) as one, caches.empty(len(sink) + 8) as other:
        assert one is not other
    assert len(caches._idle) == 2
    with caches.empty(1000) as larger:
        assert larger.capacity >= 1000
    del caches, one, other, larger
    gc.collect()
    again = prefill_caches(model, sink)
    assert isinstance(again, PrefillCaches) and not again._idle
