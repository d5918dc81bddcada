"""`notify=command`: a notice to a program of this machine: JSON on stdin, files in the environment.

The line is split as a shell does, and no shell runs it: nothing of a notice becomes a command.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress

from encoders.errors import UserError
from pipeline.alerts.schema import DeliveryError, Notice

_SHOWN = 200  # characters of what a program says when it fails


class Command:
    """One program."""

    def __init__(self, *, line: str = "", timeout_s: float = 30.0) -> None:
        """line: the program with its arguments. timeout_s: after which it is ended. UserError on a
        line that names no program of this machine.
        """
        try:
            self._arguments = shlex.split(line)
        except ValueError as error:
            raise UserError(
                f"notify.command.line={line!r} cannot be read ({error}); check its quotation marks"
            ) from None
        if not self._arguments or shutil.which(self._arguments[0]) is None:
            raise UserError(
                f"notify.command.line={line!r} names no program of this machine; give one that "
                "`which` finds, or its whole path"
            )
        self._timeout_s = timeout_s

    @property
    def address(self) -> str:
        return self._arguments[0]

    def send(self, notice: Notice) -> None:
        """Run the program. DeliveryError."""
        files = {"REELBANK_PICTURE": notice.picture, "REELBANK_CLIP": notice.clip}
        more = {name: str(path) for name, path in files.items() if path is not None}
        try:
            # a session of its own, so that what it starts ends with it
            process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=os.environ | more | {"REELBANK_NOTICE": notice.id},
                start_new_session=True,
            )
        except OSError as error:
            raise DeliveryError(f"cannot be started ({error.strerror})") from None
        try:
            _, said = process.communicate(json.dumps(notice.body).encode(), self._timeout_s)
        except subprocess.TimeoutExpired:
            raise DeliveryError(f"does not end in {self._timeout_s:g} s") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            text = " ".join(said.decode(errors="replace").split())[-_SHOWN:]
            raise DeliveryError(f"ends with {process.returncode} ({text})")
