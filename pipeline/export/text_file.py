"""Files of text that a user asked for: whole or not at all, and refused in one sentence."""

import os
from collections.abc import Collection
from pathlib import Path

from encoders.errors import UserError
from memory.storage.atomic import write_atomically


def check_target(path: Path, suffixes: Collection[str], what: str) -> None:
    """UserError where a file cannot be written, before hours of work for it.

    suffixes: that are known. what: the file is, such as "a report".
    """
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"{path} is no name for {what}; let it end with {' or '.join(sorted(suffixes))}"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{path} is in a folder that is not there; make it, or use another path")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} is not writable; choose another folder for {path.name}")


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, in UTF-8; durable on return. UserError where that cannot be: then
    the file is as it was before."""
    try:
        # a path may have bytes that are not UTF-8
        write_atomically(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{path} cannot be written ({reason}); choose another path") from error
