"""Opens a film at a second, in a player that can begin there, else in the browser.

REELBANK_PLAYER chooses the player, with {path} and {seconds} in it: "mpv --start={seconds} {path}".
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

# the first one that is installed is taken
_PLAYERS = (
    "mpv --start={seconds} {path}",
    "vlc --start-time={seconds} {path}",
    "ffplay -autoexit -loglevel error -ss {seconds} {path}",
    "mplayer -ss {seconds} {path}",
)


def open_at(path: Path, seconds: float) -> str:
    """Open a film and return what opened it; "" where there is nothing to open it with."""
    own = os.environ.get("REELBANK_PLAYER", "")
    for template in (own,) if own else _PLAYERS:
        words = shlex.split(template)
        if has_screen(bool(own)) and words and shutil.which(words[0]):
            values = {"path": str(path.absolute()), "seconds": f"{seconds:.2f}"}
            command = [_filled(word, values) for word in words]
            # of its own session, so that Ctrl-C in the prompt does not end it
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            return Path(words[0]).name
    if own or not has_screen(False):
        return ""
    # browsers know the second of a media fragment
    address = f"{path.absolute().as_uri()}#t={seconds:.2f}"
    return "the browser" if webbrowser.open(address) else ""


def has_screen(is_chosen: bool) -> bool:
    """Whether a window can open. is_chosen: the user named the player, who knows."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return is_chosen or sys.platform == "darwin" or any(os.environ.get(one) for one in screens)


def _filled(word: str, values: dict[str, str]) -> str:
    """The word with the values in it; other braces stay, also those of the path."""
    return re.sub(r"\{(path|seconds)\}", lambda match: values[match[1]], word)
