"""The side of the command: a question goes to the bank's resident process, if there is one.

Imports nothing heavy, as it comes before every command.
"""

import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pipeline
from encoders.errors import UserError
from pipeline.resident.place import Place, make_runtime_folder
from pipeline.resident.protocol import (
    BrokenMessageError,
    Message,
    code_state,
    environment_of_command,
    environment_of_libraries,
    peer_uid,
    receive,
    send,
)

TASKS = ("ask", "find")  # of a resident process; other commands are cheap, or take long anyway
MINUTES = 10.0  # without a question, after which a resident process ends

_SECONDS_TO_LISTEN = 10.0  # of a process that was just started
_SECONDS_TO_STOP = 0.5  # for what a cancelled question still writes


def ask_resident(
    task: str,
    overrides: Sequence[str],
    bank: str,
    *,
    start: bool = False,
    minutes: float = MINUTES,
) -> int | None:
    """The exit code of a command that the bank's resident process ran; None if none did.

    start: start the process where none listens; it ends after `minutes` without a question. Its
    output goes to this process's stdout and stderr. Raises what the command raised there: UserError
    or OSError; KeyboardInterrupt when this process is interrupted, which cancels the question.
    """
    if task not in TASKS or os.environ.get("HYDRA_FULL_ERROR") == "1":  # wants a traceback
        return None
    if any("${" in override for override in overrides):  # may name any variable of this process
        return None
    # a model behind an address is loaded nowhere, and the key of its server stays in this process
    if "backbone=endpoint" in overrides:
        return None
    streams = _streams()
    connection = None if streams is None else _connection(bank, start, minutes)
    if connection is None or streams is None:
        return None
    request: Message = {
        "do": "run",
        "task": task,
        "overrides": list(overrides),
        "cwd": os.getcwd(),
        "environment": environment_of_command(os.environ),
        "libraries": environment_of_libraries(os.environ),
        "code": code_state(),
        "encodings": [[one.encoding, one.errors] for one in (sys.stdout, sys.stderr)],
    }
    with connection:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            send(connection, request, streams)
            reply, _ = receive(connection)
        except (OSError, BrokenMessageError):
            return None  # it has ended
        except KeyboardInterrupt:
            _cancel(connection)
            raise
    return _outcome(reply)


def request(bank: str, what: str) -> Message | None:
    """The reply to "status" or "stop"; None where no resident process listens."""
    connection = _connected(Place.of(bank))
    if connection is None:
        return None
    with connection:
        try:
            send(connection, {"do": what})
            return receive(connection)[0]
        except (OSError, BrokenMessageError):
            return None


def _outcome(reply: Message) -> int | None:
    """The exit code of a reply. Raises the error that it tells."""
    error: dict[str, Any] | None = reply.get("error")
    if error is not None:
        if error["kind"] == "user":
            raise UserError(error["text"])
        raise OSError(error["number"], error["text"], error["file"])
    code = reply.get("exit")
    return code if isinstance(code, int) else None


def _streams() -> list[int] | None:
    """The files behind stdin, stdout and stderr; None where one is no file."""
    try:
        files = [sys.stdout.fileno(), sys.stderr.fileno()]
        stdin = sys.stdin.fileno() if sys.stdin is not None else files[0]
    except (OSError, ValueError, AttributeError):
        return None
    return [stdin, *files]


def _connection(bank: str, start: bool, minutes: float) -> socket.socket | None:
    """A connection to the resident process; None without one."""
    try:
        place = Place.of(bank)
    except UserError:
        if start:
            raise
        return None
    connection = _connected(place)
    if connection is None and start:
        start_resident(bank, minutes)
        connection = _connected(place)
    return connection


def _connected(place: Place) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(place.socket))
        if peer_uid(connection) == os.getuid():
            return connection
    except OSError:
        pass
    connection.close()
    return None


def start_resident(bank: str, minutes: float = MINUTES) -> None:
    """Start the resident process of a bank, and return when it listens. UserError if it does not.

    A second one for the same bank ends at once. It loads its models with the first question.
    """
    import subprocess  # 8 ms, which most commands save

    make_runtime_folder()
    place = Place.of(bank)
    root = str(Path(pipeline.__file__).parents[1])
    others = [os.path.abspath(one) for one in os.environ.get("PYTHONPATH", "").split(":") if one]
    environment = os.environ | {"PYTHONPATH": ":".join([root, *others])}
    with open(place.log, "wb", opener=_for_owner) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.resident.resident", place.bank, str(minutes)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,  # Ctrl-C in this terminal is not meant for it
        )
    until = time.monotonic() + _SECONDS_TO_LISTEN
    while time.monotonic() < until:
        connection = _connected(place)
        if connection is not None:
            connection.close()
            return
        if process.poll() is not None and process.returncode:
            break
        time.sleep(0.01)
    raise UserError(
        f"the resident process of bank {bank} does not start; {place.log} says why, and the "
        "command works without --resident"
    )


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _cancel(connection: socket.socket) -> None:
    """End the question, and wait a moment until nothing more is written."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_SECONDS_TO_STOP)
        receive(connection)
    except (OSError, BrokenMessageError, KeyboardInterrupt):
        pass
