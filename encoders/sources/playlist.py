"""The files that a local HLS playlist names. Knows the syntax of playlists (RFC 8216); opens no
video.

Recorders give their segments the same names every time, so two recordings can have playlists with
the same text.
"""

import re
from collections.abc import Iterator
from pathlib import Path

_MARK = b"#EXTM3U"
_ATTRIBUTE = re.compile(r'URI="([^"]+)"')  # of a tag: a header of segments, a key, another playlist
_MAX_BYTES = 16 * 1024 * 1024  # of a playlist; one of 24 hours in seconds has 4 MB


def named_files(path: Path, depth: int = 3) -> Iterator[Path]:
    """The files that a playlist names, in its order, and those of the playlists among them. Nothing
    for a file of any other kind.

    depth: of playlists within playlists; a master playlist needs 2.
    """
    with path.open("rb") as file:
        if not depth or file.read(len(_MARK)) != _MARK:
            return
        text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    for line in text.splitlines():
        name = line.strip()
        if name.startswith("#"):
            attribute = _ATTRIBUTE.search(name)
            name = attribute[1] if attribute else ""
        named = path.parent / name.removeprefix("file:")
        if name and named.is_file():
            yield named
            yield from named_files(named, depth - 1)
