"""The socket of a bank: takes what commands of the same user ask, and checks that it can be served.

Knows the protocol; no task and no engine.
"""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.resident.place import Place
from pipeline.resident.protocol import (
    BrokenMessageError,
    Message,
    code_state,
    environment_of_libraries,
    peer_uid,
    receive,
    send,
)

_SECONDS_TO_SPEAK = 5.0  # of a client, before it is hung up on
_WAITING = 64  # connections that the system keeps for us


@dataclass
class CommandRequest:
    """A command that wants to be run."""

    connection: socket.socket
    message: Message
    files: list[int]  # its stdin, stdout and stderr
    came: float = field(default_factory=time.monotonic)

    def answer(self, reply: Message) -> None:
        """Send the reply and hang up; the client may have gone."""
        with suppress(OSError):
            send(self.connection, reply)
        self.connection.close()
        for file in self.files:
            os.close(file)
        self.files = []

    def watch(self, ended: threading.Event, hung_up: Callable[[], None]) -> None:
        """Call hung_up, in another thread, if the client leaves before the event is set."""

        def wait() -> None:
            with suppress(OSError):
                while self.connection.recv(1024):
                    pass
            if not ended.is_set():
                hung_up()

        threading.Thread(target=wait, daemon=True).start()


class Listener:
    """Listens for a bank, in threads of its own."""

    def __init__(
        self,
        place: Place,
        run: Callable[[CommandRequest], None],
        stop: Callable[[str], None] | None,
        uid: int | None = None,
        libraries: str = "",
    ) -> None:
        """run: takes a command, and answers it. stop: called when the process is to end, with the
        reason; None: it has other work. uid: whose processes are heard; None: this user's.
        libraries: `environment_of_libraries` at the start of the process; "": as it is now.
        """
        self._place, self._run, self._stop = place, run, stop
        self._uid = os.getuid() if uid is None else uid
        self._code = code_state()
        self._libraries = libraries or environment_of_libraries(os.environ)
        self._began = time.time()
        self._lock = -1
        self._socket: socket.socket | None = None
        self.commands = 0  # that were run

    def open(self) -> bool:
        """Listen. False where another process does so for this bank."""
        lock = os.open(self._place.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self._place.socket.unlink(missing_ok=True)  # of a process that was killed
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # 0600 from the first moment on
        try:
            self._socket.bind(str(self._place.socket))
        finally:
            os.umask(mask)
        self._socket.listen(_WAITING)
        threading.Thread(target=self._listen, args=(self._socket,), daemon=True).start()
        return True

    def close(self) -> None:
        """Take nothing more; what was taken goes on."""
        if self._socket is not None:
            self._place.socket.unlink(missing_ok=True)
            self._socket.close()
            os.close(self._lock)
            self._socket = None

    def _listen(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        try:
            if peer_uid(connection) != self._uid:
                connection.close()
                return
            connection.settimeout(_SECONDS_TO_SPEAK)
            message, files = receive(connection, most_files=3)
            connection.settimeout(None)
        except (OSError, BrokenMessageError):
            connection.close()
            return
        request = CommandRequest(connection, message, files)
        what = message.get("do")
        if what == "status":
            request.answer({"status": self._status()})
        elif what == "stop":
            request.answer({"status": self._status()})
            if self._stop is not None:
                self._stop("somebody says so")
        elif what != "run" or len(files) != 3:
            request.answer({"declined": "no such request"})
        elif message.get("code") != self._code:
            request.answer({"declined": "the code has changed"})
            if self._stop is not None:  # it answers nobody any more
                self._stop("the code has changed")
        elif message.get("libraries") != self._libraries:
            request.answer({"declined": "the variables of libraries differ"})
        else:
            self._run(request)

    def _status(self) -> Message:
        return {
            "pid": os.getpid(),
            "bank": self._place.bank,
            "seconds": time.time() - self._began,
            "commands": self.commands,
            "ends": self._stop is not None,
        }
