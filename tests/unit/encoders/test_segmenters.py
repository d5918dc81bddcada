"""Segments hold every frame once and in order, whatever the batches are; scenes begin where
expected.

The expected scenes are those of the recipe's four streams. Random streams come from fixed seeds,
and the hypothesis tests state exact laws, so no draw can make them flake.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from encoders.schema import Frames, Segmenter, join_frames
from encoders.segmenters import FixedWindow, SceneCuts, depths


class RowsByTime:
    """An embedder that knows the row of each time beforehand, and which frames it was shown."""

    def __init__(self, times: np.ndarray, rows: np.ndarray) -> None:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._rows = dict(zip(times.tolist(), torch.tensor(unit, dtype=torch.float32), strict=True))

    def embed_frames(self, frames: Frames) -> Tensor:
        return torch.stack([self._rows[time] for time in frames.times.tolist()])

    def embed_text(self, text: str) -> Tensor:
        raise NotImplementedError


def stream(times: Sequence[float]) -> Frames:
    """Frames whose one pixel is their number."""
    numbers = np.arange(len(times))
    pixels = (
        np.stack([numbers % 256, numbers // 256, 0 * numbers], axis=1)
        .astype(np.uint8)
        .reshape(-1, 1, 1, 3)
    )
    return Frames("video", pixels, np.array(times, dtype=np.float64))


def batches(frames: Frames, sizes: Sequence[int]) -> Iterator[Frames]:
    """The frames in batches of these sizes, over and over."""
    first, turn = 0, 0
    while first < len(frames):
        yield frames.part(first, first + sizes[turn % len(sizes)])
        first, turn = first + sizes[turn % len(sizes)], turn + 1


def starts(segments: Sequence[Frames]) -> list[float]:
    return [float(segment.times[0]) for segment in segments]


def assert_same(one: Sequence[Frames], other: Sequence[Frames]) -> None:
    assert starts(one) == starts(other)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.times, b.times)
        assert np.array_equal(a.pixels, b.pixels)


def scenes(
    noise: float, frames_per_scene: int = 40, count: int = 6, seed: int = 0
) -> tuple[Frames, SceneCuts]:
    """Scene vectors of unit variance in each dimension, plus noise for each frame, at one frame a
    second.
    """
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(count, 64)), frames_per_scene, axis=0)
    rows = centres + noise * rng.normal(size=centres.shape)
    frames = stream(np.arange(len(rows), dtype=float).tolist())
    return frames, SceneCuts(RowsByTime(frames.times, rows), max_seconds=1000.0)


# -- fixed windows


def test_windows_follow_the_grid() -> None:
    frames = stream([0.0, 3.9, 4.0, 7.99, 8.0, 21.0, 25.0])  # nothing between 12 and 20 s
    cut = list(FixedWindow(4.0).segments(batches(frames, [3])))
    assert [segment.times.tolist() for segment in cut] == [
        [0.0, 3.9],
        [4.0, 7.99],
        [8.0],
        [21.0],
        [25.0],
    ]


def test_windows_are_not_fooled_by_rounding() -> None:
    frames = stream([i / 10 for i in range(100)])
    assert [len(segment) for segment in FixedWindow(0.1).segments(batches(frames, [16]))] == [
        1
    ] * 100


TIMES = st.lists(st.floats(0.01, 20.0), min_size=1, max_size=80).map(
    lambda steps: np.cumsum(steps).tolist()
)
SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(TIMES, SIZES, st.floats(0.5, 30.0))
def test_windows_lose_and_double_nothing(
    times: list[float], sizes: list[int], seconds: float
) -> None:
    frames = stream(times)
    cut = list(FixedWindow(seconds).segments(batches(frames, sizes)))
    assert np.array_equal(join_frames(cut).times, frames.times)
    assert np.array_equal(join_frames(cut).pixels, frames.pixels)
    assert_same(cut, list(FixedWindow(seconds).segments(iter([frames]))))
    for number, segment in enumerate(cut):  # resumed at any segment, with nothing before it
        rest = frames.part(int(np.searchsorted(frames.times, segment.times[0])), len(frames))
        assert_same(list(FixedWindow(seconds).segments(batches(rest, sizes))), cut[number:])


def test_nothing_in_nothing_out() -> None:
    embedder = RowsByTime(np.zeros(0), np.zeros((0, 4)))
    segmenters: list[Segmenter] = [FixedWindow(), SceneCuts(embedder)]
    for segmenter in segmenters:
        assert list(segmenter.segments(iter([]))) == []


# -- scenes: the four streams


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_scenes_with_little_noise_are_cut_exactly(noise: float) -> None:
    frames, cutter = scenes(noise)
    cut = list(cutter.segments(batches(frames, [16])))
    assert starts(cut) == [0.0, 40.0, 80.0, 120.0, 160.0, 200.0]


def test_much_noise_makes_no_cuts_during_warm_up() -> None:
    frames, cutter = scenes(0.6)
    cut = starts(list(cutter.segments(batches(frames, [16]))))
    assert {40.0, 80.0, 120.0, 160.0, 200.0} <= set(cut)
    assert not [start for start in cut if 0 < start <= 16]
    eager = SceneCuts(cutter.embedder, max_seconds=1000.0, warm_up=1)
    early = [
        start for start in starts(list(eager.segments(batches(frames, [16])))) if 0 < start <= 16
    ]
    assert early  # the warm-up is what prevents them


@pytest.mark.parametrize("drift", [0.0, 0.01])
def test_still_and_drifting_streams_are_only_cut_at_the_longest(drift: float) -> None:
    angle = np.arange(200) * drift
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    frames = stream(np.arange(200, dtype=float).tolist())
    cut = list(SceneCuts(RowsByTime(frames.times, rows)).segments(batches(frames, [16])))
    assert [len(segment) for segment in cut] == [32] * 6 + [8]


def test_a_cut_comes_three_frames_after_it_happened() -> None:
    frames, cutter = scenes(0.1)
    fed: list[float] = []

    def one_by_one() -> Iterator[Frames]:
        for run in batches(frames, [1]):
            fed.append(float(run.times[0]))
            yield run

    cut = cutter.segments(one_by_one())
    next(cut)
    assert fed[-1] == 42.0  # the last frame of the old scene is 39
    next(cut)
    assert fed[-1] == 82.0


# -- scenes: laws


def test_lengths_stay_within_their_bounds() -> None:
    rng = np.random.default_rng(5)
    frames = stream(np.cumsum(rng.uniform(0.1, 3.0, 400)).tolist())
    rows = np.repeat(rng.normal(size=(100, 16)), 4, axis=0) + 0.1 * rng.normal(size=(400, 16))
    cut = list(
        SceneCuts(RowsByTime(frames.times, rows), max_seconds=12.0).segments(batches(frames, [16]))
    )
    ends = [*starts(cut)[1:], float(frames.times[-1])]
    assert max(float(segment.times[-1] - segment.times[0]) for segment in cut) < 12.0
    assert min(end - start for start, end in list(zip(starts(cut), ends, strict=True))[:-1]) >= 2.0


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), SIZES, st.floats(0.05, 1.0))
def test_scenes_lose_and_double_nothing(
    seed: int, count: int, sizes: list[int], noise: float
) -> None:
    rng = np.random.default_rng(seed)
    frames = stream(np.cumsum(rng.uniform(0.2, 1.5, count)).tolist())
    lengths = rng.integers(1, 30, count)
    rows = np.repeat(rng.normal(size=(count, 8)), lengths, axis=0)[:count] + noise * rng.normal(
        size=(count, 8)
    )
    cutter = SceneCuts(RowsByTime(frames.times, rows), memory=40)
    cut = list(cutter.segments(batches(frames, sizes)))
    assert np.array_equal(join_frames(cut).times, frames.times)
    assert np.array_equal(join_frames(cut).pixels, frames.pixels)
    assert_same(cut, list(cutter.segments(iter([frames]))))
    # resumed at a segment, with `look_back` frames before it and no more
    for number in range(0, len(cut), 3):
        begin = int(np.searchsorted(frames.times, cut[number].times[0]))
        rest = frames.part(max(0, begin - cutter.look_back), len(frames))
        assert_same(
            list(cutter.segments(batches(rest, sizes), after=starts(cut)[number])), cut[number:]
        )


def test_resuming_without_looking_back_would_differ() -> None:
    frames, cutter = scenes(0.3, frames_per_scene=12, count=10)
    cut = list(cutter.segments(batches(frames, [16])))
    blind = frames.part(int(cut[2].times[0]), len(frames))
    assert starts(list(cutter.segments(batches(blind, [16])))) != starts(cut[2:])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_depths_are_what_walking_up_both_slopes_gives(steps: list[int]) -> None:
    alike = np.array(steps, dtype=float)  # small whole numbers: ties are frequent
    for i, value in enumerate(alike):
        left = right = i
        while left > 0 and alike[left - 1] >= alike[left]:
            left -= 1
        while right < len(alike) - 1 and alike[right + 1] >= alike[right]:
            right += 1
        assert depths(alike)[i] == alike[left] + alike[right] - 2 * value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lag": 0}, "lag=0"),
        ({"memory": 10}, "memory=10"),
        ({"min_seconds": 40.0}, "min_seconds=40"),
    ],
)
def test_wrong_values_are_refused(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SceneCuts(RowsByTime(np.zeros(0), np.zeros((0, 4))), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds=0"):
        FixedWindow(0.0)
