"""How far a batch is, on stderr: a bar for videos, one for questions, time left, failures so far; plain lines when it is not
a terminal. Knows events and no files."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.batch.schema import Answered, Encoded, Encoding, Task, Tell

_EVERY_S = 10.0  # between two plain lines


class _Counts:
    """What has happened so far."""

    def __init__(self, tasks: list[Task]) -> None:
        # questions of each video; a file may come in several parts
        self.left = {task.name: 0 for task in tasks}
        for task in tasks:
            self.left[task.name] += len(task.jobs)
        self.videos, self.questions = len(self.left), sum(self.left.values())
        self.done = self.failed = 0
        self.now = ""

    def take(self, event: object) -> None:
        if isinstance(event, Encoding):
            self.now = f"encoding {event.video}: {event.done:.0f} of {event.total:.0f} s"
        elif isinstance(event, Encoded):
            self.now = f"asking {event.video}"
        elif isinstance(event, Answered):
            self.done += 1
            self.failed += event.row["error"] is not None
            self.left[event.row["video"]] -= 1

    @property
    def videos_done(self) -> int:
        return sum(not left for left in self.left.values())


@contextmanager
def shown(tasks: list[Task]) -> Iterator[Tell]:
    """Tell it every event."""
    counts, console, began = _Counts(tasks), Console(stderr=True), time.perf_counter()
    told = began
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

        def tell(event: object) -> None:
            nonlocal told
            counts.take(event)
            bar.update(videos, completed=counts.videos_done, note=counts.now)
            bar.update(questions, completed=counts.done, note=f"{counts.failed} failed")
            if not console.is_terminal and time.perf_counter() - told > _EVERY_S:
                told = time.perf_counter()
                print(line(counts, told - began), file=sys.stderr, flush=True)

        yield tell


def line(counts: _Counts, seconds: float) -> str:
    """ "videos 3 of 20, questions 31 of 200, 0 failed, 125 s left; encoding a.mp4: 8 of 120 s"."""
    left = (
        f"{seconds / counts.done * (counts.questions - counts.done):.0f} s left"
        if counts.done
        else "no answer yet"
    )
    return (
        f"videos {counts.videos_done} of {counts.videos}, questions {counts.done} of {counts.questions}, "
        f"{counts.failed} failed, {left}; {counts.now}"
    )
