"""Download videos from URLs to this disk, each once. Knows URLs through fsspec; no video formats.

A file gets its name when it is complete. The name is a hash of the URL, so a changed content behind
the same URL is not noticed: delete the file.
"""

import hashlib
from pathlib import Path

import fsspec

from encoders.errors import UserError
from memory.storage.atomic import replacing


def local_path(video: str, downloads: Path) -> Path:
    """Where a video's file is, or will be once fetched. A path is its own place."""
    if "://" not in video:
        return Path(video)
    name = video.split("?")[0].rsplit("/", 1)[-1]
    return downloads / f"{hashlib.sha256(video.encode()).hexdigest()[:16]}-{name}"


def fetch(video: str, downloads: Path) -> Path:
    """The file of a video, downloaded if it is missing. UserError when the download fails."""
    path = local_path(video, downloads)
    if "://" not in video or path.is_file():
        return path
    downloads.mkdir(parents=True, exist_ok=True)
    try:
        with (
            replacing(path) as temporary,
            fsspec.open(video, "rb") as remote,
            temporary.open("wb") as local,
        ):
            while data := remote.read(1 << 22):
                local.write(data)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"{video} cannot be fetched ({str(error) or type(error).__name__}); check the URL"
        ) from error
    return path
