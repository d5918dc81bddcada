"""The exception whose message a user reads, and the one that ends a closed source.

Knows no commands and no exit codes; `pipeline/cli/` prints the message and exits with 2.
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


class SourceClosed(Exception):
    """The source was closed before its end. The frames that it did not deliver come again when it
    is reopened.
    """
