"""Videos at URLs -> files on this disk, each fetched once. Knows URLs through fsspec, and no video.

A file appears under its name when it is complete. Its name is a hash of the URL, so a URL whose content changes is not
noticed: delete the file.
"""

import hashlib
import os
from pathlib import Path

import fsspec

from encoders.errors import UserError


def place(video: str, downloads: Path) -> Path:
    """Where the file is, or will be once it is fetched; a path is its own place."""
    if "://" not in video:
        return Path(video)
    name = video.split("?")[0].rsplit("/", 1)[-1]
    return downloads / f"{hashlib.sha256(video.encode()).hexdigest()[:16]}-{name}"


def fetched(video: str, downloads: Path) -> Path:
    """The file, fetched if it is not there. UserError when it cannot be."""
    path = place(video, downloads)
    if "://" not in video or path.is_file():
        return path
    downloads.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with fsspec.open(video, "rb") as remote, half.open("wb") as local:
            while data := remote.read(1 << 22):
                local.write(data)
        half.replace(path)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"{video} cannot be fetched ({str(error) or type(error).__name__}); check the URL"
        ) from error
    finally:
        half.unlink(missing_ok=True)
    return path
