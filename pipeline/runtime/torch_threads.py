"""How many threads torch may use, and in which thread. Knows nothing of videos."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


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
