"""Work that runs ahead in threads of its own: while one segment is remembered, the next is looked at and one after it decoded.

Knows no frames and no models: items of an iterator, and how many of torch's threads a worker takes. Whatever is computed has
the same shapes and the same number of threads as without running ahead, so the bytes are the same.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class RunAhead(Generic[T]):
    """`with RunAhead(items, depth=1) as ahead: for item in ahead: ...`: the same items, made in another thread.

    What making an item raises is raised where that item would have come. Leaving the block ends the thread after the item in
    hand; a generator is closed in the thread that ran it.
    """

    def __init__(self, items: Iterable[T], depth: int, *, threads: int | None = None) -> None:
        """depth: items that may wait; more are not made. threads: of torch, for what the thread computes; None = its usual."""
        self._items, self._depth, self._threads = items, depth, threads
        self._ready: deque[T] = deque()
        self._news = threading.Condition()
        self._over = self._stop = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="run-ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._news:
            self._stop = True
            self._news.notify_all()
        self._thread.join()

    def _take(self) -> Iterator[T]:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._ready or self._over)
                if not self._ready:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._ready.popleft()
                self._news.notify_all()
            yield item

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            if self._threads is not None:
                take_threads(self._threads)
            self._make()
        except BaseException as raised:  # handed to whoever takes the items
            error = raised
        with self._news:
            self._error, self._over = error, True
            self._news.notify_all()

    def _make(self) -> None:
        items = iter(self._items)
        try:
            for item in items:
                with self._news:
                    self._news.wait_for(lambda: len(self._ready) < self._depth or self._stop)
                    if self._stop:
                        return
                    self._ready.append(item)
                    self._news.notify_all()
        finally:
            if hasattr(items, "close"):
                items.close()


def may_share() -> bool:
    """Whether this thread has more than one of torch's threads. With one there is nothing to divide: two workers would take
    turns on one core, or take a core that somebody meant for others (`threads=1`, OMP_NUM_THREADS=1)."""
    return torch.get_num_threads() > 1


def worker(threads: int) -> ThreadPoolExecutor:
    """One thread for single pieces of work, which takes so many of torch's threads. Use it in a `with`."""
    return ThreadPoolExecutor(1, "beside", initializer=take_threads, initargs=(threads,))


@contextmanager
def shared_cores(workers: int = 2) -> Iterator[int]:
    """This thread's torch threads divided among so many workers that compute at most times, itself among them; -> how many
    each takes. Two workers with half of the cores each come further with small matrices, which do not divide well, than both
    with all of them; with large ones it is the other way round, as one has to wait at the beginning and at the end."""
    before = torch.get_num_threads()
    each = max(1, before // workers)
    take_threads(each)
    try:
        yield each
    finally:
        take_threads(before)


@contextmanager
def one_thread(alone: bool = True) -> Iterator[None]:
    """One of torch's threads for what this thread computes, if `alone`. A token of a small model is hundreds of products of
    some microseconds each: where waiting threads sleep (OMP_WAIT_POLICY=passive), waking them takes longer than the product."""
    before = torch.get_num_threads()
    if alone:
        take_threads(1)
    try:
        yield
    finally:
        take_threads(before)


def take_threads(count: int) -> None:
    """Let torch compute what the calling thread asks for in so many threads.

    `torch.set_num_threads` means the calling thread, and every thread that computes for the first time after it; the latter is
    seen and set back by threads that end at once. Takes a tenth of a millisecond."""
    if count == torch.get_num_threads():
        return
    usual: list[int] = []
    with _setting:
        _elsewhere(lambda: usual.append(torch.get_num_threads()))
        torch.set_num_threads(count)
        _elsewhere(lambda: torch.set_num_threads(usual[0]))


_setting = threading.Lock()  # two that set at once would take each other's number for the usual one


def _elsewhere(call: Callable[[], None]) -> None:
    """In a thread that has never computed."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
