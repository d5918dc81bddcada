"""What stderr tells of films that are encoded: progress, a summary, and what to type next."""

import logging
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.default_bank import default_bank
from pipeline.config.tasks.pipeline_settings import IngestSettings, Messages
from pipeline.config.tasks.question_settings import FindSettings
from pipeline.config.units import format_duration, format_size, format_time

if TYPE_CHECKING:
    from encoders.schema import VideoInfo
    from pipeline.ingest.ingester import Progress as Report

_INTERVAL = 10.0  # seconds between two lines outside a terminal


class EncodingMessages:
    """Shows the progress of each film that is encoded; an object is the `show_progress` of Engine.

    settings.messages says how much is told.
    """

    def __init__(self, settings: IngestSettings | FindSettings) -> None:
        self._settings = settings
        self._encodes = False  # whether anything had to be encoded
        self._told = time.perf_counter()  # when the last line about segments was printed

    @contextmanager
    def __call__(self, info: "VideoInfo") -> Iterator["Report"]:
        """Follow the encoding of one film."""
        self._encodes = True
        pass_ = _Pass(info)
        if self._settings.messages == Messages.none:
            with _silent_text():
                yield pass_.report
            return
        with _bar(pass_) as report:
            yield report
        if self._settings.messages == Messages.summary and pass_.seconds > 0:
            print(f"{pass_.name}: {pass_.summary()}", file=sys.stderr, flush=True)

    def show_segments(self, done: int, of: int) -> None:
        """How many of the segments that a question reads are encoded: one line that changes in a
        terminal, and lines elsewhere."""
        if self._settings.messages == Messages.none:
            return
        text, now = (
            f"encoding what the question reads: {done} of {of} segments",
            time.perf_counter(),
        )
        if sys.stderr.isatty():
            text = "" if done == of else text
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif now - self._told > _INTERVAL and done < of:
            self._told = now
            print(text, file=sys.stderr, flush=True)

    def suggest(self, *words: str) -> None:
        """A command to try next, after a film was encoded. words: behind `reelbank`."""
        if not self._encodes or self._settings.messages != Messages.summary:
            return
        bank = self._settings.bank
        option = [] if bank == default_bank() else ["--bank", bank]
        line = shlex.join(["reelbank", *words, *option])
        print(f"next: {line}", file=sys.stderr, flush=True)

    def hint(self, text: str) -> None:
        """A sentence about a better way to ask."""
        if self._settings.messages == Messages.summary:
            print(f"hint: {text}", file=sys.stderr, flush=True)


@contextmanager
def progress_bar(info: "VideoInfo") -> Iterator["Report"]:
    """The progress of one film, without a summary."""
    with _bar(_Pass(info)) as report:
        yield report


def question_to_try(settings: IngestSettings | FindSettings) -> str:
    """A question that the model of these settings understands."""
    knows_cards_alone = settings.backbone.get("questions") == "needle_world"
    return "What is the code on the card?" if knows_cards_alone else "What happens?"


class _Pass:
    """How far the encoding of a film is."""

    def __init__(self, info: "VideoInfo") -> None:
        self.name, self.duration = Path(info.path).name, info.duration
        self.begin: float | None = None  # seconds of video time; where this pass begins
        self.end, self.nbytes = 0.0, 0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of video that this pass encoded."""
        return self.end - (self.begin or 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds since the pass began."""
        return max(time.perf_counter() - self._started, 1e-6)

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at this speed; None before the first segment."""
        if self.seconds <= 0:
            return None
        return max(self.duration - self.end, 0.0) * self.elapsed / self.seconds

    def report(self, seconds: float, nbytes: int) -> None:
        """seconds: of video time, encoded up to here. nbytes: written by this pass."""
        if self.begin is None:
            self.begin = seconds
        self.end, self.nbytes = seconds, nbytes

    def speed(self) -> str:
        """Such as "100x real time"."""
        speed = self.seconds / self.elapsed
        return f"{speed:.{1 if speed < 10 else 0}f}x real time"

    def summary(self) -> str:
        """Such as "4.51 h in 2.7 min, 100x real time, 11 MB"."""
        took = f"{format_duration(self.seconds)} in {format_duration(self.elapsed)}"
        return f"{took}, {self.speed()}, {format_size(self.nbytes)}"


@contextmanager
def _silent_text() -> Iterator[None]:
    """Without the log of how far the extraction of words is."""
    log = logging.getLogger("pipeline.ingest.text")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _bar(pass_: _Pass) -> Iterator["Report"]:
    """A bar on stderr with video time, speed, bytes and time left; lines outside a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        job = bar.add_task(f"encoding {pass_.name}", total=max(pass_.duration, 1e-6), facts="")
        reported = time.perf_counter()

        def report(seconds: float, nbytes: int) -> None:
            nonlocal reported
            pass_.report(seconds, nbytes)
            left = "" if pass_.left is None else f", {format_duration(pass_.left)} left"
            facts = (
                f"{format_time(seconds)} / {format_time(pass_.duration)}, {pass_.speed()}, "
                f"{format_size(nbytes)}{left}"
            )
            bar.update(job, completed=min(seconds, pass_.duration), facts=facts)
            now = time.perf_counter()
            if not console.is_terminal and now - reported > _INTERVAL:
                reported = now
                print(f"encoding {pass_.name}: {facts}", file=sys.stderr, flush=True)

        yield report
