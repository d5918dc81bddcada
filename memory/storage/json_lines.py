"""A JSONL file that survives a process killed in the middle of a line.

Knows nothing of what the rows mean. A line is complete if it ends with a newline. Reading ignores
an incomplete last line; opening for writing removes it, so that the next row starts a new line.
"""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage.atomic import replacing

JsonRow = dict[str, Any]


class JsonLines:
    """A JSONL file that grows. `rows` holds every row in the file, in order."""

    def __init__(self, path: Path, *, durable: bool = False, ascii_only: bool = False) -> None:
        """Open or create the file. UserError when a whole line is not JSON.

        durable: each row is on the disk (fsync) when `append` returns; else it is with the system.
        ascii_only: write other characters as \\u escapes.
        """
        self.path, self._durable, self._ascii_only = path, durable, ascii_only
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        self.rows = decode(path, whole)
        self._file = path.open("ab", buffering=0)

    def append(self, row: JsonRow) -> None:
        """Write one row. UserError when the disk does not take it; the rows before it stay."""
        try:
            data = encode([row], ascii_only=self._ascii_only)
            # a short write means a full disk; the next opening removes the part of the line
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}); make room and run the same "
                "again"
            ) from error
        self.rows.append(row)

    def replace_rows(self, rows: Sequence[JsonRow]) -> None:
        """Make these the file's only rows, all at once."""
        self._file.close()
        with replacing(self.path, durable=self._durable) as temporary:
            temporary.write_bytes(encode(rows, ascii_only=self._ascii_only))
        self.rows, self._file = list(rows), self.path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[JsonRow]:
    """The rows of a file; [] without a file. Skips an incomplete last line. UserError names a
    damaged line."""
    data = path.read_bytes() if path.is_file() else b""
    return decode(path, data[: data.rfind(b"\n") + 1])


def decode(path: Path, data: bytes) -> list[JsonRow]:
    """The rows of whole lines. UserError names a damaged line; `path` is for the message."""
    rows = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise UserError(
                f"{path} line {number} is damaged; take it away and run again, or use another "
                "out=DIR"
            ) from error
    return rows


def encode(rows: Sequence[JsonRow], *, ascii_only: bool = False) -> bytes:
    """Rows as UTF-8 lines. A byte of a file name that is no UTF-8 becomes a \\u escape, so it
    returns from `decode` as it was.
    """
    texts = (json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    return b"".join(text.encode(errors="backslashreplace") + b"\n" for text in texts)
