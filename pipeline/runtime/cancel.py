"""Ending an answer between two tokens. Knows no model."""

import threading
from collections.abc import Callable

Emit = Callable[[str], None]


class Cancelled(Exception):
    """Nobody wants this answer any more."""


def _go_on(cancelled: threading.Event | None) -> None:
    if cancelled is not None and cancelled.is_set():
        raise Cancelled
