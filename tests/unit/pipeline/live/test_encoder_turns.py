"""Streams that share an encoder: who comes first, and what is left out when there is too much."""

import threading
import time

import numpy as np
import pytest

from encoders.sources.live.push_source import PushSource
from pipeline.live.encoder_turns import DEFERRED_S, EncoderTurns


def test_the_stream_that_loses_frames_first_comes_first_and_nobody_is_forgotten():
    turns, order = EncoderTurns(), list[str]()
    urgent = {"calm": (0.1, 9.0), "full": (1.0, 1.0), "old": (0.1, 14.0), "last": (0.0, 40.0)}
    go_on, threads = threading.Event(), []

    def work(name: str) -> None:
        with turns.turn(lambda: urgent[name]):
            order.append(name)

    with turns.turn(lambda: (0.0, 0.0)):
        assert not turns.is_contended
        for name in urgent:
            threads.append(threading.Thread(target=work, args=(name,)))
            threads[-1].start()
        until = time.monotonic() + 10
        while len(turns._waiting) < len(urgent):
            assert time.monotonic() < until
            time.sleep(0.005)
        assert turns.is_contended and order == []
    for thread in threads:
        thread.join(10)
    assert order == ["last", "full", "old", "calm"] and not turns.is_contended
    with pytest.raises(RuntimeError), turns.turn(lambda: (0.0, 0.0)):
        raise RuntimeError
    with turns.turn(lambda: (0.0, 0.0)):  # an error gave the turn back
        go_on.set()
    assert go_on.is_set() and turns.longest_wait > 0


def test_a_turn_lets_what_is_more_urgent_go_first_and_not_for_ever():
    """A turn begins when the waiting questions are gone, and at the latest after DEFERRED_S."""
    asks = threading.Event()
    asks.set()
    turns = EncoderTurns(is_deferred=asks.is_set)
    threading.Timer(0.2, asks.clear).start()
    began = time.monotonic()
    with turns.turn(lambda: (0.0, 0.0)):
        assert not asks.is_set() and time.monotonic() - began >= 0.15
    asks.set()
    began = time.monotonic()
    with turns.turn(lambda: (0.0, 0.0)):
        assert asks.is_set() and time.monotonic() - began >= DEFERRED_S


def test_a_source_is_thinned_in_figures_and_says_how_urgent_it_is():
    source = PushSource("a", 1.0, width=32, height=32, queue_frames=4)
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    source.start_clock(0.0)
    assert source.urgency == (0.0, 0.0)
    assert [source.push(picture, at=float(second)) for second in range(4)] == [True] * 4
    share, age = source.urgency
    assert share == 1.0 and age >= 3.0
    source.thinning = 4
    assert [source.push(picture, at=float(second)) for second in range(4, 12)].count(True) == 2
    assert (source.frames_sampled, source.left_out, source.dropped) == (6, 6, 2)
