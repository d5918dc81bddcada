"""Search rows in files beside a bank: loading gives the saved rows of the same segments, or
nothing.
"""

from pathlib import Path

import numpy as np
import pytest

from memory.retrieval import row_cache
from memory.timeline import Timeline

EDGES = range(0, 4001, 8)


def timeline(segments: int, without: int | None = None) -> Timeline:
    numbers = [number for number in range(segments + (without is not None)) if number != without]
    return Timeline.empty().extended(
        [(number, np.arange(8.0) + 8 * number, np.ones(8, np.int64)) for number in numbers]
    )


@pytest.fixture(params=[256 << 20, 13_000], ids=["blocks wait in memory", "blocks are read twice"])
def rows(monkeypatch, request) -> np.ndarray:
    monkeypatch.setattr(row_cache, "_BLOCK_BYTES", 1000 * 12)  # 1,000 rows a block
    monkeypatch.setattr(row_cache, "_LOAD_BYTES", request.param)
    return np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float32)


def keep(folder: Path, rows: np.ndarray, segments: int) -> None:
    row_cache.save(folder, 8 * segments, lambda first, stop: rows[first:stop], timeline(segments))


def kept(folder: Path, of: Timeline) -> np.ndarray:
    return np.concatenate([np.empty((0, 3), np.float32), *row_cache.load(folder, of)])


def test_what_was_saved_comes_back_and_full_blocks_are_written_once(tmp_path, rows):
    keep(tmp_path, rows, 300)
    assert np.array_equal(kept(tmp_path, timeline(300)), rows[:2400])
    # more has come since: a beginning is of use
    assert np.array_equal(kept(tmp_path, timeline(301)), rows[:2400])
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    assert sorted(written) == ["0000000000-1000.npy", "0000001000-1000.npy", "0000002000-400.npy"]
    keep(tmp_path, rows, 400)
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    new = {name for name in again if again[name] != written.get(name)}
    assert new == {"0000002000-1000.npy", "0000003000-200.npy"}
    assert "0000002000-400.npy" not in again
    assert np.array_equal(kept(tmp_path, timeline(400)), rows[:3200])


@pytest.mark.parametrize(
    "now",
    [timeline(299), timeline(300, without=5), timeline(400, without=0), Timeline.empty()],
    ids=["fewer segments", "one was dropped", "the first was dropped", "none"],
)
def test_rows_of_other_segments_are_not_used(tmp_path, rows, now):
    keep(tmp_path, rows, 300)
    assert len(kept(tmp_path, now)) == 0


def test_rows_of_other_segments_are_written_again(tmp_path, rows):
    keep(tmp_path, rows, 300)
    changed = timeline(300, without=2)
    row_cache.save(tmp_path, 2400, lambda first, stop: -rows[first:stop], changed)
    assert (
        np.array_equal(kept(tmp_path, changed), -rows[:2400])
        and len(kept(tmp_path, timeline(300))) == 0
    )


def test_damage_anywhere_means_nothing_is_used(tmp_path, rows):
    keep(tmp_path, rows, 200)
    assert len(kept(tmp_path, timeline(200))) == 1600
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 12).astype(int):
            flipped = bytearray(whole)
            flipped[at] ^= 1
            for damaged in (bytes(flipped), whole[:at]):
                path.write_bytes(damaged)
                found = kept(tmp_path, timeline(200))
                # a blank in JSON
                assert len(found) == 0 or (
                    path.name == "head.json" and np.array_equal(found, rows[:1600])
                )
        path.unlink()
        assert len(kept(tmp_path, timeline(200))) == 0
        path.write_bytes(whole)
    assert len(kept(tmp_path, timeline(200))) == 1600


def test_a_save_that_was_cut_off_leaves_the_one_before(tmp_path, rows, monkeypatch):
    keep(tmp_path, rows, 200)
    real, calls = row_cache.write_atomically, []
    for stop_at in (1, 2, 3):

        def dying(path: Path, data: bytes, stop_at: int = stop_at) -> None:
            calls.append(path)
            if len(calls) == stop_at:
                raise OSError("full")
            real(path, data)

        calls.clear()
        monkeypatch.setattr(row_cache, "write_atomically", dying)
        with pytest.raises(OSError, match="full"):
            keep(tmp_path, rows, 390)
        assert np.array_equal(kept(tmp_path, timeline(390)), rows[:1600])


def test_a_block_that_goes_between_two_looks_ends_it(tmp_path, rows, monkeypatch):
    """Whoever takes rows in throws them away then: see the retrievers."""
    monkeypatch.setattr(row_cache, "_LOAD_BYTES", 0)
    keep(tmp_path, rows, 300)
    blocks = row_cache.load(tmp_path, timeline(300))
    assert np.array_equal(next(blocks), rows[:1000])
    (tmp_path / "0000001000-1000.npy").write_bytes(b"other")
    with pytest.raises(OSError, match="not as it was written"):
        next(blocks)
