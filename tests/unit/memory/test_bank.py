"""The bank recalls what was written: within the budget, from the past only, with the same settings
only.
"""

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoders.errors import UserError
from encoders.schema import Segment
from memory import frame_budget
from memory.bank import MemoryBank
from memory.retrieval import searchable as held_module
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.kv import KVRetriever
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Evidence, Question, SegmentIndex
from memory.storage.retention import Rule
from tests.support.banks import check, opened, ordinals, spent
from tests.support.records import (
    Words,
    info,
    make_segment,
    make_video,
    same,
    token_queries,
    write_video,
)
from tests.support.retrievers import NAMES, NEEDLE, PER_LAYER, built

# ---- several writers


def test_several_streams_write_into_one_bank(tmp_path: Path):
    """Each thread writes a video, as the streams of a server do; one is pruned meanwhile."""
    videos = {name: make_video(name, segments=12) for name in ("a", "b", "c", "d")}
    errors: list[BaseException] = []

    def write(bank: MemoryBank, video: list[Segment]) -> None:
        try:
            write_video(bank, video)
        except BaseException as error:
            errors.append(error)

    with opened(tmp_path / "bank") as bank:
        bank.record_video(info("a"), 1.0, finished=False)
        threads = [threading.Thread(target=write, args=(bank, video)) for video in videos.values()]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            bank.prune(Rule("a", max_bytes=1e9))
            bank.end_writing()  # the next write takes the right back
            time.sleep(0.02)
        assert errors == [] and bank.check.verify() == []
        for name, video in videos.items():
            assert [row.number for row in bank.catalog.segments(name)] == list(range(12))
            assert same(bank.catalog.read_segment(name, 11).kv, video[11].kv)


# ---- recall


@pytest.fixture(scope="module", params=[*NAMES, PER_LAYER])
def filled(request, tmp_path_factory) -> Iterator[tuple[MemoryBank, list[Segment]]]:
    """One bank per retriever with the same video of 80 frames, 1 to 3 tokens each."""
    video = make_video(segments=20, needle=33)
    with opened(tmp_path_factory.mktemp("bank"), built(request.param)) as bank:
        write_video(bank, video)
        yield bank, video


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    asked_at=st.floats(0, 90) | st.just(math.inf),
    read_tokens=st.integers(5, 300),
    text=st.sampled_from(["needle", "other"]),
)
def test_budget_and_moment_hold_for_any_question(filled, asked_at, read_tokens, text):
    bank, video = filled
    question = Question(text, "v", asked_at)
    evidence = bank.recall(question, read_tokens=read_tokens)
    check(evidence, video, read_tokens)
    cost = np.concatenate([segment.tokens.offsets.diff().numpy() for segment in video])
    visible = min(math.floor(asked_at) + 1, 80) if asked_at < 90 else 80
    chosen, missing = ordinals(evidence), set(range(visible)) - set(ordinals(evidence))
    if cost[:visible].sum() <= read_tokens:
        assert not missing and evidence.per_layer is None
    newest = chosen[len(chosen) - evidence.recent :]
    assert newest == list(range(visible - evidence.recent, visible))
    assert (
        evidence.recent == 2
        or cost[visible - evidence.recent - 1 : visible].sum() > read_tokens
        or visible < 2
    )
    again = bank.recall(question, read_tokens=read_tokens)
    assert ordinals(again) == chosen and torch.equal(again.hits.frames, evidence.hits.frames)


def test_the_budget_is_used_up(filled):
    """No frame that would still fit is left out. With 1 to 3 tokens a frame, at most 2 stay free
    (shared rankings).
    """
    bank, _ = filled
    for read_tokens in range(20, 60, 7):
        assert spent(bank.recall(NEEDLE, read_tokens=read_tokens)) >= read_tokens - 2


def test_the_needle_is_recalled_within_a_small_budget(filled):
    bank, _ = filled
    if not bank._searchable.retriever.reads:
        pytest.skip("looks at no content")
    evidence = bank.recall(NEEDLE, read_tokens=16)
    assert 33 in ordinals(evidence)
    if evidence.per_layer is not None:
        number = ordinals(evidence).index(33)
        assert all(number in layer for layer in evidence.per_layer.tolist())
    assert 33 not in ordinals(bank.recall(Question("needle", "v", asked_at=32.9), read_tokens=16))


def test_before_the_first_frame_there_is_nothing(tmp_path):
    with opened(tmp_path) as bank:
        write_video(bank, [make_segment(start=10.0)])
        assert bank.recall(Question("q", "v", asked_at=9.9), read_tokens=10).runs == ()
        # a frame at that second
        assert ordinals(bank.recall(Question("q", "v", asked_at=10.0), read_tokens=10)) == [0]
        bank.record_video(info("w"), 1.0, finished=False)
        assert bank.recall(Question("q", "w"), read_tokens=10).runs == ()


def test_neighbours_within_a_segment_are_read_at_once(tmp_path, monkeypatch):
    with opened(tmp_path) as bank:
        write_video(bank, make_video(segments=6))
        read: list[tuple[int, int, int]] = []
        real = bank._store.frames
        monkeypatch.setattr(
            bank._store,
            "frames",
            lambda v, n, a, b, **k: (read.append((n, a, b)), real(v, n, a, b, **k))[1],
        )
        everything = bank.recall(NEEDLE, read_tokens=10_000)
    assert read == [(s, 0, 4) for s in range(6)] and everything.came_from == {
        "device": 0,
        "ram": 0,
        "disk": 24,
    }
    assert [(run.segment, run.first) for run in everything.runs] == [(o // 4, o) for o in range(24)]
    assert (
        everything.recent == 2
        and everything.interval == 1.0
        and set(everything.seconds) == {"search", "load"}
    )
    assert frame_budget.runs([0, 1, 3, 4, 5, 9], [0, 4, 8, 12]) == [
        (0, 0, 2),
        (0, 3, 4),
        (1, 4, 6),
        (2, 9, 10),
    ]


def test_a_reader_of_tokens_loads_no_keys(filled):
    bank, _ = filled
    with_keys, without = (bank.recall(NEEDLE, read_tokens=20, kv=kv) for kv in (True, False))
    assert all(run.kv is not None for run in with_keys.runs) and all(
        run.kv is None for run in without.runs
    )
    assert ordinals(with_keys) == ordinals(without)


def test_a_budget_below_one_frame_is_one_sentence(tmp_path):
    with opened(tmp_path) as bank:
        write_video(bank, [make_segment(tokens=[3, 3, 3, 9])])
        with pytest.raises(UserError, match=r"read_tokens=8 is below one frame \(9 tokens"):
            bank.recall(NEEDLE, read_tokens=8)


@pytest.mark.parametrize("ram_bytes", [0, 60_000, 1 << 20])
def test_frames_kept_in_ram_stay_within_their_budget(tmp_path, ram_bytes):
    with opened(tmp_path, built("clip"), ram_bytes=ram_bytes) as bank:
        video = make_video(segments=10)
        write_video(bank, video)
        for text in ("a", "b", "a", "c", "a"):
            check(bank.recall(Question(text, "v"), read_tokens=30), video, 30)
            ram = bank._frames.tiers.ram
            assert (
                bank.in_memory()["ram"]
                == sum(held.nbytes for held in ram._frames.values())
                <= ram.budget
            )
            assert ram.nbytes + bank.in_memory()["index"] <= max(
                ram_bytes, bank.in_memory()["index"]
            )
        assert bool(len(ram)) == (ram_bytes > 0)


def test_a_recall_divides_its_budget_by_the_layers_densities(tmp_path):
    video = make_video("v", segments=10, needle=21)
    choice = f"{PER_LAYER} retriever.layer_budget=density"
    with opened(tmp_path, built(choice)) as bank:
        write_video(bank, video)
        evidence = bank.recall(NEEDLE, read_tokens=16)
        check(evidence, video, 16)
        assert evidence.per_layer is not None and evidence.hits.layer_shares is not None
        assert 21 in ordinals(evidence)


# ---- the arithmetic behind it, without a bank


@given(st.data())
def test_layers_share_the_budget(data):
    count, layers = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4))
    cost = np.array(data.draw(st.lists(st.integers(1, 5), min_size=count, max_size=count)))
    rankings = np.array([data.draw(st.permutations(range(count))) for _ in range(layers)])
    shared, budget = data.draw(st.permutations(range(count))), data.draw(st.integers(0, 60))
    begun = frame_budget.newest(cost, data.draw(st.integers(0, 5)), budget)
    selection, per_layer = frame_budget.fill_layers(begun, rankings, shared, cost)
    union = selection.ordinals
    assert (
        len(union) == len(set(union))
        and int(cost[union].sum()) == budget - selection.free_tokens <= budget
    )
    assert set(per_layer.flatten().tolist()) <= set(union)
    assert all(
        row == sorted(set(row)) and set(selection.recent) <= set(row) for row in per_layer.tolist()
    )
    assert set(union) == set(per_layer.flatten().tolist())  # nothing is read for nobody
    assert all(cost[ordinal] > selection.free_tokens for ordinal in set(range(count)) - set(union))
    for best, row in zip(rankings[:, 0].tolist(), per_layer.tolist(), strict=True):
        first_rank = {*rankings[:, 0].tolist()} - {*begun.recent}
        if cost[sorted(first_rank)].sum() <= begun.free_tokens:
            assert best in row


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_layers_divide_the_budget_by_their_shares(data):
    """Frames of one token, and no frame in two layers: so each layer's number is its share."""
    layers, budget = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    rankings = np.arange(layers * 40).reshape(layers, 40)
    begun = frame_budget.FrameSelection([], [], budget)
    cost, shared = np.ones(layers * 40, np.int64), range(layers * 40)
    weights = np.array(
        data.draw(st.lists(st.integers(1, 9), min_size=layers, max_size=layers)), np.float32
    )
    shares = weights / weights.sum()
    filled, per_layer = frame_budget.fill_layers(begun, rankings, shared, cost, shares)
    taken = np.bincount([ordinal // 40 for ordinal in filled.ordinals], minlength=layers)
    assert taken.sum() == budget and len(per_layer) == layers
    assert (np.abs(taken - budget * shares) <= layers).all(), (taken, budget * shares)
    if len(set(weights.tolist())) == 1:  # equal shares: as many each, but for a last round
        assert taken.max() - taken.min() <= 1


# ---- the writer beside the askers


class StoredFirst(UniformRetriever):
    """Fails when it hears of a segment that cannot be read yet."""

    bank: MemoryBank

    def add(self, segment: SegmentIndex) -> None:
        assert len(self.bank.catalog.read_segment(segment.video_id, segment.number)) == len(segment)
        assert (
            segment.video_id not in self.bank._searchable
            or len(self.bank._searchable.timelines[segment.video_id]) <= segment.first
        )
        super().add(segment)


def test_stored_then_indexed_then_visible(tmp_path):
    retriever = StoredFirst()
    with opened(tmp_path, retriever) as bank:
        retriever.bank = bank
        write_video(bank, make_video())
        assert bank.recall(NEEDLE, read_tokens=1000).frame_count == 20


@pytest.mark.parametrize("name", [*NAMES, PER_LAYER])
def test_questions_while_the_writer_runs(tmp_path, name):
    """In any interleaving, evidence is whole, comes from the past only, and has all that was
    acknowledged before.
    """
    video, written, failures = make_video(segments=40), [0], []

    def write() -> None:
        try:
            for segment in video:
                bank.write(segment)
                written[0] += len(segment)
        except BaseException as error:
            failures.append(error)

    def ask(seed: int) -> None:
        chance = np.random.default_rng(seed)
        try:
            while written[0] < 160 and not failures:
                before, asked_at = (
                    written[0],
                    float(chance.choice([chance.uniform(0, 160), math.inf])),
                )
                everything = bank.recall(Question("needle", "v", asked_at), read_tokens=1000)
                check(everything, video, 1000)
                assert everything.frame_count >= min(before, math.floor(min(asked_at, 999)) + 1)
                check(bank.recall(Question("needle", "v", asked_at), read_tokens=20), video, 20)
        except BaseException as error:
            failures.append(error)

    with opened(tmp_path, built(name)) as bank:
        bank.record_video(info(), 1.0, finished=False)
        threads = [
            threading.Thread(target=write),
            *(threading.Thread(target=ask, args=(seed,)) for seed in range(2)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert bank.recall(NEEDLE, read_tokens=1000).frame_count == 160


def test_a_question_never_holds_the_writer_up(tmp_path):
    """Writing continues while a model embeds the question, even if that waits for a GPU that the
    encoder uses.
    """
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Words):
        def embed_text(self, text: str) -> torch.Tensor:
            inside.set()
            assert go_on.wait(10)
            return super().embed_text(text)

    with opened(tmp_path, ClipRetriever(embedder=Slow())) as bank:
        video = make_video()
        write_video(bank, video[:2])
        found: list[Evidence] = []
        asker = threading.Thread(target=lambda: found.append(bank.recall(NEEDLE, read_tokens=1000)))
        asker.start()
        assert inside.wait(10)
        bank.write(video[2])  # would never return if the asker held a lock that it needs
        go_on.set()
        asker.join()
        assert ordinals(found[0]) == list(range(8))  # what was there when it was asked


def test_a_video_is_not_let_go_while_it_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(held_module, "_VIDEOS", 1)

    class Others(Words):
        def embed_text(self, text: str) -> torch.Tensor:
            if text == "needle":  # other videos are asked about in the meantime
                bank.recall(Question("other", "w"), read_tokens=8)
            return super().embed_text(text)

    with opened(tmp_path, ClipRetriever(embedder=Others())) as bank:
        write_video(bank, make_video("v", needle=5))
        write_video(bank, make_video("w"))
        assert 5 in ordinals(bank.recall(NEEDLE, read_tokens=8))
        assert list(bank._searchable.timelines) == ["v", "w"]
        bank.recall(Question("other", "w"), read_tokens=8)
        assert list(bank._searchable.timelines) == ["w"]


# ---- opening, resuming, other processes


def test_reopened_is_the_same(tmp_path):
    video = make_video(segments=8, needle=10)
    with opened(tmp_path, built("fused")) as bank:
        write_video(bank, video)
        first = bank.recall(NEEDLE, read_tokens=20)
        assert not (tmp_path / "index" / "v").exists()
    kept = sorted((tmp_path / "index" / "v").rglob("*.*"))
    assert len(kept) == 4  # clip and keys: a block and its head
    for damage in (lambda path: None, Path.unlink, lambda path: path.write_bytes(b"x")):
        for path in kept:
            damage(path)
        with opened(tmp_path, built("fused")) as bank:
            again = bank.recall(NEEDLE, read_tokens=20)
            assert ordinals(again) == ordinals(first) and torch.equal(
                again.hits.scores, first.hits.scores
            )


def test_only_what_is_needed_is_read(tmp_path, monkeypatch):
    with opened(tmp_path, built("clip")) as bank:
        write_video(bank, make_video(segments=8))
    with opened(tmp_path, built("clip"), recent_frames=1) as bank:
        read: list[int] = []
        real = bank._store.frames
        monkeypatch.setattr(
            bank._store, "frames", lambda v, n, *a, **k: (read.append(n), real(v, n, *a, **k))[1]
        )
        monkeypatch.setattr(bank._store, "get", None)  # no whole segment is read
        monkeypatch.setattr(bank._store, "index", None)  # and no rows: they are in the saved index
        evidence = bank.recall(NEEDLE, read_tokens=6)
        assert read == sorted({run.segment for run in evidence.runs}) and 0 < len(read) < 8
        bank.recall(NEEDLE, read_tokens=6)
        assert len(read) == len({run.segment for run in evidence.runs})  # the second time from RAM


def test_a_resumed_video_is_whole_for_questions(tmp_path):
    video = make_video(segments=6, needle=2)
    for name in ("clip", "kv", "fused", "uniform"):
        with opened(tmp_path / name, built(name)) as bank:
            write_video(bank, video[:3])
        with opened(tmp_path / name, built(name)) as bank:
            assert bank.catalog.next("v") == (3, 12.0)
            bank.write(video[3])  # before any question: an ingest that goes on reads nothing back
            assert bank._searchable.retriever.frame_count("v") == 0
            assert bank.recall(NEEDLE, read_tokens=1000).frame_count == 16
            bank.write(video[4])  # after one
            evidence = bank.recall(NEEDLE, read_tokens=1000)
            check(evidence, video, 1000)
            assert evidence.frame_count == 20 and bank.catalog.next("v") == (5, 20.0)


def test_another_bank_object_sees_what_is_written(tmp_path):
    with opened(tmp_path, built("clip")) as writer, opened(tmp_path, built("clip")) as reader:
        video = make_video(segments=5, needle=13)
        write_video(writer, video[:2])
        assert reader.recall(NEEDLE, read_tokens=1000).frame_count == 8
        writer.write(video[2])
        assert reader.recall(NEEDLE, read_tokens=1000).frame_count == 12
        with pytest.raises(UserError, match="is being written by another process"):
            reader.write(video[3])
        writer.write(video[3])
        writer.close()
        reader.write(video[4])  # takes in the segment that it has not seen yet as well
        assert 13 in ordinals(reader.recall(NEEDLE, read_tokens=10))


def test_tail_covers_the_window(tmp_path):
    video = make_video(segments=5)
    with opened(tmp_path) as bank:
        write_video(bank, video)
        for frames, segments in (
            (0, [4]),
            (1, [4]),
            (4, [4]),
            (5, [3, 4]),
            (9, [2, 3, 4]),
            (99, [0, 1, 2, 3, 4]),
        ):
            tail = bank.window.segments("v", frames)
            assert [run.segment for run in tail] == segments
            assert all(same(run.tokens, video[run.segment].tokens) for run in tail)
            assert all(same(run.kv, video[run.segment].kv) for run in tail)
        assert bank.window.segments("w", 5) == [] and bank.catalog.next("w") == (0, 0.0)


def test_resume_point(tmp_path):
    video = make_video(segments=5)
    with opened(tmp_path) as bank:
        write_video(bank, video)
        end = bank.window.resume_point("v", 5, 5)
        assert (end.number, end.is_next, end.is_exact, end.began) == (5, True, True, None)
        assert [run.segment for run in end.window] == [3, 4]
        assert end.times.tolist() == [float(t) for segment in video for t in segment.times]
        assert end.start > video[4].times[-1] and math.isclose(end.start, video[4].times[-1])
        bank.discard("v", [2])
        gap = bank.window.resume_point("v", 2, 4)
        assert (gap.is_next, [run.segment for run in gap.window]) == (False, [1])
        assert len(gap.times) == 8 and same(gap.window[0].kv, video[1].kv)
        new = bank.window.resume_point("w", 0, 5)
        assert (new.start, new.window, new.is_exact, len(new.times)) == (0.0, (), True, 0)


def test_videos_are_recorded(tmp_path):
    with opened(tmp_path) as bank:
        with pytest.raises(ValueError, match="not recorded"):
            bank.write(make_segment())
        write_video(bank, make_video("v"))
        bank.record_video(info("w"), 0.5, finished=True)
        assert [(row.info, row.interval, row.finished) for row in bank.catalog.videos()] == [
            (info("v"), 1.0, False),
            (info("w"), 0.5, True),
        ]
        bank.record_video(info("v"), 1.0, finished=True)
        # rows are kept for as long as nothing changes
        assert [row.finished for row in bank.catalog.videos()] == [True, True]
        assert (
            bank.catalog.video("v").finished
            and len(bank.catalog.segments("v")) == 5
            and bank.catalog.video("x") is None
        )
        with pytest.raises(UserError, match=r"frame every 1\.0 s, not 2\.0 s"):
            bank.record_video(info("v"), 2.0, finished=True)
        with pytest.raises(UserError, match="video x is not in bank"):
            bank.recall(Question("q", "x"), read_tokens=10)


def test_many_videos_are_held_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(held_module, "_VIDEOS", 2)
    with opened(tmp_path, built("fused")) as bank:
        for name in "abcd":
            write_video(bank, make_video(name, needle=7))
        assert (
            list(bank._searchable.timelines) == ["c", "d"]
            and bank._searchable.retriever.frame_count("a") == 0
        )
        for name in "abcda":
            evidence = bank.recall(Question("needle", name), read_tokens=8)
            assert 7 in ordinals(evidence) and len(bank._searchable.timelines) == 2
        bank.write(make_segment("b", 5))  # not held at the moment
        assert bank.recall(Question("needle", "b"), read_tokens=1000).frame_count == 24


def test_a_dropped_video_is_gone(tmp_path):
    with opened(tmp_path, built("fused")) as bank:
        for name in "vw":
            write_video(bank, make_video(name))
            bank.recall(Question("needle", name), read_tokens=1000)
        bank.drop("v")
        assert [row.info.video_id for row in bank.catalog.videos()] == [
            "w"
        ] and bank.check.verify() == []
        other = make_video("v", segments=5, needle=3, tokens=[2] * 4)
        write_video(bank, other)
        evidence = bank.recall(NEEDLE, read_tokens=1000)
        check(evidence, other, 1000)
        assert evidence.frame_count == 20 and 3 in ordinals(bank.recall(NEEDLE, read_tokens=8))


def test_a_bank_without_keys(tmp_path):
    video = make_video(kv=False)
    with opened(tmp_path, built("clip")) as bank:
        write_video(bank, video)
        check(bank.recall(NEEDLE, read_tokens=20), video, 20)
    with (
        opened(tmp_path, KVRetriever(queries=token_queries)) as bank,
        pytest.raises(UserError, match="has no keys"),
    ):
        bank.recall(NEEDLE, read_tokens=20)


# ---- damaged segments that were dropped


@pytest.mark.parametrize("name", NAMES)
def test_a_gap_is_passed_over_and_filled_under_the_eyes_of_a_reader(tmp_path, name):
    """Questions come from the process that drops, from one that had asked before, and from one that
    opens the bank later.
    """
    video = make_video(segments=6, needle=17)
    with opened(tmp_path, built(name)) as writer, opened(tmp_path, built(name)) as reader:
        write_video(writer, video)
        banks = [writer, reader]
        for bank in banks:
            assert bank.recall(NEEDLE, read_tokens=1000).frame_count == 24
        writer.discard("v", [0, 3])
        with opened(tmp_path, built(name)) as later:
            for bank in [*banks, later]:
                evidence = bank.recall(NEEDLE, read_tokens=1000)
                assert [run.segment for run in evidence.runs] == [
                    s for s in (1, 2, 4, 5) for _ in range(4)
                ]
                assert ordinals(evidence) == list(range(16))
                assert all(
                    same(run.tokens, video[run.segment].tokens.frames(o % 4, o % 4 + 1))
                    for o, run in enumerate(evidence.runs)
                )
                small = bank.recall(NEEDLE, read_tokens=12)
                assert not bank._searchable.retriever.reads or any(
                    17.0 in run.tokens.times.tolist() for run in small.runs
                )
        gaps = [(gap.first, gap.stop, gap.start, gap.end) for gap in reader.catalog.gaps("v")]
        assert gaps == [(0, 1, 0.0, 4.0), (3, 4, 12.0, 16.0)] and reader.catalog.next("v") == (
            6,
            24.0,
        )
        assert [run.segment for run in writer.window.segments("v", 6, before=3)] == [
            1,
            2,
        ] and writer.window.segments("v", 6, before=0) == []
        assert {problem.kind for problem in writer.check.verify()} == {"gap"}
        with pytest.raises(ValueError, match="out of turn"):
            writer.write(make_segment("v", 2))
        with pytest.raises(UserError, match="would reach into segment 4"):
            writer.write(make_segment("v", 3, frames=9, start=12.0))
        for segment in (video[0], video[3]):
            writer.write(segment)
        for bank in banks:
            check(bank.recall(NEEDLE, read_tokens=1000), video, 1000)
            assert bank.recall(NEEDLE, read_tokens=1000).frame_count == 24
            assert not bank._searchable.retriever.reads or 17 in ordinals(
                bank.recall(NEEDLE, read_tokens=12)
            )
        assert writer.check.verify() == []
        writer.write(make_segment("v", 6))
        assert all(bank.recall(NEEDLE, read_tokens=1000).frame_count == 28 for bank in banks)


def test_a_video_that_is_written_anew_is_seen_anew(tmp_path):
    with opened(tmp_path, built("clip")) as writer, opened(tmp_path, built("clip")) as reader:
        write_video(writer, make_video("v", needle=3, tokens=[2] * 4))
        assert 3 in ordinals(reader.recall(NEEDLE, read_tokens=8))
        writer.drop("v")
        write_video(writer, make_video("v", needle=16, tokens=[2] * 4))
        assert 16 in ordinals(reader.recall(NEEDLE, read_tokens=8))
