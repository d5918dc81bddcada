"""A program in a pseudo-terminal: what a person types, and what the screen shows."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x01\x02\r]")


class Terminal:
    """`with Terminal(command, cwd, env) as terminal: terminal.type("...")`."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200", **env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: _own_terminal(0),
        )
        os.close(slave)
        self.screen = ""  # everything so far
        self._read = 0  # characters that `wait` has passed

    def type(self, text: str) -> None:
        """Type a line and press Enter."""
        os.write(self._master, text.encode() + b"\n")

    def press(self, key: str) -> None:
        """Press Ctrl and a letter, or send the bytes of another key."""
        os.write(self._master, bytes([ord(key) & 0x1F]) if len(key) == 1 else key.encode())

    def wait(self, pattern: str, seconds: float = 60.0) -> str:
        """What comes up to the first match of a pattern, from where the last `wait` ended."""
        end = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.screen[self._read :])
            if match is not None:
                text = self.screen[self._read : self._read + match.end()]
                self._read += match.end()
                return text
            assert time.monotonic() < end, f"{pattern!r} did not come:\n{self.screen}"
            if not self._take(0.1) and self._process.poll() is not None:
                raise AssertionError(f"ended before {pattern!r} came:\n{self.screen}")

    def code(self, seconds: float = 30.0) -> int:
        """The exit code, once the program has ended."""
        end = time.monotonic() + seconds
        while self._process.poll() is None:
            self._take(0.1)
            assert time.monotonic() < end, f"it does not end:\n{self.screen}"
        while self._take(0.0):
            pass
        return int(self._process.returncode)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._master)

    def _take(self, seconds: float) -> bool:
        """Read what the program wrote; False when there is nothing."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # the program has closed the terminal
            return False
        self.screen += _CONTROL.sub("", data.decode(errors="replace"))
        return bool(data)


def _own_terminal(descriptor: int) -> None:
    """Let Ctrl-C in the terminal reach the program."""
    import fcntl
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts what runs behind `&` without it
