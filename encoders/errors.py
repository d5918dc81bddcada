"""The one exception a user may see: bad input, told in one sentence. And the end of a source that was told to stop.

Knows nothing of commands or exit codes; `pipeline/cli.py` prints it and exits with 2.
"""

from pathlib import Path


class UserError(Exception):
    """Bad input. The message is one sentence: what is wrong, where, and what to do about it."""


class FileError(UserError):
    """A file cannot be used. `problem` is the sentence without its subject, the path."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


class SourceStopped(Exception):
    """A source was closed in the middle; what it had not given out yet will come again when it is opened again."""
