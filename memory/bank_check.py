"""Finds damage in a bank and repairs what the bank itself can restore: `bank.check`.

Knows the store; no retriever and no encoder. Damaged segments are encoded again by
`pipeline/commands/repair.py`.
"""

from collections.abc import Callable
from pathlib import Path

from memory.storage.os_errors import as_user_errors
from memory.store import DiskStore, Problem


class BankCheck:
    """Reports problems. Every repair raises UserError if the disk refuses, or if another process
    writes."""

    def __init__(self, root: Path, store: DiskStore, begin_writing: Callable[[], None]) -> None:
        self._root, self._store, self._begin_writing = root, store, begin_writing

    def verify(self) -> list[Problem]:
        """Read every file and list all problems."""
        return self._store.verify()

    def verify_videos(self) -> list[Problem]:
        """Problems with the files that describe videos; no segment is read."""
        return self._store.verify_videos()

    def repair_text(self) -> list[Problem]:
        """Write damaged text files again from the catalog. Returns the problems that this
        solved."""
        self._begin_writing()
        with as_user_errors(self._root):
            return self._store.repair_text()

    def clear_window(self) -> list[Problem]:
        """Delete damaged blocks of recent windows. Returns all problems that the windows had."""
        self._begin_writing()
        with as_user_errors(self._root):
            return self._store.clear_window()

    def refill_window(self) -> list[Problem]:
        """Fill missing blocks of recent windows from the segment files. Returns the problems that
        this solved."""
        self._begin_writing()
        with as_user_errors(self._root):
            return self._store.refill_window()
