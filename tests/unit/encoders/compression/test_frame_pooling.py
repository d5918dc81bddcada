"""Frames at a lower resolution: exact means, honest places, as many tokens as the ratio allows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from encoders.compression.frame_pooling import pooled, pooled_bands, pooled_counts
from encoders.compressors import FrameDiff, Shrink
from encoders.schema import VisualTokens
from tests.support.records import same


def grid(frames: int, high: int, wide: int) -> VisualTokens:
    make = torch.Generator().manual_seed(high * 100 + wide)
    tokens = torch.randn(frames * high * wide, 8, generator=make)
    pos = torch.cartesian_prod(torch.arange(frames), torch.arange(high), torch.arange(wide)).int()
    offsets = torch.arange(frames + 1) * (high * wide)
    return VisualTokens(tokens, pos, offsets, 3.0 + torch.arange(frames, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 7, 8, 16])
@pytest.mark.parametrize("shape", [(4, 4), (7, 7), (14, 14), (1, 9), (27, 3), (9, 16), (1, 1)])
def test_a_ratio_sets_the_tokens(shape: tuple[int, int], ratio: int) -> None:
    visual = grid(2, *shape)
    got = pooled(visual, ratio)
    counts = got.offsets.diff()
    most = int(pooled_counts(np.array(shape[0] * shape[1]), ratio))
    assert most == max(1, shape[0] * shape[1] // ratio)
    assert counts.tolist() == [most, most]
    assert got.times.tolist() == visual.times.tolist()
    places = got.pos.tolist()
    assert places == sorted(places) and len({*map(tuple, places)}) == len(places)
    assert {*map(tuple, places)} <= {*map(tuple, visual.pos.tolist())}


def test_ratio_one_is_the_record_itself() -> None:
    visual = grid(3, 4, 4)
    assert pooled(visual, 1) is visual


@pytest.mark.parametrize(("by", "shape"), [(2, (14, 14)), (2, (4, 6)), (4, (16, 16)), (4, (4, 8))])
def test_square_ratios_average_as_the_published_model_does(by: int, shape: tuple[int, int]) -> None:
    """Oryx averages cells of 2 x 2 or 4 x 4; `compressor=shrink` does so when frames are stored."""
    visual = grid(2, *shape)
    got = pooled(visual, by * by)
    columns = shape[1] // by
    assert set(pooled_bands(*shape, columns * shape[0] // by)) == {columns}
    pictures = visual.tokens.reshape(2, *shape, 8).permute(0, 3, 1, 2)
    means = avg_pool2d(pictures, by).permute(0, 2, 3, 1).reshape(-1, 8)
    assert torch.allclose(got.tokens, means, atol=1e-6)
    assert same(got, Shrink(by)(visual))


def test_frames_that_lost_tokens_are_averaged_in_runs() -> None:
    visual = grid(2, 4, 4)
    thin = visual.keep(torch.arange(32) % 3 != 0)  # 10 and 11 of 16
    got = pooled(thin, 4)
    assert got.offsets.diff().tolist() == [2, 2]
    first = thin.tokens[:10]
    assert torch.allclose(got.tokens[:2], torch.stack([first[:5].mean(0), first[5:].mean(0)]))
    repeats = torch.tensor([False, True])
    marked = replace(FrameDiff(0.1)(visual), repeats=repeats)
    got = pooled(marked, 16)
    assert got.repeats is not None and got.repeats.tolist() == [False, True]
