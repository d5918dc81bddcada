"""The feed that all pages show: a file, a stream, or a browser's camera, one at a time.

Knows sessions and sources; no HTTP and no page. The bank has one writer, so a new feed stops the
previous one. What was encoded of it stays in the bank.
"""

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.errors import UserError
from encoders.schema import FrameSource, LiveSource
from encoders.sources.live.address import without_password
from encoders.sources.live.file_playback import FilePlayback
from encoders.sources.live.url_source import stream_name
from encoders.sources.thumbnail_maker import ThumbnailMaker
from pipeline.alerts.alert_center import AlertCenter
from pipeline.alerts.alert_list import AlertList
from pipeline.alerts.attachments import Attachments
from pipeline.demo.live_sources import BrowserSource, PicturedUrlSource
from pipeline.live.session import Session
from pipeline.qa import VideoQA
from pipeline.server.errors import as_sentence
from pipeline.server.files import StoredFile
from pipeline.server.page.pictures import FilePictures, LivePictures, Pictures, Stored
from pipeline.server.streams.stream_hosts import check_host

_MAX_EDGES = 400  # segment edges that the timeline draws; beyond that every n-th


class SpeedMeter:
    """Encoding speed in multiples of real time, from repeated position reports."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None  # (monotonic second, video second)
        self._last = (0.0, 0.0)

    def update(self, seconds: float) -> float:
        """Report the position in video seconds; returns the average speed since the first report.

        Reports without progress do not count, so the speed freezes when the video has ended.
        """
        if seconds and seconds != self._last[1]:
            self._last = (time.monotonic(), seconds)
            self._first = self._first or self._last
        if self._first is None or self._last[0] <= self._first[0]:
            return 0.0
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])


@dataclass(frozen=True)
class Feed:
    """One file, stream, or camera with its session."""

    id: str
    kind: str  # file, live, or browser: where its pictures come from
    title: str
    session: Session
    pictures: Pictures
    alerts: AlertList
    speed: SpeedMeter
    file: StoredFile | None = None

    def state(self) -> dict[str, Any]:
        """What the page shows of it, as JSON data."""
        bank, figures = self.session.qa.bank, self.session.status()
        segments = bank.catalog.segments(self.session.info.video_id)
        step = max(1, len(segments) // _MAX_EDGES)
        edges = [[round(row.start, 3), round(row.end, 3)] for row in segments[::step]]
        encoded_until = max(
            [figures.seen_until, figures.sealed_until, *(end for _, end in edges[-1:])]
        )
        return asdict(figures) | {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "media": f"watch/media/{self.id}" if self.file is not None else None,
            "duration": self.file.duration if self.file is not None else None,
            "seen_until": round(encoded_until, 3),
            "segments": edges,
            "in_bank": {
                "segments": len(segments),
                "frames": segments[-1].stop if segments else 0,
                "bytes": sum(row.nbytes for row in segments),
            },
            "speed": round(self.speed.update(encoded_until), 2),
            "standing": self.alerts.state(),
            "error": as_sentence(figures.error) if figures.error else "",
        }


class Feeds:
    """Starts and stops feeds; `current` is the latest one. Safe to use from several threads."""

    def __init__(
        self,
        qa: VideoQA,
        new_file: Callable[[Path], FrameSource],
        alerts: AlertCenter,
        *,
        size: tuple[int, int],
        hosts: tuple[str, ...] | None,
        at_once: int,
        thumbnail: ThumbnailMaker | None = None,
    ) -> None:
        """new_file: opens a file as a frame source. size: (width, height) that the model expects.
        thumbnail: of live sources, stored with their frames; None: nothing is.

        hosts: allowed stream hosts, "camera" for the machine's own cameras; None = all. at_once:
        questions answered at the same time.
        """
        self.qa, self.alerts, self._new_file, self._size = qa, alerts, new_file, size
        self._fit = qa.backbone.frame_size_for if qa.backbone.keeps_shape else None
        self._hosts, self._at_once, self._thumbnail = hosts, at_once, thumbnail
        self._fps = 1.0 / qa.ingester.interval
        self._lock = threading.Lock()
        self._current: Feed | None = None

    @property
    def current(self) -> Feed | None:
        return self._current

    def require_current(self) -> Feed:
        """The current feed. UserError when there is none."""
        if self._current is None:
            raise UserError("There is nothing to ask about yet; choose a video first.")
        return self._current

    def start_file(self, file: StoredFile, speed: float) -> Feed:
        """Play a file. speed: multiple of real time, inf = as fast as it encodes."""
        source = FilePlayback(self._new_file(file.path), speed)
        pictures = FilePictures(file.path, self._stored(source.info.video_id))
        return self._start("file", file.filename, source, pictures, file)

    def start_url(self, url: str) -> Feed:
        """Show a stream or a camera of this machine.

        UserError when it is not allowed or cannot be read.
        """
        url = url.strip()
        check_host(url, self._hosts, "This page")
        width, height = self._size
        pictures = LivePictures(self._stored(stream_name(url)))
        source = PicturedUrlSource(url, self._fps, width=width, height=height, pictures=pictures)
        source.fit, source.thumbnail = self._fit, self._thumbnail
        return self._start("live", without_password(url), source, pictures)

    def start_browser(self, title: str) -> Feed:
        """Show the pictures that a browser sends: its camera or its screen."""
        width, height = self._size
        name = time.strftime("page-%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        pictures = LivePictures(self._stored(name))
        source = BrowserSource(name, self._fps, width=width, height=height, pictures=pictures)
        source.fit, source.thumbnail = self._fit, self._thumbnail
        return self._start("browser", title, source, pictures)

    def push(self, feed_id: str, picture: np.ndarray) -> bool:
        """Add a picture of a browser feed, [height, width, 3] uint8 RGB.

        False when that feed is not the current one.
        """
        feed = self._current
        if feed is None or feed.id != feed_id:
            return False
        if not isinstance(feed.session.source, BrowserSource):
            return False
        feed.session.source.push(picture)
        return True

    def stop(self) -> None:
        """Stop the current feed. Questions about it can still be asked."""
        if (feed := self._current) is not None:
            with suppress(Exception):  # the error is in the session's figures
                feed.session.stop()
            feed.alerts.close()

    def close(self) -> None:
        with self._lock:
            self.stop()
            self._current = None
        self.alerts.close()

    def _start(
        self,
        kind: str,
        title: str,
        source: LiveSource,
        pictures: Pictures,
        file: StoredFile | None = None,
    ) -> Feed:
        with self._lock:
            self.stop()
            session = Session(self.qa, source, concurrency=self._at_once)
            self._current = Feed(
                id=secrets.token_urlsafe(9),
                kind=kind,
                title=title,
                session=session,
                pictures=pictures,
                alerts=self.alerts.watch(
                    session,
                    Attachments(
                        pictures.at,
                        None if file is None else file.path,
                        1.0 / self._fps,
                    ),
                    title=title,
                ),
                speed=SpeedMeter(),
                file=file,
            )
            session.start()
            return self._current

    def _stored(self, video_id: str) -> Stored:
        """What the bank stores of a video."""

        def at(seconds: float) -> bytes | None:
            with suppress(UserError):  # of a damaged segment
                return self.qa.bank.catalog.thumbnails(video_id, (seconds,))[0]
            return None

        return at
