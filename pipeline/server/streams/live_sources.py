"""Live sources of a server, whose pictures the page shows and revisits.

Knows sources and pictures; no session and no page.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from encoders.schema import Frames
from encoders.sources.live.piece_recorder import PieceRecorder
from encoders.sources.live.push_source import PushSource
from encoders.sources.live.url_source import UrlSource
from encoders.sources.thumbnail_maker import ThumbnailMaker
from pipeline.server.streams.folders.file_ledger import FileLedger
from pipeline.server.streams.folders.folder_source import SCHEME, FolderSource, OpenFilm
from pipeline.server.streams.picture_shelf import Picture, PictureShelf
from pipeline.server.streams.stream_settings import StreamSettings, folder_of_streams
from pipeline.server.streams.words.stream_words import StreamWords


class PicturedUrlSource(UrlSource):
    """A URL or a camera of the machine."""

    pictures: PictureShelf  # of the server

    def push(self, picture: Picture, at: float | None = None) -> bool:
        at = self.now if at is None else at
        sampled = super().push(picture, at)
        _show(self, self.pictures, picture, at if sampled else None)
        return sampled


class PicturedFolderSource(FolderSource):
    """Files of a folder."""

    pictures: PictureShelf  # of the server

    def show(self, frames: Frames) -> None:
        for pixels, at in zip(frames.pixels, frames.times.tolist(), strict=True):
            _show(self, self.pictures, pixels, at)


class BrowserSource(PushSource):
    """Pictures that a browser sends. It ends when none came for a minute."""

    pictures: PictureShelf  # of the server
    gone_s = 60.0  # without a picture, after which the browser is gone

    def __init__(self, name: str, fps: float, *, width: int, height: int) -> None:
        super().__init__(name, fps, width=width, height=height)
        self._pushed_at = time.monotonic()
        threading.Thread(target=self._wait, name=f"browser-{name}", daemon=True).start()

    def push(self, picture: Picture, at: float | None = None) -> bool:
        self._pushed_at = time.monotonic()
        at = self.now if at is None else at
        sampled = super().push(picture, at)
        _show(self, self.pictures, picture, at if sampled else None)
        return sampled

    def _wait(self) -> None:
        """Close it once the browser is gone."""
        while (left := self._pushed_at + self.gone_s - time.monotonic()) > 0:
            if self._closed.wait(left):
                return
        self.close()


@dataclass(frozen=True, slots=True)
class LiveSources:
    """Makes the sources of a server: with its model's frame size, and its thumbnails."""

    size: tuple[int, int]  # width and height of a frame
    fit: Callable[[float], tuple[int, int]] | None  # width over height -> size; None: as given
    thumbnail: ThumbnailMaker | None  # stored with the frames; None: nothing is
    pictures: PictureShelf
    open_film: OpenFilm
    bank: str  # folder of the server's bank

    def of_url(
        self, stream: StreamSettings, fps: float, words: StreamWords | None = None
    ) -> PushSource:
        """An address, a camera of the machine, or a folder. words: get what it sends in pieces."""
        width, height = self.size
        if stream.url.startswith(SCHEME):
            ledger = folder_of_streams(stream.bank or self.bank) / f"{stream.name}.sqlite"
            return self._of_folder(stream, fps, ledger, words)
        source = PicturedUrlSource(stream.url, fps, width=width, height=height, name=stream.name)
        source.fit, source.thumbnail, source.pictures = self.fit, self.thumbnail, self.pictures
        if words is not None:
            source.recorder = PieceRecorder(words.folder, words.take)
        return source

    def _of_folder(
        self, stream: StreamSettings, fps: float, ledger: Path, words: StreamWords | None
    ) -> PushSource:
        width, height = self.size
        source = PicturedFolderSource(
            stream.url,
            fps,
            width=width,
            height=height,
            name=stream.name,
            ledger=FileLedger(ledger),
            open_film=self.open_film,
        )
        source.fit, source.thumbnail, source.pictures = self.fit, self.thumbnail, self.pictures
        if words is not None:
            source.take_piece = words.take_in_turn
        return source

    def of_browser(self, name: str, fps: float) -> BrowserSource:
        """What a browser will send."""
        width, height = self.size
        source = BrowserSource(name, fps, width=width, height=height)
        source.fit, source.thumbnail, source.pictures = self.fit, self.thumbnail, self.pictures
        return source


def _show(
    source: PushSource, pictures: PictureShelf, picture: Picture, sampled_at: float | None
) -> None:
    """Keep a picture for the page. sampled_at: None where the encoder does not use it."""
    name = source.info.video_id
    if sampled_at is not None and source.thumbnail is None:  # else the bank stores it
        pictures.keep(name, picture, sampled_at)
    pictures.show(name, picture)  # last: then requests convert it
