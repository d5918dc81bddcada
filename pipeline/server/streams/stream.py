"""One stream of a server: it is watched until it is stopped, and watched again when it breaks.

A session encodes it (pipeline/live/session.py). Where the encoder cannot keep up, fewer frames are
sampled, and more again once it can; the figures say so. Knows no HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.schema import LiveSource
from encoders.sources.live.address import without_password
from encoders.sources.live.push_source import PushSource
from pipeline.alerts.alert_center import AlertCenter
from pipeline.alerts.alert_list import AlertList
from pipeline.alerts.attachments import Attachments
from pipeline.live.encoder_turns import EncoderTurns
from pipeline.live.session import Session
from pipeline.qa import VideoQA
from pipeline.runtime.fair_queue import FairQueue
from pipeline.server.streams.folders.folder_source import SCHEME, FolderSource, shown_folder
from pipeline.server.streams.picture_shelf import PictureShelf
from pipeline.server.streams.retention import Retention
from pipeline.server.streams.stream_settings import StreamSettings
from pipeline.server.streams.words.stream_words import StreamWords

log = logging.getLogger(__name__)

_TICK_S = 0.5
_CALM_S = 30.0  # without a lost frame, after which more are sampled again
_THINNEST = 16  # of the sampled frames, one in so many is kept, at the worst
_BACK_OFF_S = (2.0, 60.0)  # before a stream that ended is watched again
_SILENT_S = 15.0  # without a frame, after which a stream is not healthy


@dataclass(frozen=True, slots=True)
class Feed:
    """A source that a visitor of the page brings, and that is watched once: where it ends, so does
    its stream, and the next process does not know it."""

    new_source: Callable[[float], LiveSource]  # gets frames per second
    film: Path | None = None  # that is played as if it were live


class Stream:
    """Starts at once. `state()` says how it is doing."""

    def __init__(
        self,
        settings: StreamSettings,
        qa: VideoQA,
        new_source: Callable[[StreamWords | None], LiveSource],
        alerts: AlertCenter,
        *,
        turns: EncoderTurns,
        questions: FairQueue,
        pictures: PictureShelf,
        words: StreamWords | None = None,
        feed: Feed | None = None,
        back_off_s: tuple[float, float] = _BACK_OFF_S,
    ) -> None:
        """qa: of the bank of the stream. turns, questions, pictures: shared by all streams of the
        process. words: of the stream, closed with it; None: none are found. feed: of a stream that
        is watched once."""
        self.settings, self.qa, self.feed, self.pictures = settings, qa, feed, pictures
        self.restarts = 0
        self._new_source, self._alerts, self._turns = new_source, alerts, turns
        self._questions, self._back_off_s, self._words = questions, back_off_s, words
        self._stopped = threading.Event()
        self._session: Session | None = None
        self._list: AlertList | None = None
        self._requests = settings.alerts  # that are not added yet
        self._error = ""
        self._is_over = False
        self._seen_at: float | None = None  # monotonic second at which the newest frame was seen
        self._dropped = self._left_out = self._sampled = 0  # in earlier sessions
        self._thread = threading.Thread(target=self._run, name=f"stream-{self.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Of the stream and of its video."""
        return self.settings.name

    @property
    def shown_url(self) -> str:
        """Its address as clients see it."""
        url = self.settings.url
        return shown_folder(url) if url.startswith(SCHEME) else without_password(url)

    @property
    def has_frames(self) -> bool:
        """Whether a question can see a frame of this session."""
        return self._seen_at is not None

    @property
    def source(self) -> LiveSource | None:
        """Of the newest session; None before the first one."""
        return None if self._session is None else self._session.source

    @property
    def is_over(self) -> bool:
        """Whether it is watched no more."""
        return self._is_over or self._stopped.is_set()

    def picture(self, seconds: float) -> bytes | None:
        """JPEG of what is shown at a second of video time; None where nothing is kept."""
        with suppress(UserError):  # of a damaged segment
            (stored,) = self.qa.bank.catalog.thumbnails(self.name, (seconds,))
            if stored is not None:
                return stored
        return self.pictures.at(self.name, seconds)

    @property
    def alerts(self) -> AlertList:
        """Its alerts. UserError before it is watched for the first time."""
        if self._list is None:
            raise UserError(f"Stream {self.name} is not watched yet; try again in a moment.")
        return self._list

    def state(self) -> dict[str, Any]:
        """What the stream is, how it is doing, and what was lost, as JSON data."""
        session = self._session
        source = None if session is None else session.source
        status = None if session is None else session.status()
        thinning = source.thinning if isinstance(source, PushSource) else 1
        dropped, left_out, sampled = self._counts()
        fps, root = 1.0 / self.qa.ingester.interval, self.qa.bank.root
        silent_s = None if self._seen_at is None else time.monotonic() - self._seen_at
        is_folder = isinstance(source, FolderSource)  # between two files it may be silent
        is_running = status is not None and status.state == "running"
        return {
            "object": "stream",
            "name": self.name,
            "url": self.shown_url,
            "bank": root.name,  # its folder is the server's own matter
            "state": "stopped"
            if self._stopped.is_set()
            else "ended"
            if self._is_over
            else "running"
            if is_running
            else "waiting",
            "healthy": is_running
            and (is_folder or (silent_s is not None and silent_s < _SILENT_S)),
            "error": self._error.replace(str(root), root.name),
            "fps": fps,
            "sampled_fps": fps / thinning,
            "frames": sampled,
            "dropped": dropped,
            "left_out": left_out,
            "seen_until": 0.0 if status is None else round(status.seen_until, 3),
            "sealed_until": 0.0 if status is None else round(status.sealed_until, 3),
            "lag": round(max(0.0, status.now - status.seen_until), 3)
            if status is not None and is_running
            else None,
            "longest_wait": 0.0 if status is None else round(status.longest_wait, 3),
            "reconnects": self.restarts + (0 if status is None else status.reconnects),
            "alerts": {} if self._list is None else self._list.requests,
            "words": None if self._words is None else self._words.state(),
            "files": None
            if not isinstance(source, FolderSource)
            else {"taken": source.files_taken, "passed_over": source.files_passed_over},
        }

    def stop(self) -> None:
        """End it. What arrived is in the bank."""
        self._stopped.set()
        if (session := self._session) is not None:
            session.source.close()
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._words is not None:
            self._words.close()
        if self._list is not None:
            self._list.close()

    def _run(self) -> None:
        pause = self._back_off_s[0]
        while not self._stopped.is_set():
            began = self._seen_at
            try:
                self._watch()
            except UserError as error:
                self._tell(str(error))
            except Exception as accident:
                log.exception("reelbank: stream %s failed", self.name)
                self._tell(f"{type(accident).__name__}: {accident}")
            if self._is_over:
                return
            if self._seen_at != began:
                pause = self._back_off_s[0]
            if self._stopped.wait(pause):
                return
            pause = min(2 * pause, self._back_off_s[1])
            self.restarts += 1

    def _watch(self) -> None:
        """One session, until it ends. UserError says why it did."""
        source = self._new_source(self._words)
        session = Session(self.qa, source, turns=self._turns, questions=self._questions)
        self._keep_counts()
        self._session = session
        film = None if self.feed is None else self.feed.film
        attachments = Attachments(self.picture, film, self.qa.ingester.interval)
        self._list = own = self._alerts.watch(session, attachments, title=self.name)
        try:
            self._add_alerts(own)
            session.start()
            with Retention(self.settings, self.qa.bank):
                self._supervise(session, source)
        finally:
            with suppress(Exception):  # raised by `check` below
                session.stop()
            if self._words is not None:
                self._words.end_session()
            if self.feed is None:  # else its last moments are still being checked
                own.close()
            self._is_over = self.feed is not None
        session.check()
        if not self._is_over and not self._stopped.is_set():
            raise UserError(f"{self.shown_url} ended")

    def _add_alerts(self, own: AlertList) -> None:
        """Those of the settings, once: a client may have removed one before a later session."""
        requests, self._requests = self._requests, []
        for request in requests:
            if request.strip() not in own.requests.values():
                try:
                    own.add(request)
                except UserError as error:  # such as too many; the stream goes on
                    self._tell(str(error))

    def _supervise(self, session: Session, source: LiveSource) -> None:
        """Look after a session until it ends or is stopped."""
        lost, calm_since, seen = 0, time.monotonic(), 0.0
        while not self._stopped.wait(_TICK_S):
            status, now = session.status(), time.monotonic()
            if status.state in ("failed", "ended", "stopped"):
                return
            if status.seen_until > seen:
                seen, self._seen_at, self._error = status.seen_until, now, ""
            if not isinstance(source, PushSource):  # a film waits for its encoder
                continue
            if source.dropped > lost:
                lost, calm_since = source.dropped, now
                source.thinning = min(2 * source.thinning, _THINNEST)
            elif source.thinning > 1 and now - calm_since > _CALM_S:
                source.thinning, calm_since = source.thinning // 2, now

    def _counts(self) -> tuple[int, int, int]:
        """(dropped, left out, sampled) over all sessions."""
        source = None if self._session is None else self._session.source
        if not isinstance(source, PushSource):
            sampled = int(getattr(source, "frames_sampled", 0))
            return self._dropped, self._left_out, self._sampled + sampled
        return (
            self._dropped + source.dropped,
            self._left_out + source.left_out,
            self._sampled + source.frames_sampled,
        )

    def _keep_counts(self) -> None:
        self._dropped, self._left_out, self._sampled = self._counts()

    def _tell(self, error: str) -> None:
        """One warning for the same reason."""
        if error != self._error:
            self._error = error
            log.warning("reelbank: warning: stream %s: %s", self.name, error)


def qa_of(qa: VideoQA, fps: float) -> VideoQA:
    """The parts for streams: words are found in files alone, so extractors have nothing to read."""
    text = replace(qa.ingester.text, extractors=(), captioners=(), absent=())
    return replace(qa, ingester=replace(qa.ingester, text=text, interval=1.0 / fps))
