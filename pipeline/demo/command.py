"""`reelbank demo`: `reelbank serve` with its page opened in a browser.

The same server over the same banks (pipeline/server/command.py), at a port of its own. The page
shows all that the banks hold.
"""

import os
import sys
import threading
import webbrowser

from encoders.errors import UserError
from encoders.extras import require_extra
from pipeline.config.tasks.server_settings import DemoSettings
from pipeline.server import command


def run(config: DemoSettings) -> int:
    """reelbank demo."""
    require_extra("demo", "reelbank demo")
    if "REELBANK_AUTH" in os.environ:  # whoever relies on it must not get an open page
        raise UserError(
            "REELBANK_AUTH is read no more; set REELBANK_API_KEY, a key that the page asks for"
        )
    show = open_browser if config.browser and has_screen() else command.no_browser
    return command.run(config, greeting="reelbank: open the page", show=show)


def open_browser(address: str) -> None:
    """Open a page. The server does not wait for the browser, which may take its time to start."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def has_screen() -> bool:
    """Whether a browser would show a window, and not take the terminal."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
