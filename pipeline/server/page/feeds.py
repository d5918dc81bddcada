"""What visitors of the page have watched: the pictures of their browser, and films as if live.

Both are streams of the server, so they are asked about, listed and told of as those are. Knows
streams, files and sources; no HTTP.
"""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.schema import FrameSource
from encoders.sources.live.file_playback import FilePlayback
from pipeline.server.encode_queue import EncodeQueue
from pipeline.server.errors import ApiError
from pipeline.server.files import StoredFile
from pipeline.server.streams.live_sources import BrowserSource, LiveSources
from pipeline.server.streams.stream import Feed, Stream
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import StreamSettings

LIVE = "live"  # purpose of an upload that is not encoded before somebody asks or watches
BROWSER = "browser:"  # what the address of a browser's pictures begins with
_MOST = 32  # feeds that are over and stay listed; the oldest ones go first


class Feeds:
    """Safe in threads."""

    def __init__(
        self,
        streams: StreamSet,
        sources: LiveSources,
        encode_queue: EncodeQueue,
        new_film: Callable[[Path], FrameSource],
    ) -> None:
        """new_film: opens a file as a frame source."""
        self._streams, self._sources, self._new_film = streams, sources, new_film
        self._encode_queue = encode_queue
        encode_queue.is_played = self.is_played

    def show_browser(self, kind: str) -> Stream:
        """Take the pictures that a browser sends. kind: camera or screen."""
        name = time.strftime(f"{kind}-%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        feed = Feed(lambda fps: self._sources.of_browser(name, fps))
        return self._start(StreamSettings(name=name, url=BROWSER + kind, fps=None), feed)

    def push(self, name: str, picture: np.ndarray) -> bool:
        """Add a picture of a browser, [height, width, 3] uint8 RGB. False where nobody watches it
        any more."""
        stream = self._streams.streams.get(name)
        if stream is None or stream.is_over or not stream.settings.url.startswith(BROWSER):
            return False
        if isinstance(stream.source, BrowserSource):  # else it is being started
            stream.source.push(picture)
        return True

    def play(self, file: StoredFile, speed: float) -> Stream:
        """Watch a film as it plays. speed: times real time, inf: as fast as it encodes.

        ApiError 409 while it is watched or encoded already, UserError on a speed that is none.
        """
        source = FilePlayback(self._new_film(file.path), speed)
        before = self._streams.streams.get(file.video_id)
        if before is not None and not before.is_over:
            raise ApiError(409, f"{file.filename} is being watched already; stop that first.")
        if before is not None:
            self._streams.remove(file.video_id)
        settings = StreamSettings(name=file.video_id, url=f"file:{file.filename}", fps=None)
        with self._encode_queue.hold(file):  # a video has one writer
            return self._start(settings, Feed(lambda fps: source, file.path))

    def is_played(self, video_id: str) -> bool:
        """Whether a film is watched as it plays."""
        stream = self._streams.streams.get(video_id)
        return stream is not None and not stream.is_over

    def stop(self, name: str) -> None:
        """Watch no more; questions can still be asked. ApiError 404 where nothing is watched."""
        stream = self._streams.streams.get(name)
        if stream is None or stream.feed is None:
            raise ApiError(404, "Nobody watches this any more.")
        stream.stop()

    def forget(self, video_id: str) -> None:
        """Stop a film that is deleted, if it is watched."""
        stream = self._streams.streams.get(video_id)
        if stream is not None and stream.feed is not None:
            self._streams.remove(video_id)

    def _start(self, settings: StreamSettings, feed: Feed) -> Stream:
        over = [each for each in self._streams.streams.values() if each.feed and each.is_over]
        for each in over[:-_MOST]:
            self._streams.remove(each.name)
        try:
            return self._streams.show(settings, feed)
        except UserError:
            if settings.name in self._streams.streams:  # somebody else was faster
                raise ApiError(409, "This is being watched already; stop that first.") from None
            raise
