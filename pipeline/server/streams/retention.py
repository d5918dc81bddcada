"""What becomes of the old segments of a stream: stored in fewer bits first, deleted later.

Runs in a thread of its own while the stream is watched, between its segments: the bank's one writer
is this process, and the encoder waits for one segment at most. Questions go on: a reader finds each
segment whole, old or new (memory/compaction/compaction.py). OmniLive (arXiv 2412.09596) has such a
worker, which turns short-term into long-term memory with a trained model; here it rounds numbers.
"""

import logging
import threading
import time
from types import TracebackType

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.storage.retention import Rule
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.config import units
from pipeline.server.streams.stream_settings import StreamSettings

log = logging.getLogger(__name__)

_EVERY_S = 300.0  # or as often as the age of what is compacted, where that is less


class Retention:
    """`with Retention(settings, bank):` looks after the old segments of one stream."""

    def __init__(self, settings: StreamSettings, bank: MemoryBank) -> None:
        self._settings, self._bank = settings, bank
        self._stopped = threading.Event()
        self._warning = ""
        name = f"retention-{settings.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> "Retention":
        own = self._settings
        if own.older_than or own.max_bytes or own.compact_after:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends behind the segment that is being rewritten."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def apply(self) -> None:
        """Delete what is older or more than the stream may keep, and compact what is old."""
        if self._bank.catalog.video(self._settings.name) is None:
            return
        for step in (self._prune, self._compact):
            try:
                step()
            except UserError as error:  # such as a full disk; the stream goes on
                if str(error) != self._warning:
                    self._warning = str(error)
                    log.warning("reelbank: warning: stream %s: %s", self._settings.name, error)

    def _run(self) -> None:
        pause = _EVERY_S
        if self._settings.compact_after:
            age = units.parse_age("compact_after", self._settings.compact_after)
            pause = min(pause, max(age, 1.0))
        while not self._stopped.is_set():
            try:
                self.apply()
            except Exception:
                log.exception("reelbank: the retention of stream %s failed", self._settings.name)
            self._stopped.wait(pause)

    def _prune(self) -> None:
        own = self._settings
        if not (own.older_than or own.max_bytes):
            return
        before = (
            time.time() - units.parse_age("older_than", own.older_than) if own.older_than else None
        )
        most = units.parse_size("max_bytes", own.max_bytes) if own.max_bytes else None
        self._bank.prune(Rule(own.name, before, most, counts_alone=True))

    def _compact(self) -> None:
        own = self._settings
        if not own.compact_after:
            return
        before = time.time() - units.parse_age("compact_after", own.compact_after)
        self._bank.compaction.run(
            Rule(own.name, before),
            StorageFormat(own.compact_dtype, own.compact_dtype),
            is_stopped=self._stopped.is_set,
        )
