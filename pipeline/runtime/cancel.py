"""Ending an answer between two tokens. Knows no model."""

import threading
from collections.abc import Callable

Emit = Callable[[str], None]  # gets the pieces of an answer's text


class Cancelled(Exception):
    """The answer is no longer wanted."""


def raise_if_cancelled(cancelled: threading.Event | None) -> None:
    """Raise Cancelled once the event is set; None: never."""
    if cancelled is not None and cancelled.is_set():
        raise Cancelled
