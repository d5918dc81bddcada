"""Addresses of live streams and cameras: as users write them, and as FFmpeg opens them."""

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from encoders.errors import UserError

# scheme -> protocols that FFmpeg may open for it: a playlist must not lead to files of this machine
_SCHEMES = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsps,rtsp,rtp,srtp,tcp,udp,tls,crypto",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tcp,tls",
    "tcp": "tcp",
    "udp": "udp",
    "http": "http,https,tcp,tls,crypto,hls",
    "https": "http,https,tcp,tls,crypto,hls",
}
_DEVICES = ("v4l2", "avfoundation", "dshow")  # of Linux, macOS, Windows
_CAMERA = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}


def is_live(video: str) -> bool:
    """True if this names a URL or a camera, not a file."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", video)) or video.partition(":")[0] in (
        *_DEVICES,
        "camera",
    )


def without_password(url: str) -> str:
    """The URL without user, password and query, safe to store and to show."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # whatever could be a password is left out
        return f"{url.partition('://')[0]}://..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def ffmpeg_input(url: str) -> tuple[str, str | None, str]:
    """(FFmpeg's input, its format if FFmpeg cannot guess it, allowed protocols)."""
    kind, _, rest = url.partition(":")
    if kind == "camera":
        kind, name = next(
            (v for k, v in _CAMERA.items() if sys.platform.startswith(k)), _CAMERA["linux"]
        )
        rest = name.format(rest or "0")
    if kind in _DEVICES:
        if kind == "v4l2" and not Path(rest).exists():
            raise UserError(
                f"There is no camera {rest}; plug one in, or name another one, such as "
                "v4l2:/dev/video1"
            )
        return rest, kind, ""
    if kind not in _SCHEMES or not rest.startswith("//"):
        schemes = ", ".join(f"{name}://" for name in _SCHEMES)
        raise UserError(
            f"{without_password(url)} is no address that can be watched; use {schemes}, or camera:0"
        )
    try:
        parts = urlsplit(url)
        if not parts.hostname or (parts.port is None and kind in ("tcp", "udp")):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{without_password(url)} has no host and port that can be read; write {kind}://HOST:PORT/PATH"
        ) from None
    return url, None, _SCHEMES[kind]
