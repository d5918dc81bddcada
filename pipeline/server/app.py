"""The routes of `reelbank serve`: OpenAI's paths over a bank.

Knows HTTP and the parts of a server; builds none of them.

    POST /v1/chat/completions       ask about a video; JSON or server-sent events
    GET  /v1/models, /v1/models/ID
    POST /v1/responses              the same as a text response (responses_api/)
    POST /v1/embeddings             rows of a frame embedder (search/search_api.py)
    POST /v1/search                 moments for words or a picture
    POST /v1/files                  upload a video
    GET  /v1/files, /v1/files/ID, /v1/files/ID/content (seekable)
    DELETE /v1/files/ID             delete a video here and in the bank
    GET  /, /film/ID, /v1/videos    the page and what it shows (page/routes.py, feed_routes.py)
    GET  /health, /metrics, /openapi.json
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from encoders.schema import Frames
from memory.bank import MemoryBank
from pipeline.qa import VideoQA
from pipeline.runtime.malloc import allocated_bytes
from pipeline.schema import Answer
from pipeline.server import chat_request, errors, responses, uploads
from pipeline.server.access.audit_log import AuditLog, AuditMiddleware
from pipeline.server.access.doorkeeper import Doorkeeper, key_of, require, sees, stays_admitted
from pipeline.server.admission import AdmissionQueue, Ticket
from pipeline.server.answering import Answering, Event, WholeBank
from pipeline.server.chat_request import ChatRequest, VideoReference
from pipeline.server.encode_queue import EncodeQueue
from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore, StoredFile
from pipeline.server.guard import BodyLimit, Guard, release_body
from pipeline.server.intake.api_schema import add_schema
from pipeline.server.intake.body_line import BodyLine
from pipeline.server.intake.chat_body import ChatBody
from pipeline.server.intake.hang_up import unless_disconnected
from pipeline.server.metrics import CONTENT_TYPE, Metrics, MetricsMiddleware
from pipeline.server.page.feed_routes import FRAME_BYTES, PlayBody, ShowBody, add_feed_routes
from pipeline.server.page.feeds import LIVE, Feeds
from pipeline.server.page.library import Library
from pipeline.server.page.routes import add_page
from pipeline.server.responses_api.request_body import ResponsesBody, as_chat
from pipeline.server.responses_api.text_response import TextResponse
from pipeline.server.search.search_api import EmbeddingsBody, SearchApi, SearchBody, add_search
from pipeline.server.streams.routes import (
    STREAM,
    AlertBody,
    add_stream_routes,
    stream_subject,
)
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import StreamSettings

BANK_VIDEO = "video:"  # what the url of a video begins with that is in the bank, by its id
_FORM_BYTES = 1 << 20  # of an upload, beside its file
_OTHER_BYTES = 1 << 16  # a body for any other path
_BRIEF_BYTES = 4 << 10  # a shorter chat request is parsed at once: a thread takes longer to start


@dataclass(frozen=True)
class RequestLimits:
    """RequestLimits on each request."""

    question_letters: int
    answer_tokens: int  # that a client may ask for
    request_bytes: int  # chat request body, videos in base64 included
    upload_bytes: int
    body_seconds: float  # time limit to receive a request body


@dataclass(frozen=True)
class Service:
    """The parts of a running server."""

    qa: VideoQA
    files: FileStore
    encode_queue: EncodeQueue
    answering: Answering
    searching: SearchApi
    questions: AdmissionQueue
    chat_bodies: BodyLine
    upload_bodies: BodyLine
    limits: RequestLimits
    model: str  # model name in the API
    created: int  # Unix seconds
    names: tuple[str, ...] = ()
    doorkeeper: Doorkeeper = field(default_factory=Doorkeeper)
    audit: AuditLog | None = None  # None: nothing is logged
    streams: StreamSet | None = None  # None: of a server that watches none
    stream_hosts: tuple[str, ...] | None = None  # from which clients may start streams; None: any
    feeds: Feeds | None = None  # of visitors of the page; None: of a server without streams
    about: str = ""  # a sentence on what the model can answer
    answers_from_bank: bool = False  # True: clients may ask about every video of the bank

    @property
    def bank_model(self) -> str:
        """The name in the API of the same model when it answers from the whole bank; "": none."""
        return f"{self.model}-bank" if self.answers_from_bank else ""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names in the API."""
        return tuple(filter(None, (self.model, self.bank_model)))

    def close(self) -> None:
        """Stop encoding and answering. The bank keeps what it has."""
        if self.streams is not None:
            self.streams.close()
        self.encode_queue.close()
        self.answering.close()
        self.searching.close()
        self.files.close()
        self.qa.bank.close()
        if self.audit is not None:
            self.audit.close()


def build_app(service: Service) -> FastAPI:
    """The application. It closes the service at shutdown."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    # without openapi_url, as its pages load scripts from other servers; see add_schema
    app = FastAPI(title="Reelbank", openapi_url=None, lifespan=lifespan)
    errors.install(app)
    metrics = _build_metrics(service)
    limits = service.limits
    app.add_middleware(
        Guard,
        names=service.names,
        doorkeeper=service.doorkeeper,
        bodies={
            "/v1/files": BodyLimit(limits.upload_bytes + _FORM_BYTES, service.upload_bodies),
            "/v1/chat/": BodyLimit(limits.request_bytes, service.chat_bodies),
            "/v1/responses": BodyLimit(limits.request_bytes, service.chat_bodies),
            "/v1/embeddings": BodyLimit(limits.request_bytes, service.chat_bodies),
            "/v1/search": BodyLimit(limits.request_bytes, service.chat_bodies),
            "/v1/videos/": BodyLimit(FRAME_BYTES, service.chat_bodies),
            "": BodyLimit(_OTHER_BYTES, service.chat_bodies),
        },
        body_seconds=limits.body_seconds,
        protected=("/v1/", "/metrics"),
    )
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    if service.audit is not None:
        app.add_middleware(AuditMiddleware, log=service.audit)
    _add_chat(app, service, metrics)
    _add_files(app, service)
    add_search(app, service.searching, lambda request: _videos_of(service, request))
    library = Library(
        service.qa,
        service.files,
        service.encode_queue,
        service.streams,
        sees_bank=service.answers_from_bank,
        about=service.about,
    )
    add_page(app, library, lambda request: _videos_of(service, request))
    if service.feeds is not None:
        add_feed_routes(app, service.feeds, service.files, str(service.qa.bank.root))
    if service.streams is not None:
        add_stream_routes(app, service.streams, service.stream_hosts)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        # those of chat alone: clients that name no model take the only one
        data = [responses.model_object(name, service.created) for name in service.model_names]
        return {"object": "list", "data": data}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        if name not in service.searching.embedders:
            _check_model(service, name)
        return responses.model_object(name, service.created)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        # reading the bank is the health check
        videos = await asyncio.to_thread(service.qa.bank.catalog.videos)
        return {
            "status": "ok",
            "model": service.model,
            "embedders": list(service.searching.embedders),
            "videos": len(videos),
            "encoding": len(service.encode_queue),
            "streams": 0 if service.streams is None else len(service.streams),
        }

    @app.get("/metrics")
    async def metrics_page(request: Request) -> Response:
        streams = {} if service.streams is None else service.streams.streams
        own = [each for each in streams.values() if sees(request, each.qa.bank.root)]
        text = await asyncio.to_thread(lambda: metrics.text([each.state() for each in own]))
        return Response(text, media_type=CONTENT_TYPE)

    add_schema(
        app,
        {
            "/v1/chat/completions": ChatBody,
            "/v1/responses": ResponsesBody,
            "/v1/embeddings": EmbeddingsBody,
            "/v1/search": SearchBody,
            "/v1/streams": StreamSettings,
            "/v1/streams/{name}/alerts": AlertBody,
            "/v1/videos": ShowBody,
            "/v1/videos/{video_id}/play": PlayBody,
        },
    )
    return app


def _memory_bytes(bank: MemoryBank, tier: str) -> int:
    return bank.in_memory().get(tier, 0)


def _build_metrics(service: Service) -> Metrics:
    metrics = Metrics()
    bank, encode_queue, files = service.qa.bank, service.encode_queue, service.files
    bodies = service.chat_bodies
    metrics.gauge(
        "questions_inside",
        "Questions that are being answered or wait",
        lambda: service.questions.admitted,
    )
    metrics.gauge(
        "encodings_under_way", "Videos that are being encoded or wait", lambda: len(encode_queue)
    )
    metrics.gauge(
        "bodies_under_way", "Chat requests that arrive or are parsed", lambda: len(bodies)
    )
    metrics.gauge("bodies_bytes", "Bytes of these requests in memory", lambda: bodies.nbytes)
    metrics.gauge("files_bytes", "Bytes of the videos that were handed in", lambda: files.nbytes)
    metrics.gauge("bank_bytes", "Bytes of the bank's segments", lambda: bank.catalog.nbytes())
    for tier in ("index", "ram", "device"):
        metrics.gauge(
            f"memory_{tier}_bytes",
            f"Bytes in memory: {tier}",
            functools.partial(_memory_bytes, bank, tier),
        )
    if allocated_bytes() is not None:
        metrics.gauge(
            "memory_allocated_bytes",
            "Bytes of the process that are in use: what is resident beside them is freed memory",
            lambda: allocated_bytes() or 0,
        )
    metrics.counter(
        "questions_refused",
        "Questions that were turned away with 429",
        lambda: service.questions.rejections,
    )
    metrics.counter(
        "encodings", "Videos that were encoded, in whole or in part", lambda: encode_queue.runs
    )
    metrics.counter("frames_encoded", "Frames that were encoded", lambda: encode_queue.frames)
    return metrics


# ---- chat


class _EventStream(StreamingResponse):
    """Server-sent events. Releases its ticket however the response ends."""

    def __init__(self, pieces: AsyncGenerator[str], ticket: Ticket) -> None:
        super().__init__(
            pieces,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._pieces, self._ticket = pieces, ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()
            if not self._ticket.transferred:
                self._ticket.release()


def _add_chat(app: FastAPI, service: Service, metrics: Metrics) -> None:
    # one thread: however many bodies arrive, only one competes with the event loop
    parser = ThreadPoolExecutor(1, "parser")

    async def receive_chat(request: Request, as_chat: Callable[[Any], Any]) -> ChatRequest:
        """Receive and parse a body. as_chat: of its JSON, that of a chat request."""
        body = await _read_body(request)
        parse = functools.partial(
            chat_request.parse_body,
            body,
            max_letters=service.limits.question_letters,
            max_tokens=service.limits.answer_tokens,
            abilities=service.answering.abilities,
            bank_model=service.bank_model,
            as_chat=as_chat,
        )
        if len(body) <= _BRIEF_BYTES:
            return parse()
        return await asyncio.get_running_loop().run_in_executor(parser, parse)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await respond(request, lambda value: value, responses.ChatResponse)

    @app.post("/v1/responses")
    async def text_response(request: Request) -> Response:
        return await respond(request, as_chat, TextResponse)

    async def respond(
        request: Request,
        as_chat: Callable[[Any], Any],
        kind: type[responses.ChatResponse],
    ) -> Response:
        """Answer a request. kind: of the response, in the API of the request."""
        _check_json(request)
        chat = await receive_chat(request, as_chat)
        _check_model(service, chat.model)
        await service.answering.check_form(chat)
        # only now: a body that stops half-way must not keep the place of a question
        ticket, events = service.questions.enter(), None
        try:
            subject: StoredFile | Frames | WholeBank
            if chat.model == service.bank_model:
                subject = await _videos_of(service, request)
            elif chat.video is not None and chat.video.url.startswith(STREAM):
                if service.streams is None:
                    raise ApiError(404, "This server watches no streams.")
                subject = stream_subject(service.streams, request, chat.video.url, ticket)
            elif chat.video is not None and chat.video.url.startswith(BANK_VIDEO):
                subject = await _bank_video(service, request, chat.video.url)
            elif chat.video is None:
                subject = await service.answering.frames(chat.pictures)
                chat = replace(chat, pictures=())
            else:
                if not chat.video.file_id:  # it brings a video, which the bank keeps
                    require(key_of(request.scope), "add")
                if not sees(request, service.qa.bank.root):
                    raise ApiError(403, "This key may not see this bank.", code="missing_bank")
                subject = await service.answering.resolve(chat.video)
                # the video is stored, and its copy in the body is no more needed
                chat = replace(chat, video=VideoReference(file_id=subject.id))
            release_body(request)
            response = kind(chat, subject)
            answering = service.answering.events(
                subject, chat, ticket, functools.partial(stays_admitted, request.scope)
            )
            if chat.stream:
                pieces = _stream_answer(service, metrics, response, answering)
                events = _EventStream(pieces, ticket)
                return events
            answers = await unless_disconnected(request, _complete_answers(metrics, answering))
            return JSONResponse(response.completion(answers, _usage(service, answers)))
        finally:
            if events is None and not ticket.transferred:
                ticket.release()


async def _videos_of(service: Service, request: Request) -> WholeBank:
    """The encoded videos that the key of a request may see. ApiError 404 where there is none."""
    return await service.answering.whole_bank(lambda bank: sees(request, bank))


async def _bank_video(service: Service, request: Request, url: str) -> WholeBank:
    """What a question about video:ID is about. ApiError 404 where clients see no such video."""
    video_id = url.removeprefix(BANK_VIDEO)
    videos = await _videos_of(service, request) if service.answers_from_bank else {}
    if video_id not in videos:
        raise ApiError(404, "The bank has no such video for clients.", code="video_not_found")
    return {video_id: videos[video_id]}


async def _read_body(request: Request) -> bytearray:
    body = bytearray()
    async for piece in request.stream():
        body += piece
    return body


async def _complete_answers(metrics: Metrics, answering: AsyncGenerator[Event]) -> list[Answer]:
    answers = []
    with metrics.answer() as record:
        async with aclosing(answering) as events:
            async for event in events:
                record(event)
                if isinstance(event, Answer):
                    answers.append(event)
    return answers


async def _stream_answer(
    service: Service,
    metrics: Metrics,
    response: responses.ChatResponse,
    answering: AsyncGenerator[Event],
) -> AsyncGenerator[str]:
    yield response.first_chunk(0)
    answers: list[Answer] = []
    try:
        with metrics.answer() as record:
            async with aclosing(answering) as events:
                async for event in events:
                    record(event)
                    if isinstance(event, Answer):
                        yield response.answer_end(event, len(answers))
                        answers.append(event)
                        if len(answers) < response.request.answers:
                            yield response.first_chunk(len(answers))
                    elif isinstance(event, str):
                        yield response.text_chunk(event, len(answers))
                    else:
                        yield responses.heartbeat(event)
        yield response.end(_usage(service, answers))
    except Exception as error:  # the status line has been sent: report it as an event
        yield responses.error_event(errors.as_api_error(error).body())


def _usage(service: Service, answers: Sequence[Answer]) -> dict[str, int]:
    return responses.usage(answers, service.qa.answerer.reader.count_tokens)


def _check_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":  # without CORS consent, pages can send only text/plain or a form
        raise ApiError(415, "Send the request as Content-Type: application/json.")


def _check_model(service: Service, name: str) -> None:
    if name not in service.model_names:
        names = " or ".join(map(repr, service.model_names))
        raise ApiError(
            404,
            f"There is no model {name[:60]!r}; use {names}.",
            code="model_not_found",
            param="model",
        )


# ---- files


def _add_files(app: FastAPI, service: Service) -> None:
    def describe(file: StoredFile) -> dict[str, Any]:
        return responses.file_object(
            file, service.encode_queue.is_complete(file), service.encode_queue.share(file)
        )

    @app.post("/v1/files")
    async def upload(request: Request) -> JSONResponse:
        stored = await uploads.store_upload(request, service.files)
        if stored.purpose != LIVE:  # else the page is about to watch it
            with suppress(ApiError):  # the queue is full: the first question submits it again
                await asyncio.to_thread(service.encode_queue.submit, stored)
        return JSONResponse(await asyncio.to_thread(describe, stored))

    @app.get("/v1/files")
    async def files() -> dict[str, Any]:
        data = await asyncio.to_thread(lambda: [describe(file) for file in service.files.all()])
        return {"object": "list", "data": data, "has_more": False}

    @app.get("/v1/files/{file_id}")
    async def one(file_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(describe, service.files.get(file_id))

    @app.get("/v1/files/{file_id}/content")
    async def content(file_id: str) -> Response:
        return responses.VideoResponse(service.files.get(file_id))

    @app.delete("/v1/files/{file_id}")
    async def delete(file_id: str) -> dict[str, Any]:
        if service.feeds is not None:
            stored = service.files.get(file_id)
            await asyncio.to_thread(service.feeds.forget, stored.video_id)
        file = await asyncio.to_thread(service.files.delete, file_id)
        await asyncio.wrap_future(service.encode_queue.drop(file))
        return {"id": file.id, "object": "file", "deleted": True}
