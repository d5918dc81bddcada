"""Processes beside this one for heavy work. They end with this one, however it ends.

They import what they run, and not the program that started them: Python's spawn would run a script
of three lines, without `if __name__ == "__main__":`, again in each worker.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess

_lock = threading.Lock()


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """New interpreters, which import only what their work needs: functions of modules."""
    return ProcessPoolExecutor(workers, _Context(), initializer=_end_with_parent)


@contextmanager
def worker_executor(workers: int) -> Iterator[Executor]:
    """A pool of so many workers, or this process if there are none. Work that nobody waits for at
    the end of the block is dropped."""
    if not workers:
        yield _SameThread()
        return
    pool = worker_pool(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class _SameThread(Executor):
    """Runs what is submitted at once."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        done: Future = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


class _Process(SpawnProcess):
    def start(self) -> None:
        with _without_script():
            super().start()


class _Context(SpawnContext):
    Process = _Process


@contextmanager
def _without_script() -> Iterator[None]:
    """Hide from multiprocessing where the caller's script is."""
    main = sys.modules["__main__"]
    with _lock:
        spec, file = main.__spec__, getattr(main, "__file__", None)
        main.__spec__ = None
        if file is not None:
            del main.__file__
        try:
            yield
        finally:
            main.__spec__ = spec
            if file is not None:
                main.__file__ = file


def _end_with_parent() -> None:
    """Without it, a worker waits forever for work from a process that was killed."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
