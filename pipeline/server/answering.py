"""From what is wanted to an answer in pieces: find the video, wait until the bank has it, ask in a thread, bounded in time.

Knows files, encodings and `VideoQA`; no JSON and no HTTP beyond statuses.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from memory.schema import Question
from pipeline.qa import VideoQA
from pipeline.runtime.cancel import Cancelled
from pipeline.schema import Answer
from pipeline.server.admission import Place
from pipeline.server.chat_request import Video, Wanted
from pipeline.server.encode_queue import Encodings, StoppedError
from pipeline.server.errors import ApiError
from pipeline.server.fetch import Fetcher
from pipeline.server.files import FileStore, StoredFile

_AGAIN_S = 600.0  # a URL that was fetched so recently is not fetched again
_URLS = 1000  # that are remembered
_HEARTBEAT_S = 1.0

Event = float | str | Answer
"""Share of the video that is encoded (0..1), a piece of the answer, the whole answer at the end."""


class Answering:
    """`file_of(video)`, then `events(...)`."""

    def __init__(
        self,
        qa: VideoQA,
        files: FileStore,
        fetcher: Fetcher,
        encodings: Encodings,
        *,
        running: int,
        seconds: float,
    ) -> None:
        """running: questions that are answered at once. seconds: that a question may take, encoding included."""
        self._qa, self._files, self._fetcher, self._encodings = qa, files, fetcher, encodings
        self._seconds = seconds
        self._askers = ThreadPoolExecutor(running, "asker")
        self._fetched: dict[str, tuple[str, float]] = {}  # URL -> file, and when

    async def file_of(self, video: Video) -> StoredFile:
        """The file that is meant, kept now if it came with the request. ApiError, or UserError when it is no video."""
        if video.file_id:
            return self._files.get(video.file_id)
        if video.data:
            return await asyncio.to_thread(
                self._files.put, [video.data], video.filename, "user_data"
            )
        return await asyncio.to_thread(self._fetch, video.url)

    async def events(self, file: StoredFile, wanted: Wanted, place: Place) -> AsyncGenerator[Event]:
        """The answer as it comes; `place` in the line is handed on to the model, which leaves it when it is done. Whoever stops
        listening (closes this generator) stops the answer. ApiError 504 when it takes too long: encoding goes on then."""
        ends, stop = time.monotonic() + self._seconds, threading.Event()
        try:
            async for share in self._encoded(file, ends):
                yield share
            loop, events = asyncio.get_running_loop(), asyncio.Queue[str | Answer | BaseException]()

            def tell(event: str | Answer | BaseException) -> None:
                with suppress(RuntimeError):  # the server is being shut down: nobody listens
                    loop.call_soon_threadsafe(events.put_nowait, event)

            def work() -> None:
                try:
                    tell(
                        self._qa.ask(
                            Question(wanted.question, file.video_id, wanted.asked_at),
                            tell,
                            cancelled=stop,
                        )
                    )
                except BaseException as error:
                    tell(error)

            self._askers.submit(work).add_done_callback(lambda _: place.leave())
            place.handed_on = True
            while True:
                try:
                    event = await asyncio.wait_for(events.get(), max(0.0, ends - time.monotonic()))
                except TimeoutError:
                    raise ApiError(
                        504, f"The answer took longer than {self._seconds:g} s.", retry_after=5
                    ) from None
                if isinstance(event, Cancelled):
                    raise ApiError(503, "The server is being shut down.")
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Answer):
                    return
        finally:
            stop.set()

    def close(self) -> None:
        """Wait for the answers that are being given; nothing new begins."""
        self._askers.shutdown(cancel_futures=True)

    async def _encoded(self, file: StoredFile, ends: float) -> AsyncGenerator[float]:
        """Shares of the video that are in the bank, until all is."""
        encoding = self._encodings.want(file)
        if encoding is None:
            return
        done = asyncio.wrap_future(encoding.done)
        while not done.done():
            if time.monotonic() > ends:
                raise ApiError(
                    504,
                    f"The video is still being encoded ({encoding.share:.0%} after {self._seconds:g} s), and that goes on; "
                    "ask again later.",
                    code="still_encoding",
                    retry_after=10,
                )
            yield encoding.share
            await asyncio.wait(
                {done}, timeout=min(_HEARTBEAT_S, max(0.01, ends - time.monotonic()))
            )
        try:
            done.result()
        except StoppedError:
            raise ApiError(
                503, "The video was deleted, or the server is being shut down."
            ) from None

    def _fetch(self, url: str) -> StoredFile:
        file_id, when = self._fetched.get(url, ("", 0.0))
        if file_id and time.monotonic() < when + _AGAIN_S:
            with suppress(ApiError):  # deleted meanwhile
                return self._files.get(file_id)
        with self._fetcher.pieces(url) as pieces:
            stored = self._files.put(pieces, unquote(urlsplit(url).path), "fetched")
        while len(self._fetched) >= _URLS:
            self._fetched.pop(next(iter(self._fetched)), None)
        self._fetched[url] = (stored.id, time.monotonic())
        return stored
