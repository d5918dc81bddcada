"""Answers one chat request: finds the video, waits until the bank has it, asks in a thread.

Knows files, the encode queue and `VideoQA`. Knows no JSON, and of HTTP only status codes.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from encoders.errors import UserError
from encoders.schema import Frames
from memory.schema import Question
from memory.union.bank_union import folder_of
from pipeline.answer.strategies.full import Full
from pipeline.answer.strategies.retrieve import Retrieve
from pipeline.conversation.history import MAX_ROUNDS
from pipeline.conversation.round import Round, context_text
from pipeline.conversation.round_memory import RoundMemory, Texts
from pipeline.qa import VideoQA
from pipeline.runtime.cancel import Cancelled, Emit
from pipeline.schema import Answer
from pipeline.server.admission import Ticket
from pipeline.server.chat_request import Abilities, ChatRequest, InlinePicture, VideoReference
from pipeline.server.encode_queue import EncodeQueue, StoppedError
from pipeline.server.errors import ApiError, as_sentence
from pipeline.server.fetch import Fetcher
from pipeline.server.files import FileStore, StoredFile
from pipeline.server.intake.pictures import decode_pictures
from pipeline.videos import by_path

_REFETCH_AFTER_S = 600.0  # a more recent download of the same URL is reused
_MAX_URLS = 1000  # downloads remembered
_MAX_DOWNLOADS = 16  # at the same time; each holds the place of a question
_HEARTBEAT_S = 1.0
_ADMISSION_S = 0.25  # how often a client that waits for a token is checked for its key
_WHOLE_BANK = "*"  # in place of a video id, for rounds about the whole bank

Event = float | str | Answer
"""Encoded share of the video (0..1), a piece of the answer text, or the complete answer (last)."""


@dataclass(frozen=True, slots=True)
class BankVideo:
    """What a client may know of a video of the bank."""

    filename: str
    file_id: str  # "": no client uploaded it
    qa: VideoQA | None = None  # of a stream that is asked about alone; None: of the server's bank


@dataclass(frozen=True, slots=True)
class FollowUpAnswer(Answer):
    """An answer to what followed on earlier rounds."""

    understood: str = ""  # how the question was understood, in a sentence


WholeBank = Mapping[str, BankVideo]
"""Every video that the bank has whole, by id: the subject of a question without a video."""


class Answering:
    """`resolve(video)` first, then `events(...)`."""

    def __init__(
        self,
        qa: VideoQA,
        files: FileStore,
        fetcher: Fetcher,
        encode_queue: EncodeQueue,
        rounds: RoundMemory,
        *,
        running: int,
        seconds: float,
        round_tokens: int,
    ) -> None:
        """running: questions answered at the same time. seconds: limit per question, encoding
        included. round_tokens: of earlier rounds, beside the newest one.
        """
        self._round_tokens = round_tokens
        self._qa, self._files, self._fetcher, self._encode_queue = qa, files, fetcher, encode_queue
        self._seconds, self._rounds = seconds, rounds
        self._executor = ThreadPoolExecutor(running, "asker")
        # of its own, so that slow hosts hold no thread that other requests use
        self._downloaders = ThreadPoolExecutor(_MAX_DOWNLOADS, "downloader")
        # ids of the streams of this server in its bank, which are never finished
        self.streams: Callable[[], Collection[str]] = tuple
        self._downloads: dict[str, tuple[str, float]] = {}  # URL -> file id, monotonic time

    @property
    def abilities(self) -> Abilities:
        """What the model reads and heeds beside a question."""
        return Abilities(
            rounds=self._rounds.is_read,
            instructions=self._qa.backbone.reads_text,
        )

    async def check_form(self, request: ChatRequest) -> None:
        """ApiError 400 where the answer cannot be held to the form that a request asks for."""
        form, answerer = request.generation.form, self._qa.answerer
        if not form:
            return
        strategy = answerer.strategy
        try:
            if not isinstance(strategy, Retrieve | Full):
                raise UserError(
                    f"response_format is text alone with answer={strategy.name}, which puts "
                    "answers together; ask for the form in the question"
                )
            await asyncio.to_thread(answerer.reader.check_form, form)
        except UserError as error:
            raise ApiError(400, as_sentence(str(error)), param="response_format") from None

    async def resolve(self, video: VideoReference) -> StoredFile:
        """The stored file of a reference; stores or downloads it first if necessary.

        ApiError when there is no such file, UserError when it is not a video.
        """
        if video.file_id:
            return self._files.get(video.file_id)
        if video.data is not None:
            return await self._files.store(video.data.pieces(), video.filename, "user_data")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._downloaders, self._fetch, video.url)

    async def frames(self, pictures: Sequence[InlinePicture]) -> Frames:
        """The frames of a request's own pictures, at the model's size. ApiError 422 on one that is
        no picture.
        """
        size = self._qa.backbone.frame_size
        return await asyncio.to_thread(decode_pictures, pictures, size)

    async def whole_bank(self, sees: Callable[[Path], bool] = lambda bank: True) -> WholeBank:
        """The videos that are encoded. ApiError 404 where there is none.

        sees: whether a client may see a bank, by its folder.
        """
        videos = await asyncio.to_thread(self._encoded_videos, sees)
        if not videos:
            raise ApiError(404, "The bank holds no encoded video yet; upload one to /v1/files.")
        return videos

    def _encoded_videos(self, sees: Callable[[Path], bool]) -> WholeBank:
        files = {file.video_id: file for file in self._files.all()}
        videos: dict[str, BankVideo] = {}
        streams = self.streams()
        for row in by_path(self._qa.bank.catalog.videos()):
            # a film has a length; what a camera showed has none, and nobody will ever finish it
            is_bare = row.info.duration == 0 and not Path(row.info.path).is_file()
            is_recording = row.info.video_id in streams or is_bare
            if (row.finished or is_recording) and sees(folder_of(self._qa.bank, row.info.video_id)):
                file, stored = files.get(row.info.video_id), Path(row.info.path).name
                if is_recording:
                    stored = row.info.video_id
                videos[row.info.video_id] = (
                    BankVideo(stored, "") if file is None else BankVideo(file.filename, file.id)
                )
        return videos

    async def events(
        self,
        subject: StoredFile | Frames | WholeBank,
        request: ChatRequest,
        ticket: Ticket,
        is_admitted: Callable[[], bool] = lambda: True,
    ) -> AsyncGenerator[Event]:
        """Yield the answers as they are generated, each behind its pieces. Closing this generator
        cancels them.

        The worker thread takes over `ticket` and releases it when it is done. is_admitted: checked
        before each event, and while there is none. ApiError 401 once it is False, and 504 after the
        time limit; encoding continues then.
        """
        deadline, stop = time.monotonic() + self._seconds, threading.Event()
        try:
            if isinstance(subject, StoredFile):
                async for share in self._wait_until_encoded(subject, deadline):
                    _check_admitted(is_admitted)
                    yield share
            asking = self._ask(subject, request, ticket, deadline, stop, is_admitted)
            async with aclosing(asking) as events:
                async for event in events:
                    yield event
        finally:
            stop.set()

    def close(self) -> None:
        """Wait for running answers; start no new ones."""
        self._downloaders.shutdown(wait=False, cancel_futures=True)
        self._executor.shutdown(cancel_futures=True)

    async def _ask(
        self,
        subject: StoredFile | Frames | WholeBank,
        request: ChatRequest,
        ticket: Ticket,
        deadline: float,
        stop: threading.Event,
        is_admitted: Callable[[], bool],
    ) -> AsyncGenerator[Event]:
        """Run the question in a worker thread and yield its events, the complete answer last."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[str | Answer | BaseException]()

        def emit(event: str | Answer | BaseException) -> None:
            with suppress(RuntimeError):  # the loop is closed: the server is shutting down
                loop.call_soon_threadsafe(events.put_nowait, event)

        def run() -> None:
            try:
                for number in range(request.answers):
                    emit(self._answer(subject, request, number, emit, stop))
            except BaseException as error:
                emit(error)

        try:
            answering = self._executor.submit(run)
        except RuntimeError:  # the executor is closed
            raise ApiError(503, "The server is being shut down.") from None
        answering.add_done_callback(lambda _: ticket.release())
        ticket.transferred = True
        left = request.answers
        while left:
            rest = deadline - time.monotonic()
            try:
                event = await asyncio.wait_for(events.get(), max(0.0, min(rest, _ADMISSION_S)))
            except TimeoutError:
                _check_admitted(is_admitted)
                if rest > _ADMISSION_S:
                    continue
                raise ApiError(
                    504, f"The answer took longer than {self._seconds:g} s.", retry_after=5
                ) from None
            _check_admitted(is_admitted)
            if isinstance(event, Cancelled):
                raise ApiError(503, "The server is being shut down.")
            if isinstance(event, BaseException):
                raise event
            yield event
            left -= isinstance(event, Answer)

    def _answer(
        self,
        subject: StoredFile | Frames | WholeBank,
        request: ChatRequest,
        number: int,
        emit: Emit,
        stop: threading.Event,
    ) -> Answer:
        """One of the answers to a request. number: from 0; each has choices of its own."""
        how = request.generation
        how = how if how.seed is None else replace(how, seed=how.seed + number)
        lead = request.instructions if self.abilities.instructions else ""
        rounds = self._recent(request.rounds)
        if isinstance(subject, Frames):
            earlier = [Round(*texts, (), ()) for texts in rounds if self.abilities.rounds]
            context = "\n\n".join(filter(None, [lead, context_text(earlier)]))
            return self._qa.ask_frames(
                request.question, subject, emit, cancelled=stop, context=context, generation=how
            )
        qa = self._qa
        if isinstance(subject, StoredFile):
            key, videos, names = subject.video_id, [subject.video_id], {}
        else:
            key, videos = _WHOLE_BANK, list(subject)
            names = {each: video.filename for each, video in subject.items()}
            for video_id, each in subject.items():
                if each.qa is not None:  # a stream alone
                    qa, key = each.qa, f"{each.qa.bank.root}/{video_id}"
        question = Question(request.question, videos, request.asked_at, generation=how, names=names)
        understood = ""
        if rounds:
            history = self._rounds.history(key, rounds)
            asked = history.resolve(request.question)
            understood = asked.note(request.question)
            question = history.carry(asked.about(question))
        if lead:
            context = "\n\n".join(filter(None, [lead, question.context]))
            question = replace(question, context=context)
        answer = qa.ask(question, emit, cancelled=stop)
        self._rounds.add(key, request.question, answer)
        if not understood:
            return answer
        values = {each.name: getattr(answer, each.name) for each in fields(answer)}
        return FollowUpAnswer(**values, understood=understood)

    def _recent(self, rounds: Sequence[Texts]) -> list[Texts]:
        """The newest round, and those before it that fit the budget with it, in order."""
        count, used = self._qa.answerer.reader.count_tokens, 0
        recent: list[Texts] = []
        for texts in reversed(rounds):
            used += sum(map(count, texts))
            if recent and (used > self._round_tokens or len(recent) == MAX_ROUNDS):
                break
            recent.insert(0, texts)
        return recent

    async def _wait_until_encoded(self, file: StoredFile, deadline: float) -> AsyncGenerator[float]:
        """Yield the share of the video in the bank until it is complete."""
        job = self._encode_queue.submit(file)
        if job is None:
            return
        done = asyncio.wrap_future(job.done)
        # if the client goes, nobody reads the exception, and asyncio would log it as an accident
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        while not done.done():
            if time.monotonic() > deadline:
                raise ApiError(
                    504,
                    f"The video is still being encoded ({job.share:.0%} after "
                    f"{self._seconds:g} s), and that goes on; ask again later.",
                    code="still_encoding",
                    retry_after=10,
                )
            yield job.share
            await asyncio.wait(
                {done}, timeout=min(_HEARTBEAT_S, max(0.01, deadline - time.monotonic()))
            )
        try:
            done.result()
        except StoppedError:
            raise ApiError(
                503, "The video was deleted, or the server is being shut down."
            ) from None

    def _fetch(self, url: str) -> StoredFile:
        file_id, fetch_time = self._downloads.get(url, ("", 0.0))
        if file_id and time.monotonic() < fetch_time + _REFETCH_AFTER_S:
            with suppress(ApiError):  # deleted in the meantime
                return self._files.get(file_id)
        with self._fetcher.pieces(url) as pieces:
            stored = self._files.put(pieces, unquote(urlsplit(url).path), "fetched")
        while len(self._downloads) >= _MAX_URLS:
            self._downloads.pop(next(iter(self._downloads)), None)
        self._downloads[url] = (stored.id, time.monotonic())
        return stored


def _check_admitted(is_admitted: Callable[[], bool]) -> None:
    """ApiError 401 where the key of a request was revoked after it had been admitted."""
    if not is_admitted():
        raise ApiError(
            401, "The API key was revoked before the answer was complete.", code="invalid_api_key"
        )
