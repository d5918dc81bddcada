"""Keeps a process at its own scheduling policy while it encodes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def own_priority() -> Iterator[None]:
    """Threads that get another scheduling policy meanwhile get back that of the calling one.

    SVT-AV1 begins by giving a process of root real-time priority (SCHED_FIFO), and all that runs
    beside it then waits. Without effect where the system has no such policies.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            for thread in map(int, os.listdir(_THREADS)):
                try:
                    if os.sched_getscheduler(thread) != policy:
                        os.sched_setscheduler(thread, policy, parameters)
                except ProcessLookupError:  # it ended meanwhile
                    continue
