"""What other processes do in tests, and the server that they are forked from.

The server has torch and all of our code imported, so a process starts in a tenth of a second
instead of four. Makes no claim: the tests that start these processes do.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from memory.storage import crash_points
from memory.storage.retention import Rule
from memory.storage.segments.segment_codec import StorageFormat
from pipeline import build, cli
from pipeline.config.compose import compose
from tests.support import (
    toys,  # noqa: F401  (imported for the server)
)
from tests.support.records import info, make_segment, same

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.warm"])


def start(target: Any, *args: Any) -> tuple[Any, Connection]:
    """A process that runs target(*args, connection), and the other end of the connection."""
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=target, args=(*args, there), daemon=True)
    process.start()
    there.close()
    return process, here


def receive_all(connection: Connection) -> list[Any]:
    """All that a process has said, up to its end."""
    messages = []
    try:
        while True:
            messages.append(connection.recv())
    except EOFError:
        return messages


def ingest(
    overrides: Sequence[str], die_at: tuple[str, int] | None, connection: Connection
) -> None:
    """`reelbank ingest` as far as it gets.

    Sends ("begin",) when everything is loaded, ("step", name) at each step of a commit, and
    ("acknowledged", number) once `bank.write` has returned. die_at: SIGKILL at the n-th pass of the
    step of this name, counted from 1; the name "" stands for any step.
    """
    torch.set_num_threads(1)
    config = compose("ingest", overrides)
    backbone = build.build_backbone(config)
    source = build.build_source(config, backbone)
    count = 0

    def reached(name: str) -> None:
        nonlocal count
        connection.send(("step", name))
        if die_at is not None and die_at[0] in ("", name):
            count += 1
            if count == die_at[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    connection.send(("begin",))
    crash_points.hook = reached  # before the bank is created
    qa = build.build_qa(config, backbone)
    write = qa.bank.write

    def acknowledge(segment: Any) -> int:
        nbytes: int = write(segment)
        connection.send(("acknowledged", segment.number))
        return nbytes

    qa.bank.write = acknowledge  # type: ignore[method-assign]
    with qa.bank:
        qa.ingest(source)


def ask_on_demand(overrides: Sequence[str], die_at: str | None, connection: Connection) -> None:
    """Add a film to a bank that encodes on demand, and have all of it encoded.

    die_at: SIGKILL at the first pass of the step of this name while segments are encoded.
    """
    torch.set_num_threads(1)
    config = compose("ask", overrides)
    backbone = build.build_backbone(config)
    source = build.build_source(config, backbone)
    qa = build.build_qa(config, backbone)

    def reached(name: str) -> None:
        if name == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with qa.bank:
        qa.ingest(source)
        qa.bank.end_writing()
        crash_points.hook = reached
        qa.ask(Question("What is the code?", source.info.video_id))


def ingest_and_hold(overrides: Sequence[str], count: int, connection: Connection) -> None:
    """`reelbank ingest` that stands still behind so many segments, still the bank's writer.

    Sends "holds" then, and goes on never.
    """
    torch.set_num_threads(1)
    config = compose("ingest", overrides)
    backbone = build.build_backbone(config)
    source = build.build_source(config, backbone)
    qa = build.build_qa(config, backbone)
    with qa.bank:
        qa.ingest(source, until=count - 1)
        connection.send("holds")
        time.sleep(600)


def _dying_at(die_at: int, connection: Connection) -> Callable[[str], None]:
    """Sends the name of each step; SIGKILL at the step of this number, counted from 1."""
    count = 0

    def reached(name: str) -> None:
        nonlocal count
        connection.send(name)
        count += 1
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def compact(
    root: Path, rule: Rule, storage_format: StorageFormat, die_at: int, connection: Connection
) -> None:
    """Compact a bank. Sends the name of each step; SIGKILL at the step of this number, counted from
    1.
    """
    torch.set_num_threads(1)
    with MemoryBank.open(root, None, UniformRetriever(), recent_frames=0, create=False) as bank:
        crash_points.hook = _dying_at(die_at, connection)
        bank.compaction.run(rule, storage_format)


def prune(root: Path, rule: Rule, die_at: int, connection: Connection) -> None:
    """Prune a bank. Sends the name of each step; SIGKILL at the step of this number, counted from
    1.
    """
    torch.set_num_threads(1)
    with MemoryBank.open(root, None, UniformRetriever(), recent_frames=0, create=False) as bank:
        crash_points.hook = _dying_at(die_at, connection)
        bank.prune(rule)


def command(arguments: Sequence[str], connection: Connection) -> None:
    """The command line in a process of its own. Sends the exit code; its stderr goes to the
    connection too.
    """
    torch.set_num_threads(1)
    read, write = os.pipe()
    os.dup2(write, 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    code: Any = 0
    try:
        cli.main(arguments)
    except SystemExit as done:
        code = done.code
    sys.stderr.flush()
    os.set_blocking(read, False)
    try:
        err = os.read(read, 1 << 16).decode()
    except BlockingIOError:
        err = ""
    connection.send((code, err))


def write_for(root: Path, seconds: float, pause: float, connection: Connection) -> None:
    """Write segments for so many seconds. Sends (number, second before, second after it was
    acknowledged) of each.
    """
    torch.set_num_threads(1)
    with MemoryBank.open(root, {"model": "m"}, UniformRetriever(), recent_frames=1) as bank:
        bank.record_video(info(), 1.0, finished=False)
        begun, number = time.monotonic(), 0
        while time.monotonic() < begun + seconds:
            segment = make_segment("v", number)
            before = time.monotonic()
            bank.write(segment)
            connection.send((number, before, time.monotonic()))
            number += 1
            time.sleep(pause)
        bank.record_video(info(), 1.0, finished=True)


def read_until_finished(root: Path, connection: Connection) -> None:
    """Send "ready", then look for new segments until the video is finished, and compare each bit by
    bit.

    Sends (second before the look, second after it, number of segments) when there were new ones,
    and ("torn", number) of a segment that is not whole.
    """
    torch.set_num_threads(1)
    with MemoryBank.open(
        root, {"model": "m"}, UniformRetriever(), recent_frames=1, create=False
    ) as bank:
        previous, finished = 0, False
        connection.send("ready")
        while not finished:
            video = bank.catalog.video("v")
            finished = video is not None and video.finished
            before = time.monotonic()
            # as a question looks: what has come since, not all rows again
            count, _ = bank.catalog.next("v")
            if count > previous:
                connection.send((before, time.monotonic(), count))
            for number in range(previous, count):
                if not same(bank.catalog.read_segment("v", number), make_segment("v", number)):
                    connection.send(("torn", number))
            previous = count
            time.sleep(0.01)
