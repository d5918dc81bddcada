"""What the page watches: one thing at a time, for everybody who has it open, with its session, its pictures and its figures.

Knows sessions and sources; no HTTP and no page. The bank has one writer, so a second thing to watch ends the first; what was
seen of it stays in the bank.
"""

import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np

from encoders.errors import UserError
from encoders.schema import LiveSource
from encoders.sources.live import PlayedFile, PushedSource, UrlSource, without_password
from pipeline.demo.pictures import FilePictures, KeptPictures, Pictures
from pipeline.live.alerts import Decision, Standing, Watcher, check_for
from pipeline.live.session import Session
from pipeline.qa import VideoQA
from pipeline.server.files import StoredFile

_LOOKS = 4.0  # pictures a second of a live source that the page can show
_REQUESTS, _NOTICES = 8, 50  # standing ones at a time; of what was told, what is shown
_EDGES = 400  # segments that the timeline shows one by one; of more, every n-th


class ShownUrl(UrlSource):
    """A URL or camera whose pictures can be looked at as well."""

    def __init__(
        self, url: str, fps: float, *, width: int, height: int, pictures: KeptPictures
    ) -> None:
        super().__init__(url, fps, width=width, height=height)
        self._pictures, self._looked = pictures, -np.inf

    def push(self, picture: "av.VideoFrame | np.ndarray", at: float | None = None) -> bool:
        at = self.now if at is None else at
        sampled = super().push(picture, at)
        if sampled or at - self._looked >= 1 / _LOOKS:
            self._looked = at
            self._pictures.keep(picture, at, sampled)
        return sampled


class ShownPushes(PushedSource):
    """Pictures that a browser sends, to look back at."""

    def __init__(
        self, name: str, fps: float, *, width: int, height: int, pictures: KeptPictures
    ) -> None:
        super().__init__(name, fps, width=width, height=height)
        self._pictures = pictures

    def push(self, picture: "av.VideoFrame | np.ndarray", at: float | None = None) -> bool:
        at = self.now if at is None else at
        sampled = super().push(picture, at)
        self._pictures.keep(picture, at, sampled)
        return sampled


class Speed:
    """How fast video goes by, from now and then being told how far it is."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None  # (monotonic second, video second)
        self._last = (0.0, 0.0)

    def at(self, seconds: float) -> float:
        """Times real time, since it was told for the first time; it stands still when the video has ended."""
        if seconds and seconds != self._last[1]:
            self._last = (time.monotonic(), seconds)
            self._first = self._first or self._last
        if self._first is None or self._last[0] <= self._first[0]:
            return 0.0
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])


class Requests:
    """Standing requests about one watch, and what was told of them."""

    def __init__(self, session: Session, embedded: bool) -> None:
        """embedded: whether the model knows its own questions only."""
        self._session, self._embedded = session, embedded
        self._lock = threading.Lock()
        self._told: deque[dict[str, Any]] = deque(maxlen=_NOTICES)
        self._count = 0
        self._closed = False
        self._watcher = Watcher(session, self._tell)

    def add(self, text: str) -> None:
        """UserError when it is none, when there are too many, or when nothing more comes."""
        if self._closed:
            raise UserError(
                "This is not watched any more; start it again to be told of what it shows."
            )
        if len(self._watcher.requests) >= _REQUESTS:
            raise UserError(f"There are {_REQUESTS} requests already; remove one first.")
        self._watcher.add(
            Standing(self._session, text.strip(), check_for(text, embedded=self._embedded))
        )

    def remove(self, number: int) -> None:
        """The request at this place, if there is one."""
        requests = self._watcher.requests
        if 0 <= number < len(requests):
            self._watcher.remove(requests[number])

    def state(self) -> dict[str, Any]:
        """JSON: what is requested, and what was told, the newest first."""
        with self._lock:
            return {
                "requests": [each.request for each in self._watcher.requests],
                "told": list(self._told)[::-1],
            }

    def close(self) -> None:
        """Look at nothing more."""
        self._closed = True
        self._watcher.requests = []  # what waits to be looked at need not be
        self._watcher.close()

    def _tell(self, standing: Standing, decision: Decision) -> None:
        with self._lock:
            self._count += 1
            self._told.append(
                {"id": self._count, "request": standing.request, "at": round(decision.time, 2)}
            )


@dataclass(frozen=True)
class Watch:
    """One thing that is watched."""

    id: str
    kind: str  # file, live, or browser: where its pictures come from
    title: str
    session: Session
    pictures: Pictures
    requests: Requests
    speed: Speed
    file: StoredFile | None = None

    def state(self) -> dict[str, Any]:
        """What the page shows of it; JSON."""
        bank, figures = self.session.qa.bank, self.session.figures()
        rows = bank.segments(self.session.info.video_id)
        edges = [
            [round(row.start, 3), round(row.end, 3)] for row in rows[:: max(1, len(rows) // _EDGES)]
        ]
        seen = max([figures.seen_until, figures.sealed_until, *(end for _, end in edges[-1:])])
        return asdict(figures) | {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "media": f"watch/media/{self.id}" if self.file is not None else None,
            "duration": self.file.duration if self.file is not None else None,
            "seen_until": round(seen, 3),
            "segments": edges,
            "in_bank": {
                "segments": len(rows), "frames": rows[-1].stop if rows else 0, "bytes": sum(row.nbytes for row in rows),
            },
            "speed": round(self.speed.at(seen), 2),
            "standing": self.requests.state(),
            "error": _sentence(figures.error),
        }  # fmt: skip


class Stage:
    """Holds what is watched now. Threads may use it at the same time."""

    def __init__(
        self,
        qa: VideoQA,
        new_file: Callable[[Path], Any],
        *,
        size: tuple[int, int],
        hosts: tuple[str, ...] | None,
        at_once: int,
        embedded: bool,
    ) -> None:
        """new_file: the frames of a file. size: width and height that the model wants. hosts: from which streams are taken,
        with the machine's own cameras as "camera"; None = all. at_once: questions that are answered at the same time.
        embedded: whether the model is the one that knows its own questions only."""
        self.qa, self._new_file, self._size, self._hosts, self._at_once = (
            qa,
            new_file,
            size,
            hosts,
            at_once,
        )
        self._fps, self._embedded = 1.0 / qa.interval, embedded
        self._lock = threading.Lock()
        self._current: Watch | None = None

    @property
    def current(self) -> Watch | None:
        return self._current

    def asked(self) -> Watch:
        """What questions are about. UserError when nothing is watched."""
        if self._current is None:
            raise UserError("There is nothing to ask about yet; choose a video first.")
        return self._current

    def watch_file(self, file: StoredFile, speed: float) -> Watch:
        """Play a file; speed: times real time, inf = as fast as it goes."""
        source = PlayedFile(self._new_file(file.path), speed)
        return self._begin("file", file.filename, source, FilePictures(file.path), file)

    def watch_url(self, url: str) -> Watch:
        """A stream or a camera of this machine. UserError when it may not be taken or cannot be read."""
        url = url.strip()
        self._check(url)
        pictures = KeptPictures()
        source = ShownUrl(
            url, self._fps, width=self._size[0], height=self._size[1], pictures=pictures
        )
        return self._begin("live", without_password(url), source, pictures)

    def watch_browser(self, title: str) -> Watch:
        """Pictures that a browser sends: its camera, or its screen."""
        pictures = KeptPictures()
        name = time.strftime("page-%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        source = ShownPushes(
            name, self._fps, width=self._size[0], height=self._size[1], pictures=pictures
        )
        return self._begin("browser", title, source, pictures)

    def push(self, watch_id: str, picture: np.ndarray) -> bool:
        """A picture of the browser that is watched, [height, width, 3] uint8 RGB; False when that is over."""
        watch = self._current
        if (
            watch is None
            or watch.id != watch_id
            or not isinstance(watch.session.source, ShownPushes)
        ):
            return False
        watch.session.source.push(picture)
        return True

    def stop(self) -> None:
        """End what is watched; questions about it can still be asked."""
        if (watch := self._current) is not None:
            with suppress(Exception):  # what went wrong with it is in its figures
                watch.session.stop()
            watch.requests.close()

    def close(self) -> None:
        with self._lock:
            self.stop()
            self._current = None

    def _begin(
        self,
        kind: str,
        title: str,
        source: LiveSource,
        pictures: Pictures,
        file: StoredFile | None = None,
    ) -> Watch:
        with self._lock:
            self.stop()
            session = Session(self.qa, source, at_once=self._at_once)
            requests = Requests(session, self._embedded)
            self._current = Watch(
                secrets.token_urlsafe(9), kind, title, session, pictures, requests, Speed(), file
            )
            session.start()
            return self._current

    def _check(self, url: str) -> None:
        if not url:
            raise UserError(
                "The address is empty; give one such as rtsp://192.168.1.20/stream, or camera:0."
            )
        if self._hosts is None:
            return
        camera = not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
        try:
            host = "camera" if camera else (urlsplit(url).hostname or "").lower()
        except ValueError:
            host = ""
        if host not in self._hosts:
            what = "cameras of the server" if camera else f"streams from {host or 'there'}"
            raise UserError(
                f"This page does not take {what}; whoever started it can allow it with hosts=[...]."
            )


def _sentence(text: str) -> str:
    return f"{' '.join(text.split()).rstrip('. ')}." if text else ""
