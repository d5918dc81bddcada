"""A stretch of a film as an animated GIF or WebP, for messages and pages.

Knows films; no bank, no search.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.errors import UserError
from encoders.sources.pictures import pictures_at
from memory.storage.atomic import replacing
from pipeline.export.clip import Clip, check_clip_path, check_stretch

FORMATS = (".gif", ".webp")
FPS, LONGEST_SIDE = 10.0, 480  # pictures per second; pixels
_MOST_PICTURES = 600  # they are in memory together: a minute at ten pictures a second


def write_animation(
    film: Path,
    start: float,
    end: float,
    path: Path,
    *,
    video_id: str = "",
    fps: float = FPS,
    longest_side: int = LONGEST_SIDE,
) -> Clip:
    """Write the stretch from `start` to `end` (seconds of video time) as pictures that repeat.

    A file that is there is replaced once the new one is whole. fps: pictures per second.
    longest_side: of a picture, in pixels, at most. UserError as `cut_clip`, and for a stretch that
    is too long.
    """
    if not 0 < fps <= 50:
        raise UserError(f"fps={fps:g} is no rate for {path.suffix}; use more than 0, up to 50")
    if longest_side < 16:
        raise UserError(f"longest_side={longest_side} shows nothing; use 16 pixels or more")
    facts = check_stretch(film, start, end, video_id)
    check_clip_path(path, facts.path, FORMATS)
    end = min(end, facts.end)
    count = max(round((end - start) * fps), 1)
    if count > _MOST_PICTURES:
        raise UserError(
            f"{end - start:.0f} s are {count} pictures, and {path.suffix} takes {_MOST_PICTURES} "
            "at most; give a shorter stretch, a lower --fps, or a name that ends with .mp4"
        )
    seconds = [start + number / fps for number in range(count)]
    pictures = _upright(pictures_at(film, seconds, longest_side))
    first = next(pictures, None)
    if first is None:
        raise UserError(f"{film} cannot be decoded from {start:g} s to {end:g} s")
    with replacing(path) as temporary:
        # equal pictures in a row become one that stands longer
        first.save(
            temporary,
            format=path.suffix[1:].upper(),
            save_all=True,
            append_images=list(pictures),
            duration=round(1000 / fps),
            loop=0,
        )
        nbytes = temporary.stat().st_size
    return Clip(path, start, end, nbytes, encoded=count)


def _upright(pictures: Iterator[np.ndarray | None]) -> Iterator[Image.Image]:
    """A picture that cannot be decoded stays the one before it."""
    last = None
    for picture in pictures:
        last = last if picture is None else Image.fromarray(picture)
        if last is not None:
            yield last
