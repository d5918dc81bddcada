"""Ending an answer between two tokens. Knows no model."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Emit = Callable[[str], None]  # gets the pieces of an answer's text
_POLL_S = 0.05  # how often somebody who waits checks whether that was cancelled


class Cancelled(Exception):
    """The answer is no longer wanted."""


def raise_if_cancelled(cancelled: threading.Event | None) -> None:
    """Raise Cancelled once the event is set; None: never."""
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


@contextmanager
def unless_cancelled(lock: threading.Lock, cancelled: threading.Event | None) -> Iterator[None]:
    """The lock in the block. Raises Cancelled where that is set before the block begins."""
    while not lock.acquire(timeout=-1 if cancelled is None else _POLL_S):
        raise_if_cancelled(cancelled)
    try:
        raise_if_cancelled(cancelled)
        yield
    finally:
        lock.release()
