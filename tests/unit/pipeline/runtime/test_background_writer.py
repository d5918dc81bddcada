"""The background writer: bounded, in order, and honest about what is written."""

import threading
import time

import pytest

from pipeline.runtime.background_writer import BackgroundWriter
from tests.support.records import make_segment

SEGMENTS = [make_segment(number=number) for number in range(6)]


def test_flush_waits_for_everything_that_was_put():
    written: list[int] = []

    def slow(segment) -> int:
        time.sleep(0.02)
        written.append(segment.number)
        return 10

    with BackgroundWriter(slow) as writer:
        writer.flush()  # nothing yet: returns
        for segment in SEGMENTS[:3]:
            writer.put(segment)
        writer.flush()
        assert written == [0, 1, 2] and writer.nbytes == 30
        for segment in SEGMENTS[3:]:
            writer.put(segment)
    assert written == [0, 1, 2, 3, 4, 5]  # leaving the block flushes


def test_a_full_queue_makes_put_wait():
    """Of 6 segments, 2 fit into the queue and one is being written. The fourth waits until the
    writer continues.
    """
    go_on, put, done = threading.Event(), [], []

    def stuck(segment) -> int:
        assert go_on.wait(10)
        done.append(segment.number)
        return 1

    def feed() -> None:
        with BackgroundWriter(stuck, depth=2) as writer:
            for segment in SEGMENTS:
                writer.put(segment)
                put.append(segment.number)

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(0.2)
    assert len(put) <= 3 and done == []
    go_on.set()
    feeder.join()
    assert put == done == [0, 1, 2, 3, 4, 5]


def test_what_a_write_raises_is_raised_by_flush_and_nothing_is_written_after_it():
    written = []

    def full(segment) -> int:
        if segment.number == 1:
            raise OSError(28, "No space left on device")
        written.append(segment.number)
        return 10

    with pytest.raises(OSError, match="No space left"), BackgroundWriter(full) as writer:
        for segment in SEGMENTS[:3]:
            writer.put(segment)
        writer.flush()
    assert written == [0] and writer.nbytes == 10
