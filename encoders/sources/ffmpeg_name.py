"""The name by which FFmpeg opens a file of this machine, whatever the file is called.

FFmpeg reads `letters:` at the beginning of a name as a protocol: a relative
`2026-11-20T12:00:00.mp4` fails with "Protocol not found", and `http:x.mp4` reaches for a network.
"""

import os
from pathlib import Path


def ffmpeg_name(path: str | Path) -> str:
    """The absolute path, which begins with no protocol. For av.open and decord alike."""
    return os.path.abspath(path)
