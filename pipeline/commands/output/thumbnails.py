"""Thumbnails of moments, as HTML and JSON take them. Knows no search and no page."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memory.retrieval.fusion import Moment

if TYPE_CHECKING:  # it loads a decoder of films
    from pipeline.picture_source import PictureSource

_SIDE = 320  # pixels, of the longer side at most


class Thumbnails:
    """A small picture of each moment, as a JPEG in base64.

    `notes` says which videos have none, or whose come from the bank: a file that is gone, or that
    is another one now.
    """

    def __init__(self, moments: Sequence[Moment], source: "PictureSource") -> None:
        self._moments, self._source = moments, source
        self._pictures: dict[str, dict[float, bytes | None]] = {}  # of a video, by the second
        self.notes: list[str] = []  # what the user must know, of the videos so far

    def of(self, moment: Moment) -> str | None:
        """The picture of a moment; None without one."""
        if moment.video_id not in self._pictures:
            self._pictures[moment.video_id] = self._of_video(moment.video_id)
        jpeg = self._pictures[moment.video_id].get(moment.at)
        return None if jpeg is None else base64.b64encode(jpeg).decode()

    def _of_video(self, video_id: str) -> dict[float, bytes | None]:
        """All pictures of a video at once, as its file is scanned for them."""
        seconds = sorted({each.at for each in self._moments if each.video_id == video_id})
        pictures = self._source.at(video_id, seconds, _SIDE)
        if pictures.missing:
            some = "" if pictures.missing == len(seconds) else f" of {pictures.missing} moments"
            self.notes.append(f"there are no thumbnails{some}, as {pictures.obstacle}")
        elif pictures.stored:
            self.notes.append(f"thumbnails are those that the bank stores, as {pictures.obstacle}")
        return dict(zip(seconds, pictures.files, strict=True))
