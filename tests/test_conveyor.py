"""Running ahead: the same items, no more of them than asked for, errors where they belong, and threads that end."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from encoders.errors import UserError
from pipeline.conveyor import RunAhead, one_thread, shared_cores, worker


def test_same_items_in_order() -> None:
    with RunAhead(range(100), depth=2) as ahead:
        assert list(ahead) == list(range(100))


def test_no_more_is_made_than_may_wait() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with RunAhead(items(), depth=2) as ahead:
        assert next(ahead) == 0
        time.sleep(0.2)
        assert made == [0, 1, 2, 3]  # one taken, two waiting, one in hand


def test_runs_beside_its_taker() -> None:
    made = [threading.Event() for _ in range(5)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    with RunAhead(items(), depth=1) as ahead:
        for number in ahead:  # the next item is made while this one is held, or this would wait for ever
            assert made[min(number + 1, 4)].wait(60)


def test_error_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise UserError("broken")

    taken = []
    with pytest.raises(UserError, match="broken"), RunAhead(items(), depth=3) as ahead:
        time.sleep(0.1)  # the error is known before the first item is taken
        for item in ahead:
            taken.append(item)
    assert taken == [1]


def test_leaving_early_closes_the_generator_in_its_own_thread() -> None:
    closed_in = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed_in.append(threading.current_thread())

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), RunAhead(items(), depth=1) as ahead:
        next(ahead)
        raise KeyboardInterrupt
    assert closed_in and closed_in[0] is not threading.current_thread()
    assert threading.active_count() == before


def test_one_behind_the_other_ends_as_well() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    before = threading.active_count()
    with RunAhead(endless(), depth=1) as first, RunAhead((x + 1 for x in first), depth=1) as second:
        assert next(second) == 2
    assert threading.active_count() == before


def test_cores_are_shared_and_given_back() -> None:
    usual = torch.get_num_threads()
    seen: list[int] = []

    def elsewhere() -> None:  # a thread that computes for the first time, such as somebody who asks meanwhile
        seen.append(torch.get_num_threads())

    torch.set_num_threads(4)
    try:
        with shared_cores() as half, worker(half) as beside:
            assert half == 2 and torch.get_num_threads() == 2
            assert beside.submit(torch.get_num_threads).result() == 2
            with RunAhead((torch.get_num_threads() for _ in range(1)), depth=1, threads=half) as ahead:
                assert list(ahead) == [2]
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        assert torch.get_num_threads() == 4
        with one_thread():
            assert torch.get_num_threads() == 1
        with one_thread(False):
            assert torch.get_num_threads() == 4
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert seen == [4, 4]
    finally:
        torch.set_num_threads(usual)
