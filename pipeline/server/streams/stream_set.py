"""The streams of a server, by name: of streams.yaml, and those that clients start.

The latter are kept in a file of their own, so a new process watches them again; each goes on behind
its last segment. Knows banks and models; no HTTP.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from encoders.errors import UserError
from encoders.schema import LiveSource
from encoders.sources.live.push_source import PushSource
from encoders.text.lines import TextExtractor
from pipeline.alerts.alert_center import AlertCenter
from pipeline.alerts.check import check_for
from pipeline.live.encoder_turns import EncoderTurns
from pipeline.qa import VideoQA
from pipeline.runtime.fair_queue import FairQueue
from pipeline.server.access.key import absolute
from pipeline.server.streams.picture_shelf import PictureShelf
from pipeline.server.streams.stream import Feed, Stream, qa_of
from pipeline.server.streams.stream_banks import StreamBanks
from pipeline.server.streams.stream_settings import (
    StreamSettings,
    folder_of_streams,
    parse_stream,
)
from pipeline.server.streams.words.piece_reader import PieceReader
from pipeline.server.streams.words.stream_words import StreamWords

_MOST = 256  # streams of one server


class StreamSet:
    """Starts, stops and lists streams. Threads: any."""

    def __init__(
        self,
        qa: VideoQA,
        *,
        open_bank: Callable[[str, float], VideoQA],
        new_source: Callable[[StreamSettings, float, StreamWords | None], PushSource],
        new_alerts: Callable[[], AlertCenter],
        path: Path,
        new_extractors: Callable[[StreamSettings], Sequence[TextExtractor]] = lambda stream: (),
        pictures: PictureShelf | None = None,
        own: Sequence[StreamSettings] = (),
        running: int = 1,
        is_deferred: Callable[[], bool] = lambda: False,
    ) -> None:
        """qa: of the server's bank. open_bank: the parts for another bank, by folder and frames per
        second. new_source: gets the settings, frames per second, and where the words are wanted,
        who finds them. new_extractors: of the words of a stream. new_alerts: made with the first
        stream. path: of what clients start. pictures: where sources put those that the page shows.
        own: of streams.yaml. running: checks of alerts at a time. is_deferred: whether something
        more urgent than encoding waits for the processor.

        UserError on two streams of one name, and on a bank or an alert that does not fit.
        """
        self._qa, self._banks, self._new_source = qa, StreamBanks(open_bank), new_source
        self._new_extractors, self._reader = new_extractors, PieceReader()
        self._new_alerts, self._path = new_alerts, path
        self.pictures = pictures or PictureShelf()
        self._alerts: AlertCenter | None = None
        self._turns = EncoderTurns(is_deferred=is_deferred)
        self._questions = FairQueue(running)
        # starting opens banks, which takes long: who only reads the streams does not wait for it
        self._changing, self._lock = threading.RLock(), threading.Lock()
        self._streams: dict[str, Stream] = {}
        self._uses: dict[Stream, Callable[[], None]] = {}  # each lets go of the bank of a stream
        self._kept: dict[str, StreamSettings] = {}  # that clients started
        self._is_closed = False
        try:
            for each in own:
                self._start(each)
            for each in self._read():
                if each.name in self._streams:
                    raise UserError(
                        f"A client of this server started a stream {each.name}, which {path} "
                        "keeps, and streams= has one of that name; give that one another name, or "
                        "take the other out of the file"
                    )
                self._kept[each.name] = each
                self._start(each)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def bank(self) -> str:
        """The folder of the server's bank, which takes the streams that name no other."""
        return str(self._qa.bank.root)

    @property
    def banks(self) -> tuple[str, ...]:
        """The folders of all banks of streams."""
        return tuple({str(each.qa.bank.root) for each in self.streams.values()})

    @property
    def alerts(self) -> AlertCenter:
        """Of all streams."""
        with self._changing:
            if self._alerts is None:
                self._alerts = self._new_alerts()
            return self._alerts

    @property
    def streams(self) -> Mapping[str, Stream]:
        """The streams by name."""
        with self._lock:
            return dict(self._streams)

    @property
    def longest_wait(self) -> float:
        """Seconds that a stream waited for the encoder, at most."""
        return self._turns.longest_wait

    def stream(self, name: str) -> Stream:
        """The stream of a name. KeyError where there is none."""
        with self._lock:
            return self._streams[name]

    def add(self, settings: StreamSettings) -> Stream:
        """Watch a stream from now on, also in the next process. UserError on a name that is taken,
        and on a bank or an alert that does not fit."""
        with self._changing:
            if self._is_closed:
                raise UserError("The server is being shut down.")
            stream = self._start(settings)
            self._kept[settings.name] = settings
            self._write()
            return stream

    def show(self, settings: StreamSettings, feed: Feed) -> Stream:
        """Watch what a visitor of the page brings, once. UserError as `add`."""
        with self._changing:
            if self._is_closed:
                raise UserError("The server is being shut down.")
            return self._start(settings, feed)

    def remove(self, name: str) -> None:
        """Stop a stream; the bank keeps what it has. KeyError where there is none.

        Its name is taken until it has ended: two streams must not write the same video.
        """
        stream = self.stream(name)
        stream.stop()
        with self._changing:
            if self._streams.get(name) is not stream:  # somebody else removed it meanwhile
                return
            if self._kept.pop(name, None) is not None:
                self._write()
            with self._lock:
                del self._streams[name]
        self.pictures.forget(name)
        self._let_go(stream)

    def hold(self, stream: Stream) -> Callable[[], None]:
        """Keep the bank of a stream open until the function that this gives is called. KeyError
        where it has been closed, as nobody watched it any more."""
        return _nothing if self._is_own(stream.qa) else self._banks.hold(stream.qa)

    def close(self) -> None:
        """Stop all streams; the next process watches them again."""
        with self._changing:
            self._is_closed = True
        self._reader.close()
        stopping = [threading.Thread(target=each.stop) for each in self.streams.values()]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        if self._alerts is not None:
            self._alerts.close()
        for stream in self.streams.values():
            self._let_go(stream)

    def _let_go(self, stream: Stream) -> None:
        """Close the bank of a stream that has ended, if nobody else uses it."""
        with self._lock:
            let_go = self._uses.pop(stream, _nothing)
        let_go()

    def _is_own(self, qa: VideoQA) -> bool:
        """Whether these are the parts for the server's bank, which is not closed here."""
        return qa.bank is self._qa.bank

    def _start(self, settings: StreamSettings, feed: Feed | None = None) -> Stream:
        if settings.name in self._streams:
            raise _taken(settings.name)
        if len(self._streams) >= _MOST:
            raise UserError(f"There are {_MOST} streams already; stop one first.")
        server_fps = 1.0 / self._qa.ingester.interval
        fps = server_fps if settings.fps is None else settings.fps
        for request in settings.alerts:  # of the model, which all banks share
            check_for(request, self._qa.backbone.questions)
        extractors, alerts = self._new_extractors(settings), self.alerts
        qa, let_go = self._bank(settings, fps)  # last: a mistake opens no bank
        try:
            stream = self._watch(settings, fps, qa, extractors, alerts, feed)
        except BaseException:
            let_go()
            raise
        with self._lock:
            self._streams[settings.name] = stream
            self._uses[stream] = let_go
        return stream

    def _watch(
        self,
        settings: StreamSettings,
        fps: float,
        qa: VideoQA,
        extractors: Sequence[TextExtractor],
        alerts: AlertCenter,
        feed: Feed | None,
    ) -> Stream:
        """A stream that has begun."""
        words = None
        if extractors:
            folder = folder_of_streams(qa.bank.root) / settings.name
            words = StreamWords(qa, settings.name, extractors, self._reader, folder)

        def new_source(words: StreamWords | None) -> LiveSource:
            if feed is not None:
                return feed.new_source(fps)
            return self._new_source(settings, fps, words)

        return Stream(
            settings,
            # the words of a film are found while it plays
            qa_of(qa, fps) if feed is None or feed.film is None else qa,
            new_source,
            alerts,
            turns=self._turns,
            questions=self._questions,
            pictures=self.pictures,
            words=words,
            feed=feed,
        )

    def _bank(self, settings: StreamSettings, fps: float) -> tuple[VideoQA, Callable[[], None]]:
        """The parts for the bank of a stream, and what lets go of it. UserError where it has
        another rate; a bank that was opened for it is closed then."""
        folder = absolute(settings.bank or self._qa.bank.root)
        if folder == absolute(self._qa.bank.root):
            qa, let_go = self._qa, _nothing
        else:
            qa, let_go = self._banks.take(folder, fps), partial(self._banks.release, folder)
        rate = 1.0 / qa.ingester.interval
        if abs(rate - fps) > 1e-9:
            let_go()
            raise UserError(
                f"stream {settings.name} has fps={fps:g}, and bank {Path(folder).name} holds "
                f"{rate:g} frames "
                "a second; give the stream a bank of its own"
            )
        return qa, let_go

    def _read(self) -> list[StreamSettings]:
        if not self._path.exists():
            return []
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))["streams"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._path} cannot be read ({error}); move it away, and start the streams again"
            ) from None
        return [parse_stream(row, str(self._path)) for row in rows]

    def _write(self) -> None:
        """Keep what clients started; addresses may hold passwords, so only the owner may read."""
        # without alerts, which the first session kept: one that was removed does not come back
        rows = [each.model_dump(exclude={"alerts"}) for each in self._kept.values()]
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            json.dump({"streams": rows}, opened)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, self._path)


def _nothing() -> None:
    """In place of what lets go of a bank: the server's stays open."""


def _taken(name: str) -> UserError:
    return UserError(f"There is a stream {name} already; choose another name, or stop that one.")
