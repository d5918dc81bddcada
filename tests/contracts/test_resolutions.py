"""The contract of every resolution that has a YAML file, and what each promises beyond it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from encoders.compression.frame_pooling import pooled_counts
from encoders.errors import UserError
from encoders.schema import VisualTokens
from memory.resolution.context_token import ContextToken
from memory.resolution.high_low import HighLow
from memory.resolution.per_segment import PerSegment
from memory.resolution.progressive import Progressive
from memory.resolution.round_decay import RoundDecay
from memory.resolution.schema import Candidates, Resolution
from memory.resolution.uniform_resolution import UniformResolution
from memory.schema import Question
from tests.support.banks import opened, ordinals, spent
from tests.support.paths import CONF
from tests.support.records import DIM, make_video, write_video

FILES = {
    path.stem: instantiate(OmegaConf.load(path))
    for path in sorted((CONF / "resolution").glob("*.yaml"))
}
VARIED: dict[str, Resolution] = FILES | {
    "ratio 4": UniformResolution(4),
    "ratio 16": UniformResolution(16),
    "low alone": HighLow(ratio=4, low_share=1.0),
    "age": Progressive(by="age"),
    "one segment": PerSegment(focus=1, context_share=0.0),
}


def candidates(
    tokens: list[int], ranking: list[int], segment: int = 4, kept: int = 0
) -> Candidates:
    """Frames one second apart, in segments of so many frames."""
    places = np.arange(len(tokens))
    ages = float(len(tokens) - 1) - places
    return Candidates(np.array(tokens, np.int64), ranking, places // segment, ages, kept)


def total(frames: Candidates, ratios: dict[int, int]) -> int:
    return sum(int(pooled_counts(frames.tokens[place], each)) for place, each in ratios.items())


def test_there_are_resolutions() -> None:
    names = {"uniform", "high_low", "per_segment", "progressive", "round_decay", "context_token"}
    assert set(FILES) == names
    assert FILES["uniform"].is_whole  # the default changes nothing


@pytest.mark.parametrize("name", VARIED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_contract(name: str, data: st.DataObject) -> None:
    """Within the budget, ranked frames alone, ratios up to the coarsest, something wherever a frame
    fits, everything whole where all fit."""
    tokens = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=30))
    ranking = data.draw(st.permutations(range(len(tokens))))
    ranking = ranking[: data.draw(st.integers(1, len(tokens)))]
    budget = data.draw(st.integers(0, 1 + sum(tokens)))
    kept = data.draw(st.integers(0, len(ranking)))
    resolution, frames = VARIED[name], candidates(tokens, ranking, kept=kept)
    ratios = resolution.ratios(frames, budget)
    assert total(frames, ratios) <= budget
    assert set(ratios) <= set(ranking)
    assert all(1 <= ratio <= resolution.coarsest <= 16 for ratio in ratios.values())
    least = pooled_counts(frames.tokens[list(ranking)], resolution.coarsest)
    assert bool(ratios) == (budget >= least.min())
    takes_all = not isinstance(resolution, UniformResolution | RoundDecay)
    if takes_all and frames.tokens[ranking].sum() <= budget:
        assert ratios == dict.fromkeys(ranking, 1)
    assert ratios == resolution.ratios(frames, budget)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_ratio_of_one_is_the_plain_choice(data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=20))
    frames = candidates(tokens, data.draw(st.permutations(range(len(tokens)))))
    budget = data.draw(st.integers(0, sum(tokens)))
    plain = UniformResolution().ratios(frames, budget)
    assert HighLow(ratio=1).ratios(frames, budget) == plain
    assert RoundDecay(coarsest=1).ratios(frames, budget) == plain
    assert HighLow(ratio=1).is_whole and Progressive(growth=1).is_whole


def test_few_whole_and_many_low_frames() -> None:
    """64 frames of 16 tokens in 160: all low are 64 tokens, so k = (160 - 64) / (16 - 1)."""
    frames = candidates([16] * 64, list(range(63, -1, -1)))
    ratios = HighLow(ratio=16, low_share=1.0).ratios(frames, 160)
    assert [place for place, ratio in ratios.items() if ratio == 1] == [63, 62, 61, 60, 59, 58]
    assert len(ratios) == 64 and total(frames, ratios) == 160  # the rest makes one of them finer
    few = HighLow(ratio=16, low_share=0.25).ratios(frames, 160)
    assert sum(ratio == 1 for ratio in few.values()) == 7 and len(few) == 7 + 40 + 8


@pytest.mark.parametrize("by", ["rank", "age"])
def test_tokens_never_rise_along_the_order(by: str) -> None:
    ranking = [3, 40, 7, 90, *sorted(set(range(100)) - {3, 40, 7, 90})]
    frames = candidates([16] * 100, ranking)
    order = ranking if by == "rank" else list(range(99, -1, -1))
    ratios = Progressive(by=by).ratios(frames, 200)
    read = [ratios[place] for place in order if place in ratios]
    assert read == sorted(read) and set(read) == {1, 2, 4, 8, 16}
    assert list(order[: len(read)]) == [place for place in order if place in ratios]
    # each step holds twice the frames of the one before, up to what does not divide
    assert [read.count(ratio) for ratio in (1, 2, 4, 8)] == [2, 6, 10, 20]


def test_the_best_segment_gets_most_tokens_and_budgets_add_up() -> None:
    """Ten segments of four frames; the planted one is segment 6."""
    planted = [26, 24, 25, 27]
    frames = candidates([16] * 40, [*planted, *(p for p in range(40) if p not in planted)])
    resolution = PerSegment(focus=3, context_share=0.25)
    assert sum(resolution.shares(10)) == pytest.approx(1)
    assert resolution.shares(10)[0] == max(resolution.shares(10))
    ratios = resolution.ratios(frames, 128)
    tokens = [
        total(frames, {p: r for p, r in ratios.items() if p // 4 == segment})
        for segment in range(10)
    ]
    assert tokens[6] == max(tokens) and tokens.count(max(tokens)) == 1
    assert len(ratios) == 40 and 120 <= sum(tokens) <= 128  # every segment is seen


@pytest.mark.parametrize("count", range(1, 30))
def test_older_rounds_are_coarser_and_the_newest_stays(count: int) -> None:
    """Frames 0 to count - 1 are of earlier rounds; a quarter of 320 tokens is for them."""
    frames = candidates([16] * 60, list(range(60)), kept=count)
    ratios = RoundDecay(history_share=0.25).ratios(frames, 320)
    history = [ratios[place] for place in range(count) if place in ratios]
    assert history[0] == 1 and history == sorted(history)
    tokens = sum(max(1, 16 // ratio) for ratio in history)
    assert tokens <= 80 and (count > 5 or history == [1] * count)
    assert len(history) == count  # 30 frames are 16 + 29 tokens at the coarsest
    assert {ratio for place, ratio in ratios.items() if place >= count} == {1}
    assert total(frames, ratios) <= 320


@pytest.mark.parametrize("name", VARIED)
def test_a_bank_reads_each_frame_at_its_ratio(tmp_path: Path, name: str) -> None:
    video = make_video(segments=6, tokens=[16, 16, 12, 8])
    # words that look at nothing: every token weighs as much as the others
    options = {"resolution": VARIED[name], "words": lambda text: torch.zeros(2, DIM)}
    with opened(tmp_path / "bank", **options) as bank:
        write_video(bank, video)
        for budget in (20, 33, 70, 10_000):
            question = Question("needle", "v", asked_at=18.5)
            got = bank.recall(question, read_tokens=budget, kv=False)
            assert spent(got) <= budget
            assert ordinals(got) == sorted(set(ordinals(got)))
            assert max(ordinals(got)) == 18 and got.recent >= 1
            for run in got.runs:
                stored = video[run.segment].tokens.frames(run.first % 4, run.first % 4 + 1)
                assert run.tokens.times.tolist() == stored.times.tolist()
                assert len(run.tokens.tokens) == max(1, len(stored.tokens) // run.ratio)
                whole = run.tokens.tokens.float().mean(0) - stored.tokens.float().mean(0)
                assert run.ratio == 1 or len(stored.tokens) % run.ratio or whole.abs().max() < 0.02
        if not VARIED[name].is_whole:
            with pytest.raises(UserError, match="reader=tokens"):
                bank.recall(question, read_tokens=99)


def test_one_question_may_have_a_resolution_of_its_own(tmp_path: Path) -> None:
    """The same bank read at 1x and at 16x: tokens in proportion, and more frames in the same
    budget."""
    video = make_video(segments=6, tokens=[16] * 4)
    with opened(tmp_path / "bank", recent_frames=0) as bank:
        write_video(bank, video)
        spans = {"v": ((3.6, 8.4),)}
        tokens, frames = [], []
        for ratio in (1, 2, 4, 8, 16):
            asked = Question("needle", "v", spans=spans, resolution=UniformResolution(ratio))
            got = bank.recall(asked, read_tokens=96, kv=False)
            tokens.append(spent(got))
            wide = Question("needle", "v", resolution=UniformResolution(ratio))
            frames.append(bank.recall(wide, read_tokens=24, kv=False).frame_count)
        assert tokens == [96, 48, 24, 12, 6]
        assert frames == [1, 3, 6, 12, 24]


@pytest.mark.parametrize("beta", [0.0, 1e4])
def test_a_context_token_is_what_the_words_look_at(beta: float) -> None:
    """Of a frame, its mean, and behind a sharp choice the token that is asked for."""
    tokens = torch.randn(16, DIM, generator=torch.Generator().manual_seed(0))
    pos = torch.cartesian_prod(torch.arange(1), torch.arange(4), torch.arange(4)).int()
    times = torch.zeros(1, dtype=torch.float64)
    frame = VisualTokens(tokens, pos, torch.tensor([0, 16]), times)
    got = ContextToken(beta=beta).read(frame, 8, tokens[12:13])
    assert got.offsets.tolist() == [0, 2] and len(got.pos.unique(dim=0)) == 2
    content, context = got.tokens  # the mean stands at place 5, what is asked for at 12
    torch.testing.assert_close(content, tokens.mean(0))
    torch.testing.assert_close(context, tokens[12] if beta else tokens.mean(0))
    assert got.pos[1].tolist() == ([0, 3, 0] if beta else [0, 1, 1])
    assert ContextToken(beta=beta).read(frame, 16, tokens).offsets.tolist() == [0, 1]


def test_a_context_token_needs_words(tmp_path: Path) -> None:
    with opened(tmp_path / "bank", resolution=ContextToken()) as bank:
        write_video(bank, make_video(segments=3, tokens=[16] * 4))
        with pytest.raises(UserError, match="needs the words of a model"):
            bank.recall(Question("needle", "v"), read_tokens=24, kv=False)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: UniformResolution(0),
        lambda: UniformResolution(17),
        lambda: HighLow(low_share=1.5),
        lambda: Progressive(by="size"),
        lambda: PerSegment(focus=0),
        lambda: ContextToken(beta=-1.0),
    ],
)
def test_values_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"=\S+( is|: )"):
        wrong()
