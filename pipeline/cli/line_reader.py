"""Lines that a person types, with history and completion, or those of a script.

Python's readline, which needs no package and takes no time to import; docs/measurements/LOG.md
compares it with prompt_toolkit.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.config.default_bank import state_folder

_LINES = 2000  # of the history


class LineReader:
    """`read` gives one line after another."""

    def __init__(self, commands: Sequence[str]) -> None:
        """commands: completed at the beginning of a line; file names behind them."""
        self.is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._commands = commands
        if self.is_terminal:
            self._set_up()

    def read(self, prompt: str) -> str:
        """The next line without its end. EOFError at the end; KeyboardInterrupt on Ctrl-C."""
        if self.is_terminal:
            return input(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _set_up(self) -> None:
        try:
            import readline
        except ImportError:  # a Python without it: lines can be typed, not edited
            return
        path = history_path()
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # questions are private
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.read_history_file(path)
        readline.set_history_length(_LINES)
        readline.set_completer_delims(" \t\n")
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        readline.set_completer(_completer(self._commands, readline.get_line_buffer))
        self._readline = readline

    def close(self) -> None:
        """Save the history."""
        if self.is_terminal and hasattr(self, "_readline"):
            with suppress(OSError):
                self._readline.write_history_file(history_path())


def history_path() -> Path:
    """The file of the history, in the user's state folder (XDG)."""
    return state_folder() / "history"


def _completer(
    commands: Sequence[str], line: Callable[[], str]
) -> Callable[[str, int], str | None]:
    """What readline asks for the n-th completion of a word."""

    def complete(word: str, number: int) -> str | None:
        is_first = not line().rstrip(word).strip()
        if is_first and word.startswith("/"):
            matches = [f"{one} " for one in commands if one.startswith(word)]
        else:
            matches = list(_files(word))
        return matches[number] if number < len(matches) else None

    return complete


def _files(word: str) -> Iterator[str]:
    folder, name = os.path.split(os.path.expanduser(word))
    with suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
                yield os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")
