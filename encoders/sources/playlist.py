"""The files that a local playlist names. Knows the syntax of HLS (RFC 8216) and of FFmpeg's lists
(ffconcat); opens no video.

Recorders give their segments the same names every time, so two recordings can have playlists with
the same text.
"""

import re
from collections.abc import Iterator
from pathlib import Path

_HLS, _LIST = b"#EXTM3U", b"ffconcat"
_LISTED = re.compile(r"file\s+(?:'([^']*)'|(\S+))")
_ATTRIBUTE = re.compile(r'URI="([^"]+)"')  # of a tag: a header of segments, a key, another playlist
_MAX_BYTES = 16 * 1024 * 1024  # of a playlist; one of 24 hours in seconds has 4 MB


def named_files(path: Path, depth: int = 3) -> Iterator[Path]:
    """The files that a playlist names, in its order, and those of the playlists among them. Nothing
    for a file of any other kind.

    depth: of playlists within playlists; a master playlist needs 2.
    """
    with path.open("rb") as file:
        mark = file.read(len(_LIST))
        if not depth or not mark.startswith((_HLS, _LIST)):
            return
        text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    for line in text.splitlines():
        name = _listed(line.strip()) if mark == _LIST else _segment(line.strip())
        named = path.parent / name.removeprefix("file:")
        if name and named.is_file():
            yield named
            yield from named_files(named, depth - 1)


def _segment(line: str) -> str:
    """The file that a line of HLS names; "" if there is none."""
    if not line.startswith("#"):
        return line
    attribute = _ATTRIBUTE.search(line)
    return attribute[1] if attribute else ""


def _listed(line: str) -> str:
    listed = _LISTED.match(line)
    return (listed[1] or listed[2] or "") if listed else ""
