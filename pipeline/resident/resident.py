"""The resident process: it listens, runs one command after another, and ends when nobody asks.

`python -m pipeline.resident.resident BANK MINUTES`, started by `reelbank ... --resident`. The main
thread runs commands, with the folder, the variables and the open files of the one that asks, so
output is that of a command of its own. Another thread takes connections. Only processes of the same
user are heard.
"""

import gc
import os
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from types import FrameType

from encoders.errors import UserError
from pipeline.resident.listener import CommandRequest, Listener
from pipeline.resident.place import Place
from pipeline.resident.protocol import Message, take_environment
from pipeline.resident.warm_engines import WarmEngines
from pipeline.runtime import output_errors

_SECONDS_IN_LINE = 5.0  # of a command, after which it does the work itself


class Resident:
    """Listens for a bank. `serve` returns when it ends."""

    def __init__(self, place: Place, minutes: float, uid: int | None = None) -> None:
        """minutes: without a command, after which it ends. uid: whose processes are heard; None:
        this user's.
        """
        self._seconds = minutes * 60
        self._engines = WarmEngines(place.bank)
        # reentrant: a signal puts into it as well
        self._line: queue.SimpleQueue[CommandRequest | None] = queue.SimpleQueue()
        self._listener = Listener(place, self._line.put, lambda why: self._line.put(None), uid)
        self._is_running = False  # a command, which SIGINT may end

    def serve(self) -> bool:
        """Run commands until nobody asks any more, or somebody says stop. False where another
        process listens for this bank already.
        """
        if not self._listener.open():
            return False
        try:
            self._run_all()
        finally:
            self._listener.close()
            while not self._line.empty():
                request = self._line.get()
                if request is not None:
                    request.answer({"declined": "it ends"})
            self._engines.drop()
        return True

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
            reply = self._run(command)
            self._listener.commands += 1
            command.answer(reply)
            until = time.monotonic() + self._seconds

    def _run(self, command: CommandRequest) -> Message:
        """Run a command as its own process would; the reply."""
        ended, main_thread = threading.Event(), threading.main_thread().ident or 0
        try:
            os.chdir(command.message["cwd"])
        except OSError:  # a folder that was deleted
            return {"declined": "the folder is not there"}
        own = [os.dup(file) for file in range(3)]
        try:
            take_environment(command.message["environment"])
            for number, file in enumerate(command.files):
                os.dup2(file, number)
            _open_streams(command.message["encodings"])
            self._is_running = True
            command.watch(ended, lambda: signal.pthread_kill(main_thread, signal.SIGINT))
            code = self._engines.run(command.message["task"], command.message["overrides"])
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

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_running:
            self._is_running = False
            raise KeyboardInterrupt


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
