"""The resident process: it listens, runs one command after another, and ends when nobody asks.

`python -m pipeline.resident.resident BANK MINUTES`, started by `reelbank ... --resident`. The main
thread runs commands, with the folder, the variables and the open files of the one that asks, so
output is that of a command of its own. Another thread takes connections. Only processes of the same
user are heard.
"""

import fcntl
import gc
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from encoders.errors import UserError
from pipeline.resident.place import Place
from pipeline.resident.protocol import (
    BrokenMessageError,
    Message,
    code_state,
    environment_of_libraries,
    peer_uid,
    receive,
    send,
    take_environment,
)
from pipeline.resident.warm_engines import WarmEngines
from pipeline.runtime import output_errors

_SECONDS_TO_SPEAK = 5.0  # of a client, before it is hung up on
_SECONDS_IN_LINE = 5.0  # of a command, after which it does the work itself
_WAITING = 64  # connections that the system keeps for us


@dataclass
class _Command:
    """A command that waits for its turn."""

    connection: socket.socket
    request: Message
    files: list[int]
    came: float = field(default_factory=time.monotonic)

    def answer(self, reply: Message) -> None:
        """Send the reply and hang up; the client may have gone."""
        with suppress(OSError):
            send(self.connection, reply)
        self.connection.close()
        for file in self.files:
            os.close(file)
        self.files = []


class Resident:
    """Listens for a bank. `serve` returns when it ends."""

    def __init__(self, place: Place, minutes: float, uid: int | None = None) -> None:
        """minutes: without a command, after which it ends. uid: whose processes are heard; None:
        this user's.
        """
        self._place, self._seconds = place, minutes * 60
        self._uid = os.getuid() if uid is None else uid
        self._code, self._libraries = code_state(), environment_of_libraries(os.environ)
        self._engines = WarmEngines(place.bank)
        # reentrant: a signal puts into it as well
        self._line: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._began, self._done = time.time(), 0
        self._is_running = False  # a command, which SIGINT may end

    def serve(self) -> bool:
        """Run commands until nobody asks any more, or somebody says stop. False where another
        process listens for this bank already.
        """
        lock = os.open(self._place.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        try:
            with self._listening() as listening:
                threading.Thread(target=self._listen, args=(listening,), daemon=True).start()
                self._run_all()
        finally:
            self._place.socket.unlink(missing_ok=True)
            os.close(lock)
            self._decline_rest()
            self._engines.drop()
        return True

    # ---- connections

    def _listening(self) -> socket.socket:
        """The socket, in place of that of a process that was killed."""
        self._place.socket.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # 0600 from the first moment on
        try:
            listening.bind(str(self._place.socket))
        finally:
            os.umask(mask)
        listening.listen(_WAITING)
        return listening

    def _listen(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        """Read what a client wants; commands go into the line."""
        try:
            if peer_uid(connection) != self._uid:
                connection.close()
                return
            connection.settimeout(_SECONDS_TO_SPEAK)
            request, files = receive(connection, most_files=3)
            connection.settimeout(None)
        except (OSError, BrokenMessageError):
            connection.close()
            return
        command = _Command(connection, request, files)
        what = request.get("do")
        if what == "status":
            command.answer({"status": self._status()})
        elif what == "stop":
            command.answer({"status": self._status()})
            self._line.put(None)
        elif what != "run" or len(files) != 3:
            command.answer({"declined": "no such request"})
        elif request.get("code") != self._code:
            command.answer({"declined": "the code has changed"})
            self._line.put(None)  # it answers nobody any more
        elif request.get("libraries") != self._libraries:
            command.answer({"declined": "the variables of libraries differ"})
        else:
            self._line.put(command)

    def _status(self) -> Message:
        return {
            "pid": os.getpid(),
            "bank": self._place.bank,
            "seconds": time.time() - self._began,
            "commands": self._done,
            "minutes": self._seconds / 60,
        }

    # ---- commands

    def _run_all(self) -> None:
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, lambda *_: self._line.put(None))
        until = time.monotonic() + self._seconds
        while True:
            try:
                command = self._line.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return
            if command is None:
                return
            if time.monotonic() - command.came > _SECONDS_IN_LINE:
                command.answer({"declined": "busy"})
                continue
            command.answer(self._run(command))
            self._done += 1
            until = time.monotonic() + self._seconds

    def _run(self, command: _Command) -> Message:
        """Run a command as its own process would; the reply."""
        ended = threading.Event()
        watching = threading.Thread(
            target=self._watch, args=(command.connection, ended), daemon=True
        )
        try:
            os.chdir(command.request["cwd"])
        except OSError:  # a folder that was deleted
            return {"declined": "the folder is not there"}
        own = [os.dup(file) for file in range(3)]
        try:
            take_environment(command.request["environment"])
            for number, file in enumerate(command.files):
                os.dup2(file, number)
            _open_streams(command.request["encodings"])
            self._is_running = True
            watching.start()
            code = self._engines.run(command.request["task"], command.request["overrides"])
            sys.stdout.flush()
            self._is_running = False
            return {"exit": code}
        except UserError as error:
            return {"error": {"kind": "user", "text": str(error)}}
        except OSError as error:
            told = {"kind": "system", "number": error.errno, "text": error.strerror}
            return {"error": told | {"file": _text(error.filename)}}
        except KeyboardInterrupt:
            self._engines.drop()
            return {"declined": "cancelled"}
        except Exception as error:  # a defect: the command shows it, in a process of its own
            self._engines.drop()
            return {"declined": f"{type(error).__name__}: {error}"}
        finally:
            self._is_running = False
            ended.set()
            _flush()
            for number, file in enumerate(own):
                os.dup2(file, number)
                os.close(file)
            _flush()  # what nobody read goes to the log, and not to the next command
            os.chdir("/")

    def _watch(self, connection: socket.socket, ended: threading.Event) -> None:
        """Interrupt the command whose client hangs up."""
        with suppress(OSError):
            while connection.recv(1024):
                pass
        if not ended.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_running:
            self._is_running = False
            raise KeyboardInterrupt

    def _decline_rest(self) -> None:
        while not self._line.empty():
            command = self._line.get()
            if command is not None:
                command.answer({"declined": "it ends"})


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a reader that has gone
            stream.flush()


def _open_streams(encodings: list[list[str]]) -> None:
    """stdout and stderr of the command, as Python opened them there: in a terminal by lines."""
    for name, (encoding, errors) in zip(("stdout", "stderr"), encodings, strict=True):
        number = 1 if name == "stdout" else 2
        stream = open(number, "w", encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
        if name == "stderr":
            stream.reconfigure(line_buffering=True)
        setattr(sys, name, stream)


def _text(name: object) -> str | None:
    """The name of a file, of an error."""
    return None if name is None else os.fsdecode(name) if isinstance(name, bytes) else str(name)


def main() -> None:
    """The process."""
    bank, minutes = sys.argv[1:]
    gc.disable()  # as in a command: what is imported stays
    output_errors.register()
    try:
        Resident(Place.of(bank), float(minutes)).serve()
    except Exception:
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
