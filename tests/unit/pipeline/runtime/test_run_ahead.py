"""Running ahead: the same items, no more than requested, errors in their place, and threads that
end.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders.encoder import Encoder
from encoders.errors import UserError
from pipeline import build
from pipeline.config.compose import compose
from pipeline.runtime.run_ahead import RunAhead
from pipeline.runtime.torch_threads import divided_threads, one_thread, single_worker
from tests.support.records import files
from tests.support.toys import toy_parts
from tests.support.videos import write_video


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
        # the next item is made while this one is held, or this would wait for ever
        for number in ahead:
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

    # a thread that computes for the first time, such as somebody who asks meanwhile
    def elsewhere() -> None:
        seen.append(torch.get_num_threads())

    torch.set_num_threads(4)
    try:
        with divided_threads() as half, single_worker(half) as beside:
            assert half == 2 and torch.get_num_threads() == 2
            assert beside.submit(torch.get_num_threads).result() == 2
            with RunAhead(
                (torch.get_num_threads() for _ in range(1)), depth=1, threads=half
            ) as ahead:
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


def test_with_one_thread_nothing_is_computed_beside_and_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads are one for each of two workers, and give the products of one thread in one
    worker.
    """
    usual, see, where = torch.get_num_threads(), Encoder.extract_features, []

    def seen(self: Encoder, *args: Any, **options: Any) -> Any:
        where.append(threading.current_thread().name)
        return see(self, *args, **options)

    monkeypatch.setattr(Encoder, "extract_features", seen)
    write_video(tmp_path / "a.mp4", 6, 5)
    try:
        for threads in (1, 2):
            more = [
                f"video={tmp_path / 'a.mp4'}",
                "segmenter.seconds=2",
                f"threads={threads}",
                *toy_parts(),
            ]
            config = compose("ingest", [f"bank={tmp_path / str(threads)}", *more])
            backbone = build.build_backbone(config)
            qa = build.build_qa(config, backbone)
            with qa.bank:
                qa.ingest(build.build_source(config, backbone))
    finally:
        torch.set_num_threads(usual)
    assert where == ["MainThread"] * 3 + ["run-ahead"] * 3
    one, two = files(tmp_path / "1"), files(tmp_path / "2")
    assert len(one) == 3 and one == two
