"""Where the resident process of a bank listens: a folder that its user alone may open.

Knows paths and owners; no protocol.
"""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from encoders.errors import UserError

_LONGEST = 100  # bytes of a socket's path; Linux takes 107, other systems 103


@dataclass(frozen=True)
class Place:
    """The files of one bank's resident process."""

    bank: str  # absolute, without links
    folder: Path
    name: str

    @classmethod
    def of(cls, bank: str) -> "Place":
        """The place of a bank, whose folder need not be there. UserError as `runtime_folder`."""
        real = os.path.realpath(os.path.expanduser(bank))
        return cls(real, runtime_folder(), hashlib.sha256(os.fsencode(real)).hexdigest()[:24])

    @property
    def socket(self) -> Path:
        return self.folder / f"{self.name}.sock"

    @property
    def lock(self) -> Path:
        """Locked by the process that listens."""
        return self.folder / f"{self.name}.lock"

    @property
    def log(self) -> Path:
        """What the process has to say that belongs to no command."""
        return self.folder / f"{self.name}.log"


def runtime_folder() -> Path:
    """XDG_RUNTIME_DIR/reelbank, or reelbank-UID in the folder of temporary files; not yet made.

    UserError where another user owns it or may open it.
    """
    shared = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(shared) / "reelbank"
    # 30: a slash, a name of 24 letters, and the ending
    is_usable = os.path.isabs(shared) and os.access(shared, os.W_OK)
    if not is_usable or len(os.fsencode(folder)) + 30 > _LONGEST:
        folder = Path(tempfile.gettempdir()) / f"reelbank-{os.getuid()}"
    try:
        about = folder.lstat()
    except FileNotFoundError:
        return folder
    is_own = about.st_uid == os.getuid() and stat.S_ISDIR(about.st_mode)
    if not is_own or stat.S_IMODE(about.st_mode) & 0o077:
        raise UserError(
            f"{folder} must be a folder that only its owner, you, may open (mode 700); remove it, "
            "or set XDG_RUNTIME_DIR to a folder of yours"
        )
    return folder


def make_runtime_folder() -> Path:
    """The same, made where it is missing."""
    folder = runtime_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    return runtime_folder()  # another user may have been faster
