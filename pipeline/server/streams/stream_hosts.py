"""Which addresses clients may have watched: the server would otherwise reach for them into its own
network."""

import re
from urllib.parse import urlsplit

from encoders.errors import UserError


def check_host(url: str, hosts: tuple[str, ...] | None, who: str) -> None:
    """UserError on an address that clients may not have watched.

    hosts: allowed ones, in small letters; "camera" for the cameras of the machine; None: all. who:
    the subject of the sentence, such as "This page".
    """
    if not url:
        raise UserError(
            "The address is empty; give one such as rtsp://192.168.1.20/stream, or camera:0."
        )
    if hosts is None:
        return
    camera = not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
    try:
        host = "camera" if camera else (urlsplit(url).hostname or "").lower()
    except ValueError:
        host = ""
    if host not in hosts:
        what = "cameras of the server" if camera else f"streams from {host or 'there'}"
        raise UserError(
            f"{who} does not take {what}; whoever started it can allow it with hosts=[...]."
        )
