"""One writer and eight readers, each a process of its own, on one bank.

There are three claims. First, no reader ever sees a torn segment; each is compared bit by bit.
Second, a reader that looks after a segment was acknowledged sees it, at any speed of the machine.
Third, two times stay below a second in 99 of 100 cases: from acknowledgement to sight, and from
`bank.write` to its return. One in 100 may take longer, because the machine sometimes stops a
process to run others.
"""

import time
from pathlib import Path

import numpy as np
import pytest

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from tests.support.children import read_until_finished, receive_all, start, write_for
from tests.support.records import info, make_video, write_video

READERS = 8


def watch(root: Path, seconds: float, pause: float) -> str:
    """Let one write for so long, and eight read; what was measured, in one line."""
    with MemoryBank.open(root, {"model": "m"}, UniformRetriever(), recent_frames=1) as bank:
        bank.record_video(info(), 1.0, finished=False)
    readers = [start(read_until_finished, root) for _ in range(READERS)]
    assert all(told.recv() == "ready" for _, told in readers)
    process, told = start(write_for, root, seconds, pause)
    written = receive_all(told)  # (number, seconds before, seconds after)
    # (seconds before the look, seconds after, segments)
    seen = [receive_all(told) for _, told in readers]
    for each in (process, *(reader for reader, _ in readers)):
        each.join()
        assert each.exitcode == 0
    acknowledged = np.array([after for _, _, after in written])
    delays = []
    for looks in seen:
        assert not [look for look in looks if look[0] == "torn"]
        assert looks[-1][2] == len(written)
        count = 0
        for before, after, segments in looks:
            # all that was acknowledged when the look began
            assert segments >= int((acknowledged < before).sum())
            delays += [after - acknowledged[number] for number in range(count, segments)]
            count = segments
    writes = [after - before for _, before, after in written]
    assert np.quantile(delays, 0.99) < 1.0 and np.quantile(writes, 0.99) < 1.0, (
        max(delays),
        max(writes),
    )
    times = f"seen after {_ms(delays)}; a write took {_ms(writes)}"
    return (
        f"{len(written)} segments in {seconds:g} s, {READERS} readers, {len(delays)} sights, "
        f"none torn: {times}"
    )


def _ms(seconds: list[float]) -> str:
    half, most, longest = (1e3 * float(np.quantile(seconds, q)) for q in (0.5, 0.99, 1))
    return f"{half:.0f} ms (99 % under {most:.0f}, longest {longest:.0f})"


def test_eight_readers_beside_a_writer(tmp_path):
    watch(tmp_path, seconds=3, pause=0.05)


@pytest.mark.slow
def test_eight_readers_beside_a_writer_for_a_minute(tmp_path):
    print("\n" + watch(tmp_path, seconds=60, pause=0.05))


def test_a_reader_costs_the_writer_nothing_but_time(tmp_path):
    """A reader in the middle of a read transaction holds no lock that a commit needs."""
    with MemoryBank.open(tmp_path, {"model": "m"}, UniformRetriever(), recent_frames=1) as writer:
        write_video(writer, make_video("v", 2))
        with MemoryBank.open(
            tmp_path, {"model": "m"}, UniformRetriever(), recent_frames=1
        ) as reader:
            reader._store.database.rows("BEGIN")
            assert len(reader.catalog.segments("v")) == 2
            begun = time.monotonic()
            writer.write(make_video("v", 3)[2])
            assert time.monotonic() - begun < 10  # SQLite would give up only after 30 s
            assert len(reader.catalog.segments("v")) == 2  # its moment
            reader._store.database._db.rollback()
            assert len(reader.catalog.segments("v")) == 3
