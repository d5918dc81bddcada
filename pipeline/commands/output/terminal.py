"""Text of commands in a terminal: a progress bar, and an answer with its citations."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pipeline.config.units import format_span, format_time
from pipeline.schema import Answer, CitedLine

if TYPE_CHECKING:
    from encoders.schema import VideoInfo
    from pipeline.ingest.ingester import Progress as Report


def encoding_bar(info: "VideoInfo") -> AbstractContextManager["Report"]:
    """The progress bar of a video that is encoded."""
    return progress_bar(Path(info.path).name, info.duration)


@contextmanager
def progress_bar(name: str, duration: float) -> Iterator["Report"]:
    """A bar on stderr with video time, speed and bytes; a line in 10 s outside a terminal."""
    began, console = time.perf_counter(), Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[video]}  {task.fields[speed]}  {task.fields[size]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        job = bar.add_task(
            f"encoding {name}", total=max(duration, 1e-6), video="00:00", speed="", size=""
        )
        reported = began  # seconds of perf_counter()

        def report(seconds: float, nbytes: int) -> None:
            nonlocal reported
            now = time.perf_counter()
            speed = f"{seconds / max(now - began, 1e-6):.1f}x real time"
            video = f"{format_time(seconds)} / {format_time(duration)}"
            size = f"{nbytes / 1e6:.1f} MB"
            bar.update(job, completed=min(seconds, duration), video=video, speed=speed, size=size)
            if not console.is_terminal and now - reported > 10:
                reported = now
                print(f"encoding {name}: {video}, {speed}, {size}", file=sys.stderr, flush=True)

        yield report


def format_answer(answer: Answer) -> str:
    """Citations, warning and figures of an answer as lines of text."""
    if answer.spans:
        lines = ["seen at " + ", ".join(format_span(a, b) for a, b in answer.spans)]
    else:
        lines = [
            "no moment of the video shows it" if not answer.shown else "no single moment stands out"
        ]
    lines += [
        f"{_channel(line)} at {format_time(line.start)} ({line.start:.1f} s): {line.text}"
        for line in answer.lines[:3]
    ]
    lines += [f"warning: {answer.warning}"] if answer.warning else []
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in answer.seconds.items())
    lines.append(
        f"{answer.frames_read} frames, {answer.visual_tokens} visual tokens; seconds: {stages}"
    )
    return "\n".join(lines)


def _channel(line: CitedLine) -> str:
    """Such as "subtitle"; with a hint when the answer does not use the line."""
    return line.channel if line.read else f"beside it, {line.channel}"
