"""An iterator whose items are computed ahead in a thread: while one segment passes the decoder, the
next one passes the vision tower and the one after it is decoded from the file.

Knows no frames and no models, only items and the number of torch threads. Shapes and numbers of
threads are the same as without running ahead, so the bytes are the same.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from pipeline.runtime.torch_threads import set_torch_threads

T = TypeVar("T")


class RunAhead(Generic[T]):
    """`with RunAhead(items, depth=1) as ahead: for item in ahead: ...`: the same items, computed in
    another thread.

    An error while an item is computed is raised in place of that item. Leaving the block ends the
    thread after the current item; a generator is closed in the thread that ran it.
    """

    def __init__(self, items: Iterable[T], depth: int, *, threads: int | None = None) -> None:
        """depth: items that may wait; the thread pauses when there are so many. threads: torch
        threads of the thread; None = the default."""
        self._items, self._depth, self._threads = items, depth, threads
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._stop = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="run-ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._iterate()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        self._thread.join()

    def _iterate(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended)
                if not self._ready:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._ready.popleft()
                self._changed.notify_all()
            yield item

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            if self._threads is not None:
                set_torch_threads(self._threads)
            self._compute()
        except BaseException as raised:  # raised again in the thread that iterates
            error = raised
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def _compute(self) -> None:
        items = iter(self._items)
        try:
            for item in items:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._stop)
                    if self._stop:
                        return
                    self._ready.append(item)
                    self._changed.notify_all()
        finally:
            if hasattr(items, "close"):
                items.close()
