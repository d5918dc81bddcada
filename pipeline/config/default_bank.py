"""The bank of a command that names none: one for each user, wherever a command is run.

Makes no folder; the first write does.
"""

import os
from pathlib import Path

FORMER = "reelbank-bank"  # the default of earlier versions, in the current folder
_VARIABLE = "REELBANK_BANK"


def default_bank() -> str:
    """Folder of the variable REELBANK_BANK, else reelbank/ in the user's data folder (XDG)."""
    return os.environ.get(_VARIABLE) or _users_bank()


def is_users_bank(bank: str) -> bool:
    """True for the bank that a command uses when nobody has chosen one."""
    return bank == _users_bank()


def _users_bank() -> str:
    data = os.environ.get("XDG_DATA_HOME", "")
    # the XDG specification has a relative path ignored
    folder = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return str(folder / "reelbank")


def state_folder() -> Path:
    """Folder of what one user did last: history, hits (XDG). It may not be there yet."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "reelbank"


def former_bank() -> Path | None:
    """The default bank of earlier versions, where this folder has one and nobody chose a bank."""
    if os.environ.get(_VARIABLE) or not (Path(FORMER) / "bank.json").is_file():
        return None
    return Path(FORMER)
