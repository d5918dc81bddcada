"""Frames above the disk: budgets hold, frames in use stay, and reads return what was written."""

import gc
import threading
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import UserError
from encoders.schema import KVBlock, VisualTokens
from memory import frame_budget
from memory.cache.prefetch import Prefetcher
from memory.cache.tiers import FrameKey, FrameTiers, Lease, Tier
from memory.frame_budget import FrameSelection
from memory.schema import Question
from tests.support.banks import check, opened, ordinals
from tests.support.records import make_segment, make_video, same, write_video
from tests.support.retrievers import NEEDLE, built

SEGMENTS = {number: make_segment("v", number, tokens=[1, 2, 3, 4]) for number in range(6)}
KEYS = [FrameKey("v", number, frame, True) for number in SEGMENTS for frame in range(4)]
FRAME = max(len(s.tokens.frames(3, 4).tokens) for s in SEGMENTS.values())


def read(first: FrameKey, count: int) -> tuple[VisualTokens, KVBlock | None]:
    segment = SEGMENTS[first.segment]
    assert segment.kv is not None
    stop = first.frame + count
    return segment.tokens.frames(first.frame, stop), segment.kv.frames(first.frame, stop)


def is_right(key: FrameKey, held: Any) -> bool:
    segment = SEGMENTS[key.segment]
    assert segment.kv is not None
    return same(held.tokens, segment.tokens.frames(key.frame, key.frame + 1)) and same(
        held.kv, segment.kv.frames(key.frame, key.frame + 1)
    )


def counted(tier: Tier, leases: list[Lease]) -> int:
    """The bytes that a tier should report: what it can find, and what it dropped while somebody
    uses it.
    """
    there = {id(held): held for held in tier._frames.values()}
    there |= {
        id(held): held
        for lease in leases
        for where, held in lease.pins
        if where is tier and held.is_counted
    }
    return sum(held.nbytes for held in there.values())


@settings(max_examples=60, deadline=None)
@given(
    ram=st.integers(0, 100_000),
    device=st.integers(0, 100_000) | st.none(),
    moves=st.lists(
        st.tuples(
            st.sampled_from(["take", "end", "forget", "resize", "fetch"]),
            st.integers(0, 23),
            st.integers(1, 9),
        ),
        max_size=25,
    ),
)
def test_budgets_hold_and_frames_in_use_stay(ram, device, moves):
    tiers = FrameTiers(ram, device or 0, None if device is None else torch.device("cpu"))
    leases: list[Lease] = []
    for what, at, count in moves:
        keys = KEYS[at : at + count]
        if what == "take":
            held, lease = tiers.take(keys, read)
            assert all(is_right(key, frame) for key, frame in zip(keys, held, strict=True))
            assert sum(lease.came_from.values()) == len(keys)
            leases.append(lease)
        elif what == "fetch":
            tiers.fetch(keys, read)
        elif what == "end" and leases:
            tiers.end(leases.pop(at % len(leases)))
        elif what == "forget":
            tiers.forget("v")
        elif what == "resize":
            tiers.resize_ram(at * 4000)
        told = tiers.nbytes()
        in_use = {
            id(h): h for lease in leases for t, h in lease.pins if t is tiers.ram and h.is_counted
        }
        assert told["ram"] == counted(tiers.ram, leases) and told["device"] == counted(
            tiers.device, leases
        )
        # a smaller budget holds at once but for what is in use
        assert told["ram"] <= max(tiers.ram.budget, sum(h.nbytes for h in in_use.values()))
        assert told["device"] <= (device or 0)
        for lease in leases:
            assert all(held.pins > 0 for _, held in lease.pins)
    for lease in leases:
        tiers.end(lease)
    assert tiers.nbytes()["ram"] <= tiers.ram.budget
    tiers.forget("v")
    assert tiers.nbytes() == {"ram": 0, "device": 0}


def test_the_least_recently_used_goes_first_and_pinned_ones_stay():
    size = FrameTiers(1 << 20).take(KEYS[3:4], read)[0][0].nbytes
    tiers = FrameTiers(3 * size)
    same_size = [key for key in KEYS if key.frame == 3]  # frames of equal size
    _, kept = tiers.take(same_size[:1], read)
    for key in same_size[1:3]:
        tiers.end(tiers.take([key], read)[1])
    tiers.end(tiers.take([same_size[1]], read)[1])  # used again: the other one goes
    tiers.end(tiers.take([same_size[3]], read)[1])
    assert [tiers.has(key) for key in same_size[:4]] == [True, True, False, True]
    leases = [tiers.take([key], read)[1] for key in (same_size[1], same_size[3])]
    # all pinned: it passes through
    assert tiers.take([same_size[4]], read)[1].came_from["disk"] == 1
    assert not tiers.has(same_size[4]) and tiers.nbytes()["ram"] == 3 * size
    for lease in (kept, *leases):
        tiers.end(lease)


def test_from_where_frames_come():
    tiers = FrameTiers(1 << 20, 1 << 20, torch.device("cpu"))
    first, lease = tiers.take(KEYS[:6], read)
    assert lease.came_from == Counter(disk=6)
    tiers.end(lease)
    again, lease = tiers.take(KEYS[4:8], read)
    assert lease.came_from == Counter(device=2, disk=2) and again[0] is first[4]
    tiers.end(lease)
    tiers.device.forget("v")
    lifted, lease = tiers.take(KEYS[:2], read)
    assert lease.came_from == Counter(ram=2) and all(
        is_right(k, h) for k, h in zip(KEYS, lifted, strict=False)
    )
    in_ram = tiers.ram._frames[KEYS[0]]
    assert lifted[0].kv.keys.data_ptr() != in_ram.kv.keys.data_ptr()  # a copy, as on a device


def test_frames_do_not_keep_their_range_alive():
    tiers = FrameTiers(1 << 20)
    held, _ = tiers.take(KEYS[:4], read)
    for frame in held:
        assert frame.kv.keys.untyped_storage().nbytes() == frame.kv.keys.nbytes
        assert frame.tokens.tokens.untyped_storage().nbytes() == frame.tokens.tokens.nbytes


def test_an_error_while_reading_leaves_nothing_pinned():
    tiers = FrameTiers(1 << 20)

    def broken(first: FrameKey, count: int) -> tuple[VisualTokens, KVBlock | None]:
        if first.segment == 1:
            raise OSError("damaged")
        return read(first, count)

    with pytest.raises(OSError, match="damaged"):
        tiers.take(KEYS[:8], broken)
    assert tiers.nbytes()["ram"] > 0  # what was read before is kept
    tiers.resize_ram(0)  # and can go
    assert tiers.nbytes()["ram"] == 0


def test_evidence_pins_its_frames_until_nobody_holds_it(tmp_path):
    video = make_video(segments=10)
    with opened(tmp_path, built("clip"), ram_bytes=1 << 20) as bank:
        write_video(bank, video)
        evidence = bank.recall(NEEDLE, read_tokens=30)
        pins = [held.pins for held in bank._frames.tiers.ram._frames.values()]
        assert len(pins) == evidence.frame_count and set(pins) == {1}
        second = bank.recall(NEEDLE, read_tokens=30)
        # not copied
        assert (
            second.came_from["ram"] == second.frame_count
            and second.runs[0].kv is evidence.runs[0].kv
        )
        del evidence, second
        gc.collect()
        assert bank.in_memory()["ram"] > 0 and {
            held.pins for held in bank._frames.tiers.ram._frames.values()
        } == {0}


def test_neighbours_of_what_was_recalled():
    choice = FrameSelection([18, 19], [7, 3], 0)
    assert frame_budget.neighbors(choice, 20, 4) == [2, 4, 6, 8]
    assert frame_budget.neighbors(choice, 20, 6) == [2, 4, 5, 6, 8, 9]
    assert (
        frame_budget.neighbors(choice, 20, 0) == []
        and frame_budget.neighbors(FrameSelection([0, 1], [], 0), 2, 4) == []
    )
    assert frame_budget.neighbors(FrameSelection([], [0], 0), 3, 9) == [1, 2]


def test_a_follow_up_finds_its_frames_in_ram(tmp_path):
    video = make_video(segments=12, needle=21)
    with opened(tmp_path, built("clip"), prefetch_frames=12) as bank:
        write_video(bank, video)
        evidence = bank.recall(NEEDLE, read_tokens=24)
        ranked = evidence.hits.frames.tolist()
        got = ordinals(evidence)
        del evidence
        assert bank._frames.prefetcher.wait(30)
        ahead = {key.segment * 4 + key.frame for key in bank._frames.tiers.ram._frames} - set(got)
        best = next(frame for frame in ranked if frame in got and frame < 46)
        assert ahead and len(ahead) <= 12 and {best + 1, best - 1} <= ahead | set(got)
        again = bank.recall(Question("x", "v"), read_tokens=1000)
        check(again, video, 1000)  # the same frames, bit by bit, wherever they came from
        assert again.came_from["ram"] == len(ahead) + len(got)


def test_the_newest_frames_are_not_read_back(tmp_path):
    video = make_video(segments=6)
    with opened(tmp_path, built("clip"), recent_frames=2) as bank:
        write_video(bank, video[:4])
        bank.recall(NEEDLE, read_tokens=6)
        bank.write(video[4])
        evidence = bank.recall(NEEDLE, read_tokens=6)
        assert ordinals(evidence)[-2:] == [18, 19] and evidence.came_from["ram"] >= 2
        check(evidence, video, 6)


def test_damage_met_while_reading_ahead_is_told_to_who_asks(tmp_path):
    with opened(tmp_path, built("clip"), prefetch_frames=40) as bank:
        write_video(bank, make_video(segments=8, needle=9))
        paths = sorted((tmp_path / "segments" / "v").glob("*.safetensors"))
        evidence = bank.recall(NEEDLE, read_tokens=12)
        read_already = {run.segment for run in evidence.runs}
        for number, path in enumerate(paths):
            if number not in read_already:
                path.unlink()
        del evidence
        assert bank._frames.prefetcher.wait(30)
        with pytest.raises(UserError, match="missing"):
            bank.recall(Question("x", "v"), read_tokens=1000)


def test_only_the_newest_job_counts():
    prefetcher, begun, done = Prefetcher(), threading.Event(), []

    def long(stop):
        begun.set()
        while not stop():
            pass
        done.append("gave up")

    prefetcher.submit(long)
    assert begun.wait(10)
    for n in range(5):
        prefetcher.submit(lambda stop, n=n: done.append(n))
    assert prefetcher.wait(10) and done[0] == "gave up" and done[-1] == 4
    prefetcher.submit(long)
    prefetcher.close()  # does not wait for what is not given up
    prefetcher.submit(lambda stop: done.append("late"))
    assert done[-1] in ("gave up", 4)
