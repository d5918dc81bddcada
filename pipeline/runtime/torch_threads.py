"""How many threads torch may use, and in which thread. Knows nothing of videos."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def has_threads_to_share() -> bool:
    """Whether this thread has more than one torch thread. A single one cannot be divided: two
    workers would take turns on one core, or use a core that was reserved for others (`threads=1`,
    OMP_NUM_THREADS=1)."""
    return torch.get_num_threads() > 1


def single_worker(threads: int) -> ThreadPoolExecutor:
    """An executor with one worker that uses `threads` torch threads. Use it in a `with`."""
    return ThreadPoolExecutor(1, "torch-worker", initializer=set_torch_threads, initargs=(threads,))


@contextmanager
def divided_threads(workers: int = 2) -> Iterator[int]:
    """Divide this thread's torch threads among `workers` that mostly compute at the same time,
    itself included; -> threads of each. Small matrices do not divide well, so two workers with half
    of the cores each are faster than two with all of them. Large matrices are faster with all,
    because one worker waits at the beginning and at the end."""
    before = torch.get_num_threads()
    each = max(1, before // workers)
    set_torch_threads(each)
    try:
        yield each
    finally:
        set_torch_threads(before)


@contextmanager
def one_thread(enabled: bool = True) -> Iterator[None]:
    """One torch thread for what this thread computes, if `enabled`. A token of a small model is
    hundreds of products of some microseconds each. Where waiting threads sleep
    (OMP_WAIT_POLICY=passive), waking them takes longer than the product."""
    before = torch.get_num_threads()
    if enabled:
        set_torch_threads(1)
    try:
        yield
    finally:
        set_torch_threads(before)


def set_torch_threads(count: int) -> None:
    """Let torch use `count` threads for what the calling thread computes.

    `torch.set_num_threads` applies to the calling thread and to every thread that computes for the
    first time afterwards. The latter default is read and restored in short-lived threads, which
    takes a tenth of a millisecond.
    """
    if count == torch.get_num_threads():
        return
    default: list[int] = []
    with _setting:
        _in_new_thread(lambda: default.append(torch.get_num_threads()))
        torch.set_num_threads(count)
        _in_new_thread(lambda: torch.set_num_threads(default[0]))


_setting = threading.Lock()  # two threads at once would take each other's number for the default


def _in_new_thread(call: Callable[[], None]) -> None:
    """In a thread that has never computed."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
