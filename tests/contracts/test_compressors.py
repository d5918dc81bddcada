"""The contract of every compressor that has a YAML file, and what each promises beyond it."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from encoders.compression.spatial_pool import SpatialPool
from encoders.compression.temporal_pool import TemporalPool
from encoders.compression.token_sample import TokenSample
from encoders.compressors import (
    Chain,
    FrameDiff,
    Merge,
    NoCompression,
    Pool,
    Shrink,
    TokenMerging,
    merged_tokens,
    near_duplicates,
)
from encoders.schema import Compressor, VisualTokens, join_tokens
from tests.support.paths import CONF

FILES = sorted((CONF / "compressor").glob("*.yaml"))
every = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def build(path: Path) -> Compressor:
    made: Compressor = instantiate(OmegaConf.load(path))
    return made


def seen(
    frames: int = 5, high: int = 9, wide: int = 12, *, change: float = 1.0, seed: int = 0
) -> VisualTokens:
    """Tokens on a full grid. In each frame after the first, about a third of them change by this
    share.
    """
    make = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, high * wide, 16, generator=make).repeat(frames, 1, 1)
    for t in range(1, frames):
        moved = torch.rand(high * wide, 1, generator=make) < 0.3
        tokens[t] = tokens[t - 1] * (1 + change * moved)
    pos = torch.cartesian_prod(torch.arange(frames), torch.arange(high), torch.arange(wide)).int()
    offsets = torch.arange(frames + 1) * (high * wide)
    return VisualTokens(
        tokens.reshape(-1, 16), pos, offsets, 10.0 + torch.arange(frames, dtype=torch.float64)
    )


def test_there_are_compressors() -> None:
    assert {path.stem for path in FILES} >= {"none", "pool", "framediff", "chain"}


@every
@pytest.mark.parametrize("change", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("shape", [(5, 9, 12), (1, 7, 7), (3, 1, 4), (2, 16, 16)])
def test_contract(path: Path, change: float, shape: tuple[int, int, int]) -> None:
    given = seen(*shape, change=change)
    copy = given.tokens.clone()
    got = build(path)(given)
    assert torch.equal(given.tokens, copy)  # records are never written to
    assert got.tokens.dtype == given.tokens.dtype
    assert got.pos.dtype == torch.int32
    assert got.offsets.dtype == torch.int64
    assert torch.equal(got.times, given.times)
    assert len(got.offsets) == len(given.offsets)
    assert int(got.offsets[0]) == 0
    assert int(got.offsets[-1]) == len(got.tokens) == len(got.pos) <= len(given.tokens)
    assert bool((got.offsets.diff() >= 1).all())  # never empty
    for t, (first, stop) in enumerate(got.ranges()):
        assert bool((got.pos[first:stop, 0] == t).all())  # pos and offsets agree about the frame
    places = [tuple(place) for place in got.pos.tolist()]
    assert places == sorted(set(places))  # order kept, no place twice
    assert set(places) <= {tuple(place) for place in given.pos.tolist()}


@every
def test_a_segment_does_not_see_its_neighbour(path: Path) -> None:
    given = seen(6)
    part = build(path)(given.frames(3, 6))
    assert torch.equal(part.tokens[: int(part.offsets[1])], build(path)(given.frames(3, 4)).tokens)


@every
def test_half_precision(path: Path) -> None:
    given = seen()
    half = VisualTokens(given.tokens.bfloat16(), given.pos, given.offsets, given.times)
    assert build(path)(half).tokens.dtype == torch.bfloat16


def test_none_is_nothing() -> None:
    given = seen()
    assert NoCompression()(given) is given


@pytest.mark.parametrize(("high", "wide", "size"), [(8, 8, 4), (9, 12, 7), (6, 5, 1), (3, 10, 4)])
def test_pool_averages_cells_and_stands_in_their_middle(high: int, wide: int, size: int) -> None:
    given = seen(2, high, wide)
    got = Pool(size)(given)
    rows, columns = min(size, high), min(size, wide)
    grid = given.tokens.reshape(2, high, wide, -1)
    number = 0
    for t in range(2):
        for i in range(rows):
            for j in range(columns):
                a, b = i * high // rows, -(-(i + 1) * high // rows)
                c, d = j * wide // columns, -(-(j + 1) * wide // columns)
                torch.testing.assert_close(got.tokens[number], grid[t, a:b, c:d].mean(dim=(0, 1)))
                assert got.pos[number].tolist() == [t, (a + b - 1) // 2, (c + d - 1) // 2]
                number += 1
    assert number == len(got.tokens)


def test_pool_can_follow_pool_but_not_framediff() -> None:
    given = seen(3, 8, 8)
    torch.testing.assert_close(Chain([Pool(4), Pool(2)])(given).tokens, Pool(2)(given).tokens)
    with pytest.raises(ValueError, match="do not fill a grid"):
        Chain([FrameDiff(0.1), Pool(2)])(given)
    swapped = VisualTokens(given.tokens, given.pos.flip(0), given.offsets, given.times)
    with pytest.raises(ValueError, match="do not fill a grid"):
        Pool(2)(swapped)


def test_framediff_keeps_what_changed() -> None:
    given = seen(4, change=0.5)
    got = FrameDiff(0.1)(given)
    assert got.frames(0, 1).tokens.equal(given.frames(0, 1).tokens)  # first frame whole
    grid = given.tokens.reshape(4, 108, -1)
    wanted = torch.ones(4, 108, dtype=torch.bool)
    wanted[1:] = (grid[1:] - grid[:-1]).norm(dim=2) > 0.1 * grid[:-1].norm(dim=2)
    assert 0 < int(wanted[1:].sum()) < 3 * 108
    assert torch.equal(got.tokens, given.tokens[wanted.reshape(-1)])
    assert torch.equal(got.pos, given.pos[wanted.reshape(-1)])


def test_framediff_is_a_share_of_the_token() -> None:
    given = seen(4, change=0.5)
    loud = VisualTokens(given.tokens * 1000, given.pos, given.offsets, given.times)
    assert torch.equal(FrameDiff(0.1)(loud).pos, FrameDiff(0.1)(given).pos)
    assert len(FrameDiff(0.49)(given).tokens) > len(FrameDiff(0.51)(given).tokens)


def test_a_still_frame_keeps_its_most_changed_token() -> None:
    given = seen(3, change=0.0)
    tokens = given.tokens.clone()
    tokens[2 * 108 + 50] *= 1.01
    got = FrameDiff(0.1)(VisualTokens(tokens, given.pos, given.offsets, given.times))
    assert got.offsets.tolist() == [0, 108, 109, 110]
    assert got.pos[-1].tolist() == given.pos[2 * 108 + 50].tolist()


def test_framediff_keeps_what_it_cannot_compare() -> None:
    given = seen(2, change=0.0)
    mask = torch.ones(216, dtype=torch.bool)
    mask[7] = False  # the place of token 108 + 7 is empty one frame before
    got = FrameDiff(0.1)(given.keep(mask))
    assert got.offsets.tolist() == [0, 107, 108]
    assert got.pos[-1].tolist() == given.pos[108 + 7].tolist()


@pytest.mark.parametrize(
    ("high", "wide", "by", "size"),
    [(4, 4, 2, (2, 2)), (9, 12, 2, (5, 6)), (1, 4, 3, (1, 2)), (3, 3, 5, (1, 1))],
)
def test_shrink_divides_any_grid(high: int, wide: int, by: int, size: tuple[int, int]) -> None:
    given = seen(2, high, wide)
    got = Shrink(by)(given)
    assert got.offsets.tolist() == [0, size[0] * size[1], 2 * size[0] * size[1]]
    if high == wide:
        torch.testing.assert_close(got.tokens, Pool(size[0])(given).tokens)


def still(frames: int, scenes: list[int]) -> VisualTokens:
    """Frames of 2 x 3 tokens. A new scene begins at each of these frames, and within a scene little
    changes.
    """
    make = torch.Generator().manual_seed(0)
    tokens, now = [], torch.zeros(6, 16)
    for t in range(frames):
        now = torch.randn(6, 16, generator=make) if t in scenes else now
        tokens.append(now + 0.01 * torch.randn(6, 16, generator=make))
    pos = torch.cartesian_prod(torch.arange(frames), torch.arange(2), torch.arange(3)).int()
    return VisualTokens(
        torch.cat(tokens),
        pos,
        torch.arange(frames + 1) * 6,
        torch.arange(frames, dtype=torch.float64),
    )


def test_merge_keeps_one_mean_token_of_a_near_duplicate() -> None:
    given = still(7, [0, 3, 4])
    got = Merge(0.95)(given)
    assert got.repeats is not None and got.repeats.tolist() == [
        False,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert got.representatives.tolist() == [0, 0, 0, 3, 4, 4, 4]
    assert got.offsets.tolist() == [0, 6, 7, 8, 14, 20, 21, 22]
    torch.testing.assert_close(got.tokens[7], given.tokens[12:18].mean(0))
    assert got.pos[7].tolist() == [2, 0, 2]  # the middle one of its tokens
    # frames that are none stay whole
    assert torch.equal(got.frames(3, 4).tokens, given.frames(3, 4).tokens)
    assert torch.equal(got.times, given.times)
    part = got.frames(1, 5)
    assert part.repeats is not None and part.repeats.tolist() == [True, True, False, False]
    again = join_tokens([got.frames(0, 3), given.frames(3, 4), got.frames(4, 7)])
    assert again.repeats is not None and torch.equal(again.repeats, got.repeats)
    assert join_tokens([given, given]).repeats is None


def test_merge_looks_at_the_last_frame_that_stayed() -> None:
    """Slow drift: each frame is like the one before it, and not like the one at the beginning."""
    angle = torch.arange(20) * 0.1
    features = torch.stack([angle.cos(), angle.sin()], dim=1)
    found = near_duplicates(features, 0.95)  # 0.95 is 0.318 radians
    assert found.tolist() == [t % 4 != 0 for t in range(20)]


@pytest.mark.parametrize("count", [1, 5, 40, 90, 108])
def test_token_merging_keeps_the_sum_and_the_places(count: int) -> None:
    """Sizes times tokens add up to the frame, whatever is merged; all kept is the frame itself."""
    given = seen(1).tokens
    own, places, sizes = merged_tokens(given, count)
    assert own.shape == (count, 16) and int(sizes.sum()) == 108
    assert torch.equal(places, places.unique())
    torch.testing.assert_close((own * sizes[:, None]).sum(0), given.sum(0), atol=1e-4, rtol=1e-4)
    alone = sizes == 1
    assert torch.equal(own[alone], given[places[alone]])
    if count == 108:
        assert torch.equal(own, given)


def test_token_merging_merges_what_is_alike_first() -> None:
    """Four directions, each of three tokens of one length: four tokens are left, one of each."""
    base = torch.eye(4, 16).repeat_interleave(3, 0)
    own, _, sizes = merged_tokens(base, 4)
    assert sorted(own.argmax(1).tolist()) == [0, 1, 2, 3] and sizes.tolist() == [3.0] * 4
    assert torch.allclose(own.norm(dim=1), torch.ones(4))
    got = TokenMerging(0.25)(seen(3))
    assert got.offsets.diff().tolist() == [27, 27, 27]


@pytest.mark.parametrize("kind", [TokenSample, TemporalPool, SpatialPool])
@pytest.mark.parametrize(("ratio", "high", "wide"), [(1, 9, 12), (2, 4, 4), (4, 4, 4), (9, 9, 12)])
def test_a_ratio_leaves_its_share_of_the_tokens(
    kind: type, ratio: int, high: int, wide: int
) -> None:
    given = seen(2 * ratio, high, wide)
    got = kind(ratio)(given)
    assert len(got.tokens) == -(-len(given.tokens) // ratio)
    assert got.offsets.diff().unique().tolist() == [-(-high * wide // ratio)]
    assert torch.equal(got.times, given.times)
    if ratio == 1:
        assert got is given


def test_a_ratio_that_does_not_divide_is_rounded_up_by_frame_or_over_frames() -> None:
    given = seen(5, 7, 7)
    assert SpatialPool(5)(given).offsets.diff().tolist() == [10] * 5
    assert len(TokenSample(5)(given).tokens) == len(TemporalPool(5)(given).tokens) == 49
    assert TokenSample(60)(seen(60, 7, 7)).offsets.diff().tolist() == [1] * 60


def test_a_still_picture_is_whole_after_as_many_frames_as_the_ratio() -> None:
    given = seen(4, change=0.0)
    for kind in (TokenSample, TemporalPool):
        got = kind(4)(given)
        places = {tuple(place) for place in got.pos[:, 1:].tolist()}
        assert len(got.tokens) == len(places) == 108
        torch.testing.assert_close(got.tokens, given.tokens[got.pos[:, 1] * 12 + got.pos[:, 2]])


def test_a_temporal_mean_is_of_its_place_and_of_no_later_frame() -> None:
    given = seen(8)
    got = TemporalPool(3)(given)
    grid = given.tokens.reshape(8, 108, -1)
    for token, (t, row, column) in zip(got.tokens, got.pos.tolist(), strict=True):
        own = grid[max(0, t - 2) : t + 1, row * 12 + column].mean(0)
        torch.testing.assert_close(token, own)
    part = TemporalPool(3)(given.frames(0, 5))
    assert torch.equal(part.tokens, got.frames(0, 5).tokens)
    with pytest.raises(ValueError, match="do not fill a grid"):
        TemporalPool(2)(FrameDiff(0.1)(given))


def test_framediff_compares_with_the_frame_that_was_repeated() -> None:
    given = still(4, [0])
    tokens = given.tokens.clone()
    tokens[3 * 6 + 1] *= -20.0  # the last frame is no repeat, and one of its tokens changed
    got = FrameDiff(0.3)(Merge(0.95)(VisualTokens(tokens, given.pos, given.offsets, given.times)))
    assert got.offsets.tolist() == [0, 6, 7, 8, 9] and got.pos[-1].tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pool(0), "size=0"),
        (lambda: FrameDiff(0.0), "threshold=0"),
        (lambda: FrameDiff(float("nan")), "threshold=nan"),
        (lambda: Chain([]), "at least one"),
        (lambda: Shrink(0), "by=0"),
        (lambda: Merge(0.0), "threshold=0"),
        (lambda: Merge(1.01), "threshold=1.01"),
        (lambda: Merge(float("nan")), "threshold=nan"),
        (lambda: TokenSample(0), "ratio=0"),
        (lambda: TemporalPool(0), "ratio=0"),
        (lambda: SpatialPool(0), "ratio=0"),
        (lambda: TokenMerging(0.0), "keep=0.0"),
        (lambda: TokenMerging(1.5), "keep=1.5"),
    ],
)
def test_wrong_values_are_refused(make: type, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
