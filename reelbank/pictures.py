"""Pictures and clips of moments, from the film that a bank was made of; without it, pictures are
the thumbnails of the bank.
"""

import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from reelbank.records import Clip, Moment

if TYPE_CHECKING:
    from PIL.Image import Image

_WHOLE = 1 << 16  # pixels: more than any picture has


def picture_of(moment: Moment, longest_side: int | None) -> "Image":
    """The picture of a moment. UserError when there is none."""
    from PIL.Image import fromarray

    from encoders.sources.identity import why_not_file
    from encoders.sources.pictures import pictures_at

    if longest_side is not None and longest_side < 1:
        raise UserError(f"longest_side={longest_side} leaves no picture; use 1 or more")
    path = moment.video.path
    obstacle = why_not_file(moment.video.id, path)
    if obstacle:
        return _stored(moment, longest_side, obstacle)
    (picture,) = pictures_at(Path(path), (moment.picture_at,), longest_side or _WHOLE)
    if picture is None:
        obstacle = f"{path} cannot be decoded at {moment.picture_at:.1f} s"
        return _stored(moment, longest_side, obstacle)
    return fromarray(picture)


def _stored(moment: Moment, longest_side: int | None, obstacle: str) -> "Image":
    """The thumbnail of a moment, from its bank. UserError without one: obstacle says why the film
    does not give a picture.
    """
    from PIL import Image

    from memory.bank import MemoryBank
    from memory.retrieval.uniform import UniformRetriever

    video, jpeg = moment.video, None
    if video.bank:
        with MemoryBank.open(
            video.bank, None, UniformRetriever(), recent_frames=0, create=False
        ) as bank:
            (jpeg,) = bank.catalog.thumbnails(video.id, (moment.picture_at,))
    if jpeg is None:
        raise UserError(
            f"There is no picture, as {obstacle}; put the film back there, or copy it again"
        )
    picture = Image.open(io.BytesIO(jpeg))
    picture.thumbnail((longest_side or _WHOLE,) * 2)
    return picture


def clip_of(moment: Moment, path: str | PathLike[str], exact: bool) -> Clip:
    """A file with the moment. UserError as `pipeline.export.clip.cut_clip`."""
    from pipeline.export.moment_clips import write_moment
    from pipeline.export.moment_list import ListedMoment

    video = moment.video
    listed = ListedMoment(video.id, video.path, moment.start, moment.end)
    clip = write_moment(listed, Path(path).expanduser(), exact=exact)
    return Clip(clip.path, clip.start, clip.end, clip.nbytes, clip.notes, clip.encoded)
