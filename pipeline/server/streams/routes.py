"""The routes of streams: start, stop and list them, their alerts, and notices of all.

Knows HTTP and the set of streams; builds none.

    GET    /v1/streams, /v1/streams/NAME
    POST   /v1/streams                        start one; the body is one of streams.yaml
    DELETE /v1/streams/NAME                   stop one; its bank stays
    POST   /v1/streams/NAME/alerts            {"request": "tell me when ..."}
    DELETE /v1/streams/NAME/alerts/NUMBER
    GET    /v1/notices                        server-sent events
"""

import asyncio
import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ValidationError

from pipeline.server.access.doorkeeper import key_of, sees
from pipeline.server.admission import Ticket
from pipeline.server.answering import BankVideo, WholeBank
from pipeline.server.errors import ApiError, as_sentence
from pipeline.server.streams.folders.folder_source import SCHEME
from pipeline.server.streams.notice_stream import notice_stream
from pipeline.server.streams.stream import Stream
from pipeline.server.streams.stream_hosts import check_host
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import parse_stream


class AlertBody(BaseModel):
    request: str  # "tell me when ..."


STREAM = "stream:"  # what the url of a video begins with that is a stream of this server


def stream_subject(streams: StreamSet, request: Request, url: str, ticket: Ticket) -> WholeBank:
    """What a question about stream:NAME is about; its bank stays open until the ticket is
    released. ApiError 404 where there is no such stream, 409 where there is nothing to see of
    it."""
    stream = find_stream(streams, request, url.removeprefix(STREAM).strip("/"))
    try:
        ticket.at_release(streams.hold(stream))
    except KeyError:  # it was stopped meanwhile
        raise _no_stream(stream.name) from None
    is_stored = stream.qa.bank.catalog.next(stream.name)[0] > 0
    if not is_stored and stream.is_over:
        raise ApiError(409, "It was stopped before its first segment was whole; watch it longer.")
    if not is_stored and not stream.has_frames:
        raise ApiError(409, f"Stream {stream.name} has given no frame yet; ask again in a moment.")
    return {stream.name: BankVideo(stream.name, "", stream.qa)}


def add_stream_routes(app: FastAPI, streams: StreamSet, hosts: tuple[str, ...] | None) -> None:
    """Add /v1/streams and /v1/notices to an application. hosts: from which clients may start
    streams; None: any."""
    _add_streams(app, streams, hosts)
    _add_alerts(app, streams)


def _add_streams(app: FastAPI, streams: StreamSet, hosts: tuple[str, ...] | None) -> None:
    @app.get("/v1/streams")
    async def every(request: Request) -> dict[str, Any]:
        own = [each for each in streams.streams.values() if sees(request, each.qa.bank.root)]
        data = await asyncio.to_thread(lambda: [each.state() for each in own])
        return {"object": "list", "data": data}

    @app.get("/v1/streams/{name}")
    async def one(request: Request, name: str) -> dict[str, Any]:
        return await asyncio.to_thread(find_stream(streams, request, name).state)

    @app.post("/v1/streams")
    async def start(request: Request) -> JSONResponse:
        settings = parse_stream(await _json(request), "The stream")
        if settings.url.startswith(SCHEME):
            _check_folder(request, hosts)
        else:
            check_host(settings.url, hosts, "This server")
        if not sees(request, settings.bank or streams.bank):
            raise ApiError(403, "This key may not see that bank.", code="missing_bank")
        if hosts is not None and key_of(request.scope) is None and settings.bank:
            raise ApiError(
                403,
                "Without a key, streams of this server go into its own bank; leave bank out.",
                code="missing_bank",
            )
        if settings.name in streams.streams:
            raise ApiError(409, f"There is a stream {settings.name} already; choose another name.")
        stream = await asyncio.to_thread(streams.add, settings)
        return JSONResponse(await asyncio.to_thread(stream.state), 201)

    @app.delete("/v1/streams/{name}")
    async def stop(request: Request, name: str) -> dict[str, Any]:
        find_stream(streams, request, name)
        try:
            await asyncio.to_thread(streams.remove, name)
        except KeyError:
            raise _no_stream(name) from None
        return {"name": name, "object": "stream", "deleted": True}


def _add_alerts(app: FastAPI, streams: StreamSet) -> None:
    @app.post("/v1/streams/{name}/alerts")
    async def watch(request: Request, name: str) -> JSONResponse:
        stream, values = find_stream(streams, request, name), await _json(request)
        try:
            text = AlertBody.model_validate(values).request
        except ValidationError:
            raise ApiError(
                422, 'Say what to watch for: {"request": "tell me when ..."}.', param="request"
            ) from None
        number = await asyncio.to_thread(stream.alerts.add, text)
        return JSONResponse({"object": "alert", "id": number, "request": text.strip()}, 201)

    @app.delete("/v1/streams/{name}/alerts/{number}")
    async def forget(request: Request, name: str, number: int) -> dict[str, Any]:
        stream = find_stream(streams, request, name)
        if not await asyncio.to_thread(stream.alerts.remove_number, number):
            raise ApiError(404, f"Stream {name} has no alert {number}.")
        return {"object": "alert", "id": number, "deleted": True}

    @app.get("/v1/notices")
    async def notices(request: Request) -> StreamingResponse:
        store = (await asyncio.to_thread(lambda: streams.alerts)).store
        return notice_stream(request, store, lambda notice: sees(request, notice.bank))


def find_stream(streams: StreamSet, request: Request, name: str) -> Stream:
    """The stream of a name. ApiError 404 where there is none, or none that the key may see."""
    try:
        stream = streams.stream(name)
    except KeyError:
        raise _no_stream(name) from None
    if not sees(request, stream.qa.bank.root):
        raise _no_stream(name)
    return stream


def _check_folder(request: Request, hosts: tuple[str, ...] | None) -> None:
    """ApiError 403 where whoever asks may not have a folder of this machine watched."""
    key = key_of(request.scope)
    if (key is None and hosts is not None) or (key is not None and key.banks):
        who = "without a key" if key is None else "with a key for some banks"
        raise ApiError(
            403,
            f"A folder may hold anything, so clients {who} name none; whoever started the server "
            "can, in streams=.",
            code="missing_right",
        )


async def _json(request: Request) -> Any:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send the request as Content-Type: application/json.")
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.", code="invalid_json") from None


def _no_stream(name: str) -> ApiError:
    return ApiError(404, as_sentence(f"There is no stream {name[:64]!r}"), code="stream_not_found")
