"""Large indexes: blocks with an inverted file each, searched through the visible frames alone."""

import logging

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from memory.retrieval import ivf_block
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.frame_index import FrameIndex
from memory.retrieval.row_buffer import RamBudget
from memory.schema import Question, SegmentIndex
from memory.storage.checksums import of_bytes
from memory.timeline import Timeline
from tests.support.records import EMBED, Words
from tests.support.retrievers import upto

BLOCK, SWITCH = 512, 1024  # rows
COUNT = 2900  # five blocks and a tail
NEEDLE = Question("needle", "v")


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    """[COUNT, 16] scenes of 40 frames that resemble each other."""
    generator = torch.Generator().manual_seed(3)
    scenes = torch.randn(COUNT // 40 + 1, 16, generator=generator).repeat_interleave(40, 0)[:COUNT]
    return normalize(scenes + 0.3 * torch.randn(COUNT, 16, generator=generator), dim=1)


def index_of(rows: torch.Tensor, step: int | None = None, **options) -> FrameIndex:
    index = FrameIndex(rows.shape[1], block=BLOCK, switch=SWITCH, **options)
    for part in rows.split(step or len(rows)):
        index.add(part)
    return index


def queries(count: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(4))


def found(
    index: FrameIndex, query: torch.Tensor, k: int, visible: int, first: int = 0
) -> tuple[list, list]:
    ordinals, scores = index.search(query, k, visible, first)
    return ordinals.tolist(), scores.tolist()


def test_up_to_the_switch_nothing_is_sealed_and_nothing_is_missed(rows):
    index = index_of(rows[:SWITCH])
    assert not index.is_approximate and index.ivf_blocks == ()
    for query in queries(5):
        truth = (rows[:SWITCH].double() @ query.double()).sort(descending=True, stable=True)
        assert found(index, query, 20, SWITCH)[0] == truth.indices[:20].tolist()


def test_beyond_it_most_is_found_with_exact_scores_in_order(rows):
    index, shares = index_of(rows), []
    assert index.is_approximate and [len(block) for block in index.ivf_blocks] == [BLOCK] * 5
    exact = FrameIndex(16, switch=COUNT)
    exact.add(rows)
    for query in queries(40):
        ordinals, scores = index.search(query, 10, COUNT)
        every, all_scores = exact.search(query, COUNT, COUNT)
        assert scores.tolist() == [
            all_scores[every.tolist().index(ordinal)] for ordinal in ordinals.tolist()
        ]
        assert list(zip(-scores, ordinals, strict=True)) == sorted(
            zip(-scores, ordinals, strict=True)
        )
        shares.append(len(set(ordinals.tolist()) & set(every[:10].tolist())) / 10)
    assert np.mean(shares) > 0.95


def test_of_several_queries_the_nearest_counts(rows):
    index, exact, shares = index_of(rows), FrameIndex(16, switch=COUNT), []
    exact.add(rows)
    for some in queries(40).split(4):
        ordinals, scores = index.search(some, 10, COUNT)
        every, all_scores = exact.search(some, COUNT, COUNT)
        places = [every.tolist().index(ordinal) for ordinal in ordinals.tolist()]
        assert places == sorted(places) and scores.tolist() == all_scores[places].tolist()
        shares.append(len(set(ordinals.tolist()) & set(every[:10].tolist())) / 10)
    assert np.mean(shares) > 0.95


def test_an_inverted_file_is_asked_beyond_the_switch(rows, monkeypatch):
    """Else the tests above would hold for an index that looks at everything."""
    monkeypatch.setattr(
        ivf_block.IvfBlock,
        "search",
        lambda block, query, k: (np.empty(0, np.int64), np.empty(0, np.float32)),
    )
    index, query = index_of(rows), queries(1)[0]
    assert min(found(index, query, 10, COUNT)[0]) >= 5 * BLOCK  # the tail alone
    assert set(found(index, query, 6, COUNT, first=BLOCK + 7)[0]) <= {
        *range(BLOCK + 7, 2 * BLOCK),
        *range(5 * BLOCK, COUNT),
    }
    every = found(index, query, SWITCH, SWITCH)
    # up to the switch nobody asks it
    assert found(index, query, 10, SWITCH) == (every[0][:10], every[1][:10])


def test_where_lists_name_too_few_all_rows_are_looked_at(rows, monkeypatch):
    index, query = index_of(rows[: 5 * BLOCK]), queries(1)[0]
    truth = found(index, query, 5 * BLOCK, 5 * BLOCK)[0][:8]
    few = np.arange(1), np.zeros(1, np.float32)
    monkeypatch.setattr(ivf_block.IvfBlock, "search", lambda block, query, k: few)
    assert found(index, query, 8, 5 * BLOCK)[0] == truth


@pytest.mark.parametrize("like", [1.0, -1.0])
def test_a_still_scene_is_found(like):
    """Hours of one picture, with another one among them. That one lies in one list, and empty lists
    would rank before it.
    """
    generator = torch.Generator().manual_seed(8)
    rows = normalize(torch.randn(1, 16, generator=generator), dim=1).repeat(4 * 8192, 1)
    rows[::2000] = normalize(torch.randn(17, 16, generator=generator), dim=1)
    index = FrameIndex(16, block=8192, switch=8192)
    index.add(rows)
    ordinals, scores = index.search(like * rows[1], 100, len(rows))
    truth = (like * rows.double() @ rows[1].double()).sort(descending=True).values[:100]
    assert len(ordinals) == 100 and scores == pytest.approx(truth.numpy(), abs=1e-6)
    # by the lists, not by looking at all
    assert len(index.ivf_blocks[0].search((like * rows[1]).numpy(), 100)[0]) == 100


@pytest.mark.parametrize("k", [12, 900, COUNT])
def test_whoever_wants_much_gets_it_exactly(rows, k):
    index, query = index_of(rows), queries(1)[0]
    truth = (rows.double() @ query.double()).sort(descending=True, stable=True).indices[:k]
    assert found(index, query, k, COUNT)[0] == truth.tolist()


@pytest.mark.parametrize(
    ("visible", "first"), [(1300, 0), (2048, 0), (2049, 3), (2560, 700), (2700, 513)]
)
def test_what_comes_later_changes_nothing(rows, visible, first):
    """Law 3, also through centroids: the same with and without what follows, whatever it is."""
    other = torch.cat([rows[:visible], -rows[visible:]])
    for query in queries(5):
        alone = found(index_of(rows[:visible]), query, 4, visible, first)
        assert (
            found(index_of(rows), query, 4, visible, first)
            == alone
            == found(index_of(other), query, 4, visible, first)
        )
        assert all(first <= ordinal < visible for ordinal in alone[0]) and len(alone[0]) == 4


@pytest.mark.parametrize("step", [1, 8, 700])
def test_how_rows_came_changes_nothing(rows, step):
    """Law 8."""
    whole, parts = index_of(rows), index_of(rows, step)
    for query in queries(5):
        assert found(whole, query, 10, COUNT) == found(parts, query, 10, COUNT)


def test_wide_rows_are_found_by_shorter_numbers(rows, tmp_path):
    """Codes take half a byte a number; what is found is scored by the numbers."""
    turn = torch.linalg.qr(torch.randn(512, 512, generator=torch.Generator().manual_seed(6)))[0]
    wide = (
        normalize(
            torch.cat(
                [rows, 0.02 * torch.randn(COUNT, 496, generator=torch.Generator().manual_seed(7))],
                1,
            ),
            dim=1,
        )
        @ turn
    )
    index = index_of(wide)
    assert (
        max(block.nbytes for block in index.ivf_blocks)
        < (512 // 2 + 8) * BLOCK + 4 * 512 * 8 + 4 * 2 * 512 + 10_000
    )
    for query in queries(5):
        asked = torch.cat([query, torch.zeros(496)]) @ turn
        ordinals, scores = index.search(asked, 10, COUNT)
        truth = (wide.double() @ asked.double()).sort(descending=True, stable=True)
        assert ordinals.tolist() == truth.indices[:10].tolist()
        assert scores == pytest.approx(truth.values[:10].numpy(), abs=1e-5)
    ivf_block.save(tmp_path, index.ivf_blocks)
    again = ivf_block.load(tmp_path, index.ivf_blocks[3].key)
    assert (
        again is not None
        and again.rerank_margin == index.ivf_blocks[3].rerank_margin
        and again.packed() == index.ivf_blocks[3].packed()
    )


def test_rows_beyond_the_budget_give_the_same(rows):
    whole, mapped = index_of(rows), index_of(rows, budget=RamBudget(0))
    assert mapped.nbytes < whole.nbytes
    for query in queries(5):
        assert found(whole, query, 10, COUNT) == found(mapped, query, 10, COUNT)
    assert np.array_equal(mapped.part(500, 1100), rows[500:1100].numpy())


def test_a_block_comes_back_from_its_file_or_is_trained_again(rows, tmp_path):
    block = ivf_block.IvfBlock.train(rows[:BLOCK].numpy())
    ivf_block.save(tmp_path, [block])
    (path,) = tmp_path.iterdir()
    again, query = ivf_block.load(tmp_path, block.key), queries(1)[0].numpy()
    assert again is not None and len(again) == BLOCK and again.packed() == block.packed()
    assert [part.tolist() for part in again.search(query, 5)] == [
        part.tolist() for part in block.search(query, 5)
    ]
    assert ivf_block.load(tmp_path, ivf_block.key_of(rows[1 : BLOCK + 1].numpy())) is None
    whole = path.read_bytes()
    for at in (0, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]))
        assert ivf_block.load(tmp_path, block.key) is None
    path.write_bytes(whole[: len(whole) // 2])
    assert ivf_block.load(tmp_path, block.key) is None
    other = ivf_block.IvfBlock.train(rows[BLOCK : 2 * BLOCK].numpy())
    ivf_block.save(tmp_path, [other])
    assert [path.stem for path in tmp_path.iterdir()] == [other.key]


def test_a_block_of_wide_rows_in_an_older_form_is_trained_again(tmp_path):
    """It was named after the rows' checksum alone, as blocks of narrow rows still are."""
    drawn = torch.randn(BLOCK, 160, generator=torch.Generator().manual_seed(5))
    wide = normalize(drawn, dim=1).numpy()
    older = tmp_path / f"{of_bytes(wide.tobytes())}.ivf"
    older.write_bytes(b"projected to 128 numbers")
    block = ivf_block.IvfBlock.train(wide)
    assert block.key != older.stem and ivf_block.load(tmp_path, block.key) is None
    ivf_block.save(tmp_path, [block])
    assert ivf_block.load(tmp_path, block.key) is not None and not older.exists()
    assert ivf_block.key_of(wide[:, :128]) == of_bytes(wide[:, :128].tobytes())


def test_the_retriever_keeps_blocks_and_says_when_a_video_passes(tmp_path, monkeypatch, caplog):
    """The real switch with narrow rows; loaded again, nothing is trained."""
    count, step = (1 << 17) + 96, 1 << 15
    generator = torch.Generator().manual_seed(0)
    scenes = torch.randn(count // 32 + 1, EMBED, generator=generator).repeat_interleave(32, 0)[
        :count
    ]
    rows = normalize(scenes + 0.2 * torch.randn(count, EMBED, generator=generator), dim=1)
    timeline = Timeline.empty()
    retriever = ClipRetriever(embedder=Words(), per_segment=step)
    with caplog.at_level(logging.INFO, "reelbank.memory"):
        for number, part in enumerate(rows.split(step)):
            first = number * step
            times = torch.arange(first, first + len(part), dtype=torch.float64)
            retriever.add(SegmentIndex("v", number, first, times, part))
            timeline = timeline.extended([(number, times.numpy(), np.ones(len(part), np.int64))])
            assert len(caplog.records) == (number == 4)
    assert "video v has more than 131072 frames" in caplog.text
    retriever.save(tmp_path, "v", timeline)
    assert len(list((tmp_path / "v" / "clip-blocks").iterdir())) == 2
    monkeypatch.setattr(ivf_block.IvfBlock, "train", None)  # would raise
    again = ClipRetriever(embedder=Words(), per_segment=step)
    again.load(tmp_path, "v", timeline)
    for visible in (count, count - 50, 1 << 17):
        one, two = (each.search(NEEDLE, 60, upto(visible)) for each in (retriever, again))
        assert torch.equal(one.frames, two.frames) and torch.equal(one.scores, two.scores)
    truth = (rows @ Words().embed_text("needle")).argsort(descending=True)[:60]
    assert (
        len(set(truth.tolist()) & set(retriever.search(NEEDLE, 60, upto(count)).frames.tolist()))
        >= 57
    )
