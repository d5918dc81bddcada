"""Progress of a batch on stderr: bars for videos and questions, or plain lines without a terminal.

Knows events and no files.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.batch.schema import EmitEvent, EncodeProgress, QuestionAnswered, Task, VideoEncoded

_EVERY_S = 10.0  # seconds between two plain lines


class _Counts:
    """Totals so far."""

    def __init__(self, tasks: list[Task]) -> None:
        # unanswered questions of each video; several tasks may share one
        self.pending = {task.name: 0 for task in tasks}
        for task in tasks:
            self.pending[task.name] += len(task.jobs)
        self.videos, self.questions = len(self.pending), sum(self.pending.values())
        self.done = self.failed = 0
        self.now = ""

    def update(self, event: object) -> None:
        if isinstance(event, EncodeProgress):
            self.now = f"encoding {event.video}: {event.done:.0f} of {event.total:.0f} s"
        elif isinstance(event, VideoEncoded):
            self.now = f"asking {event.video}"
        elif isinstance(event, QuestionAnswered):
            self.done += 1
            self.failed += event.row["error"] is not None
            self.pending[event.row["video"]] -= 1

    @property
    def videos_done(self) -> int:
        return sum(not pending for pending in self.pending.values())


@contextmanager
def show_progress(tasks: list[Task]) -> Iterator[EmitEvent]:
    """Yields a function that takes every event."""
    counts, console, start = _Counts(tasks), Console(stderr=True), time.perf_counter()
    last_print = start
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        videos = bar.add_task("videos", total=counts.videos, note="")
        questions = bar.add_task("questions", total=counts.questions, note="")

        def emit(event: object) -> None:
            nonlocal last_print
            counts.update(event)
            bar.update(videos, completed=counts.videos_done, note=counts.now)
            bar.update(questions, completed=counts.done, note=f"{counts.failed} failed")
            if not console.is_terminal and time.perf_counter() - last_print > _EVERY_S:
                last_print = time.perf_counter()
                print(status_line(counts, last_print - start), file=sys.stderr, flush=True)

        yield emit


def status_line(counts: _Counts, seconds: float) -> str:
    """ "videos 3 of 20, questions 31 of 200, 0 failed, 125 s left; encoding a.mp4: 8 of 120 s"."""
    pending = (
        f"{seconds / counts.done * (counts.questions - counts.done):.0f} s left"
        if counts.done
        else "no answer yet"
    )
    return (
        f"videos {counts.videos_done} of {counts.videos}, questions {counts.done} of "
        f"{counts.questions}, "
        f"{counts.failed} failed, {pending}; {counts.now}"
    )
