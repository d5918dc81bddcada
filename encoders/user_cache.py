"""Where Reelbank keeps what it can make again: its folder in the user's cache."""

import errno
import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """$XDG_CACHE_HOME/reelbank/NAME, or the same below ~/.cache; may not exist yet.

    A relative XDG_CACHE_HOME counts as unset, as the XDG base directory specification says. OSError
    for a user without a home folder, such as an arbitrary user of a container.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):
        root = os.path.expanduser("~/.cache")
    if not os.path.isabs(root):
        raise OSError(errno.ENOENT, "this user has no home folder; set XDG_CACHE_HOME")
    return Path(root) / "reelbank" / name
