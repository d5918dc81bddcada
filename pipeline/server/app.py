"""The routes of `reelbank serve`: OpenAI's paths over a bank. Knows HTTP and the parts of a server; builds none of them.

POST /v1/chat/completions       a question about a video, whole or as server-sent events
GET  /v1/models, /v1/models/ID
POST /v1/files                  hand a video in; GET lists, GET /v1/files/ID, /content (seekable), DELETE also forgets it
GET  /health, /metrics
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from memory.bank import MemoryBank
from pipeline.qa import VideoQA
from pipeline.schema import Answer
from pipeline.server import chat_request, errors, metrics, responses, uploads
from pipeline.server.admission import Line, Place
from pipeline.server.answering import Answering
from pipeline.server.encode_queue import Encodings
from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore, StoredFile
from pipeline.server.guard import Guard

_PIECE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server."""

    question_letters: int
    request_bytes: int  # of a chat request, videos in base64 included
    upload_bytes: int
    body_seconds: float  # for a request to come in


@dataclass(frozen=True)
class Service:
    """The parts of a running server."""

    qa: VideoQA
    files: FileStore
    encodings: Encodings
    answering: Answering
    questions: Line
    uploads: Line
    limits: Limits
    model: str  # the name that it goes by
    created: int  # Unix seconds
    names: tuple[str, ...] = ()
    api_key: str = ""

    def close(self) -> None:
        """Stop encoding and answering; what the bank has stays."""
        self.encodings.close()
        self.answering.close()
        self.qa.bank.close()


def build_app(service: Service) -> FastAPI:
    """The application. It closes the service when it is shut down."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    # its pages would fetch scripts from elsewhere
    app = FastAPI(title="Reelbank", openapi_url=None, lifespan=lifespan)
    errors.install(app)
    counted = _count(service)
    limits = service.limits
    app.add_middleware(
        Guard,
        names=service.names,
        api_key=service.api_key,
        body_bytes={"/v1/files": limits.upload_bytes + _PIECE, "/v1/chat/": limits.request_bytes},
        body_seconds=limits.body_seconds,
        keyed=("/v1/", "/metrics"),
    )
    app.add_middleware(metrics.Measured, figures=counted)
    _add_chat(app, service, counted)
    _add_files(app, service)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [responses.model_object(service.model, service.created)]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        _check_model(service, name)
        return responses.model_object(service.model, service.created)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        # a bank that cannot be read is no health
        videos = await asyncio.to_thread(service.qa.bank.videos)
        return {
            "status": "ok",
            "model": service.model,
            "videos": len(videos),
            "encoding": len(service.encodings),
        }

    @app.get("/metrics")
    async def metrics_page() -> Response:
        return Response(await asyncio.to_thread(counted.text), media_type=metrics.CONTENT_TYPE)

    return app


def _memory_bytes(bank: MemoryBank, tier: str) -> int:
    return bank.in_memory().get(tier, 0)


def _count(service: Service) -> metrics.Figures:
    counted = metrics.Figures()
    bank, encodings, files = service.qa.bank, service.encodings, service.files
    counted.gauge(
        "questions_inside",
        "Questions that are being answered or wait",
        lambda: service.questions.inside,
    )
    counted.gauge(
        "encodings_under_way", "Videos that are being encoded or wait", lambda: len(encodings)
    )
    counted.gauge("files_bytes", "Bytes of the videos that were handed in", lambda: files.nbytes)
    counted.gauge("bank_bytes", "Bytes of the bank's segments", lambda: bank.nbytes)
    for tier in ("index", "ram", "device"):
        counted.gauge(
            f"memory_{tier}_bytes",
            f"Bytes in memory: {tier}",
            functools.partial(_memory_bytes, bank, tier),
        )
    counted.counter(
        "questions_refused",
        "Questions that were turned away with 429",
        lambda: service.questions.refused,
    )
    counted.counter(
        "encodings", "Videos that were encoded, in whole or in part", lambda: encodings.runs
    )
    counted.counter("frames_encoded", "Frames that were encoded", lambda: encodings.frames)
    return counted


# ---- chat


class _Events(StreamingResponse):
    """Server-sent events; gives its place in the line back however it ends."""

    def __init__(self, pieces: AsyncGenerator[str], place: Place) -> None:
        super().__init__(
            pieces,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._pieces, self._place = pieces, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()
            if not self._place.handed_on:
                self._place.leave()


def _add_chat(app: FastAPI, service: Service, counted: metrics.Figures) -> None:
    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        # before the body is read: what waits in memory is bounded too
        place, events = service.questions.enter(), None
        try:
            _check_json(request)
            asked = chat_request.read(
                await request.body(), most_letters=service.limits.question_letters
            )
            _check_model(service, asked.model)
            reply = responses.Reply(asked, await service.answering.file_of(asked.video))
            if asked.stream:
                events = _Events(_streamed(service, counted, reply, place), place)
                return events
            answer = await _unless_gone(request, _whole(service, counted, reply, place))
            return JSONResponse(reply.whole(answer, _usage(service, answer)))
        finally:
            if events is None and not place.handed_on:
                place.leave()


async def _whole(
    service: Service, counted: metrics.Figures, reply: responses.Reply, place: Place
) -> Answer:
    with counted.answer() as note:
        async with aclosing(service.answering.events(reply.file, reply.wanted, place)) as events:
            async for event in events:
                note(event)
                if isinstance(event, Answer):
                    return event
    raise AssertionError("an answer ends with the answer")


async def _streamed(
    service: Service, counted: metrics.Figures, reply: responses.Reply, place: Place
) -> AsyncGenerator[str]:
    yield reply.opening()
    try:
        with counted.answer() as note:
            async with aclosing(
                service.answering.events(reply.file, reply.wanted, place)
            ) as events:
                async for event in events:
                    note(event)
                    if isinstance(event, Answer):
                        yield reply.closing(event, _usage(service, event))
                    elif isinstance(event, str):
                        yield reply.piece(event)
                    else:
                        yield responses.heartbeat(event)
    except Exception as error:  # the status is gone already: it is told as an event
        yield responses.failed(errors.as_api_error(error).body())


async def _unless_gone(request: Request, answering: Any) -> Answer:
    """The answer, or the end of it when the client closes the connection."""
    task = asyncio.ensure_future(answering)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise ApiError(499, "The client has gone.")
        answer: Answer = task.result()
        return answer
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()


def _usage(service: Service, answer: Answer) -> dict[str, int]:
    backbone = service.qa.backbone
    return responses.usage(
        answer, len(backbone.tail_ids(answer.question)), len(backbone.ids(answer.text))
    )


def _check_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":  # what a foreign page can send unasked is text/plain or a form
        raise ApiError(415, "Send the request as Content-Type: application/json.")


def _check_model(service: Service, name: str) -> None:
    if name != service.model:
        raise ApiError(
            404,
            f"There is no model {name[:60]!r}; use {service.model!r}.",
            code="model_not_found",
            param="model",
        )


# ---- files


def _add_files(app: FastAPI, service: Service) -> None:
    def described(file: StoredFile) -> dict[str, Any]:
        return responses.file_object(
            file, service.encodings.is_whole(file), service.encodings.share(file)
        )

    @app.post("/v1/files")
    async def upload(request: Request) -> JSONResponse:
        place = service.uploads.enter()
        try:
            stored = await uploads.stored(request, service.files)
        finally:
            place.leave()
        with suppress(ApiError):  # too many are on their way: the first question brings it back
            service.encodings.want(stored)
        return JSONResponse(await asyncio.to_thread(described, stored))

    @app.get("/v1/files")
    async def files() -> dict[str, Any]:
        data = await asyncio.to_thread(lambda: [described(file) for file in service.files.all()])
        return {"object": "list", "data": data, "has_more": False}

    @app.get("/v1/files/{file_id}")
    async def one(file_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(described, service.files.get(file_id))

    @app.get("/v1/files/{file_id}/content")
    async def content(file_id: str) -> FileResponse:
        file = service.files.get(file_id)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"}
        return FileResponse(file.path, media_type=file.media_type, headers=headers)

    @app.delete("/v1/files/{file_id}")
    async def delete(file_id: str) -> dict[str, Any]:
        file = service.files.delete(file_id)
        await asyncio.wrap_future(service.encodings.drop(file))
        return {"id": file.id, "object": "file", "deleted": True}
