"""Brings notices out: each notifier has a thread and a queue on disk of its own.

A place that does not answer holds up neither the other places nor the stream. It is tried again at
growing intervals. What is refused for good, or too old, goes to a dead-letter file, a line each.
Every notice is delivered at least once, also over restarts; its id is the same in every try.
"""

import json
import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.alerts.alert_store import AlertStore, Delivery
from pipeline.alerts.schema import DeliveryError, Notifier

log = logging.getLogger(__name__)

DEAD_LETTERS = "dead-letters.jsonl"
_CLOSE_S = 1.0  # that a try may still take when the process ends; it is repeated later


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a place that fails is tried."""

    first_s: float = 1.0  # before the second try; twice as long before each further one
    longest_s: float = 600.0
    expires_s: float = 86_400.0  # age from which a notice is no more tried


class Outbox:
    """Delivers what an alert store says is waiting."""

    def __init__(
        self,
        store: AlertStore,
        notifiers: Mapping[str, Notifier],
        patience: Patience | None = None,
    ) -> None:
        self.names = tuple(notifiers)
        self.problems = dict.fromkeys(notifiers, "")  # why the last try failed; "": it did not
        self._store, self._patience = store, patience or Patience()
        self._changed = threading.Condition()
        self._is_closing, self._wakes = False, 0
        self._threads = [
            threading.Thread(target=self._run, args=each, name=f"notifier-{each[0]}", daemon=True)
            for each in notifiers.items()
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look for new notices now."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Stop. What waits is delivered by the next process."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_CLOSE_S)

    def _run(self, name: str, notifier: Notifier) -> None:
        failures = 0
        while not self._is_closing:
            # before looking, so that a notice which comes in between is not overlooked
            wakes, before = self._wakes, failures
            try:
                delivery = self._store.next_delivery(name)
                if delivery is None:
                    self._wait(30.0, wakes)
                    continue
                failures = self._deliver(delivery, notifier, failures)
            except Exception:  # such as a full disk: the thread goes on, or no notice would come
                if self._is_closing:  # the store may be closed
                    return
                log.exception("reelbank: notify=%s failed", name)
                failures += 1
            if failures > before:
                self._back_off(failures)

    def _deliver(self, delivery: Delivery, notifier: Notifier, failures: int) -> int:
        """Try once, and keep how it ended; the failures in a row, these tries included."""
        name, error = delivery.notifier, None
        try:
            self._check_age(delivery, self.problems[name])
            notifier.send(delivery.notice)
        except DeliveryError as failure:
            error = failure
        except Exception as accident:
            log.exception("reelbank: notify=%s failed", name)
            error = DeliveryError(f"failed ({accident})")
        if self._is_closing:  # the store may be closed
            return failures
        if error is None:
            self.problems[name] = ""
            self._store.settle(delivery, "sent")
            return 0
        if error.passes:
            self._store.settle(delivery, "waiting", str(error))
            self._tell(name, notifier, str(error), "is tried again")
            return failures + 1
        self._bury(delivery, notifier, str(error))
        self._tell(name, notifier, str(error), f"the notice is in {DEAD_LETTERS}")
        return failures

    def _check_age(self, delivery: Delivery, problem: str) -> None:
        if time.time() - delivery.made > self._patience.expires_s:
            raise DeliveryError(problem or "could not be delivered in time", passes=False)

    def _bury(self, delivery: Delivery, notifier: Notifier, problem: str) -> None:
        """Write the notice to the dead-letter file, then stop trying."""
        line = {
            "at": round(time.time(), 3),
            "notifier": delivery.notifier,
            "address": notifier.address,
            "problem": problem,
            "tries": delivery.tries + 1,
            "notice": delivery.notice.body,
        }
        with (self._store.folder / DEAD_LETTERS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._store.settle(delivery, "dead", problem)

    def _tell(self, name: str, notifier: Notifier, problem: str, outcome: str) -> None:
        """One warning for the same failure."""
        if problem != self.problems[name]:
            self.problems[name] = problem
            log.warning(
                "reelbank: warning: notify=%s to %s %s; %s",
                name,
                notifier.address,
                problem,
                outcome,
            )

    def _back_off(self, failures: int) -> None:
        longest = self._patience.first_s * 2 ** min(failures - 1, 30)
        self._wait(min(longest, self._patience.longest_s) * random.uniform(0.5, 1.0))

    def _wait(self, seconds: float, wakes: int | None = None) -> None:
        """Wait for so long, or until the outbox closes. wakes: or until there are more of them."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closing or wakes not in (None, self._wakes), seconds
            )
