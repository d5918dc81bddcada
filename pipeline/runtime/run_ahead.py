"""Work that runs ahead in threads of its own: while one segment is remembered, the next is looked at and one after it decoded.

Knows no frames and no models: items of an iterator, and how many of torch's threads a worker takes. Whatever is computed has
the same shapes and the same number of threads as without running ahead, so the bytes are the same.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from pipeline.runtime.torch_threads import take_threads

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
