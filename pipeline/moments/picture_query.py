"""What a search by sight begins with: a picture, a clip, or a moment of a film of the bank.

It becomes frames of at most 384 pixels, which frame embedders scale as they scale those of a film.
Of a clip and of a stretch, 8 frames at even distances count, as MomentSeeker samples them
(arXiv 2502.12558). Knows files of pictures, the catalog of a bank and a decoder; no embedder.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from encoders.errors import UserError
from encoders.schema import Frames
from encoders.sources.container import inspect
from encoders.sources.picture_file import SUFFIXES, read_picture
from encoders.sources.pictures import pictures_at
from memory.bank_catalog import BankCatalog
from memory.schema import VideoSpan
from memory.storage.catalog import VideoRow
from pipeline.config.units import format_time
from pipeline.picture_source import PictureSource

CLIP_FRAMES = 8  # of a clip, or a stretch of a film
_SIDE = 384  # pixels of the longer side

FindVideo = Callable[[str], VideoRow]
"""The video of the bank that an id or a path means. UserError if there is none."""


@dataclass(frozen=True, slots=True)
class SoughtPicture:
    """What is searched for."""

    frames: Frames  # one, or those of a clip
    source: VideoSpan | None = None  # the moment of the bank that it is; that is no result


class PictureQuery(Protocol):
    """Something to see, in place of words or beside them."""

    @property
    def label(self) -> str:
        """What it is, for people."""
        ...

    def read(self, catalog: BankCatalog, find_video: FindVideo) -> SoughtPicture:
        """UserError where there is no picture."""
        ...


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture or a short clip on the disk."""

    path: Path

    @property
    def label(self) -> str:
        return self.path.name

    def read(self, catalog: BankCatalog, find_video: FindVideo) -> SoughtPicture:
        return SoughtPicture(query_frames(self.path))


@dataclass(frozen=True, slots=True)
class PictureBytes:
    """A picture as a file in memory."""

    data: bytes
    label: str = "the picture"

    def read(self, catalog: BankCatalog, find_video: FindVideo) -> SoughtPicture:
        return SoughtPicture(picture_frames(self.data, self.label))


@dataclass(frozen=True, slots=True)
class LikeMoment:
    """A moment of a film of the bank, or a stretch of it."""

    video: str  # id or path
    start: float  # seconds
    end: float  # not after `start`: one picture

    @property
    def label(self) -> str:
        at = format_time(self.start)
        at += f"-{format_time(self.end)}" if self.end > self.start else ""
        return f"{Path(self.video).name} {at}"

    def read(self, catalog: BankCatalog, find_video: FindVideo) -> SoughtPicture:
        row = find_video(self.video)
        length = max(row.info.duration, catalog.duration(row))
        if self.start >= length:
            raise UserError(
                f"like={self.video}@{format_time(self.start)} is behind the end of the film, which "
                f"has {format_time(length)}; give an earlier moment"
            )
        end = min(self.end, length)
        seconds = [self.start] if end <= self.start else _spread(self.start, end)
        found = PictureSource(catalog).at(row.info.video_id, seconds, _SIDE)
        files = [file for file in found.files if file is not None]
        if not files:
            raise UserError(
                f"There is no picture of {self.label}: {found.obstacle}; put the film back, or "
                "give a picture with --image"
            )
        pixels = [picture_frames(file, self.label).pixels[0] for file in files]
        source = VideoSpan(row.info.video_id, self.start, max(end, self.start))
        return SoughtPicture(_frames(pixels), source)


def picture_frames(data: bytes, name: str) -> Frames:
    """One frame: the picture of these bytes. name: of it in errors. UserError on what is none."""
    return _of_picture(io.BytesIO(data), name)


def query_frames(path: Path) -> Frames:
    """A picture, or frames of a clip at even distances, to search for. UserError names a file that
    is neither."""
    if not path.is_file():
        raise UserError(f"There is no picture {path} to search for; check its name")
    if path.suffix.lower() in SUFFIXES:
        return _of_picture(path, str(path))
    last = inspect(path).times[-1]
    pictures = [one for one in pictures_at(path, _spread(0.0, last), _SIDE) if one is not None]
    if not pictures:
        raise UserError(f"no picture of {path} can be decoded; give another file")
    return _frames(pictures)


def _spread(start: float, end: float) -> list[float]:
    return (start + (np.arange(CLIP_FRAMES) + 0.5) * (end - start) / CLIP_FRAMES).tolist()


def _of_picture(file: Path | io.BytesIO, name: str) -> Frames:
    """A picture, turned as viewers show it. UserError on what is none."""
    return _frames([read_picture(file, name, _SIDE)])


def _frames(pixels: Sequence[np.ndarray]) -> Frames:
    return Frames("query", np.stack(pixels), np.arange(len(pixels), dtype=float))
