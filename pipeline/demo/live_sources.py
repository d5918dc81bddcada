"""Live sources that also keep JPEGs of their pictures, so that the page can show and revisit them.

Knows sources and pictures; no session and no page.
"""

import av
import numpy as np

from encoders.sources.live.push_source import PushSource
from encoders.sources.live.url_source import UrlSource
from pipeline.server.page.pictures import LivePictures

_PICTURES_PER_S = 4.0  # of a stream, for the page's live view


class PicturedUrlSource(UrlSource):
    """A URL or camera. Keeps every sampled picture and a few between them."""

    def __init__(
        self, url: str, fps: float, *, width: int, height: int, pictures: LivePictures
    ) -> None:
        super().__init__(url, fps, width=width, height=height)
        self._pictures, self._last_kept = pictures, -np.inf

    def push(self, picture: "av.VideoFrame | np.ndarray", at: float | None = None) -> bool:
        at = self.now if at is None else at
        sampled = super().push(picture, at)
        if sampled or at - self._last_kept >= 1 / _PICTURES_PER_S:
            self._last_kept = at
            self._pictures.add(picture, at, sampled)
        return sampled


class BrowserSource(PushSource):
    """Pictures that a browser sends. Keeps all of them."""

    def __init__(
        self, name: str, fps: float, *, width: int, height: int, pictures: LivePictures
    ) -> None:
        super().__init__(name, fps, width=width, height=height)
        self._pictures = pictures

    def push(self, picture: "av.VideoFrame | np.ndarray", at: float | None = None) -> bool:
        at = self.now if at is None else at
        sampled = super().push(picture, at)
        self._pictures.add(picture, at, sampled)
        return sampled
