"""The routes that the page's script uses: choose a feed, its state, its pictures, its file.

Knows HTTP and feeds; no page component. Client input never becomes part of a path: files and feeds
are looked up by id.
"""

import asyncio
import io
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from pipeline.demo.feeds import Feed, Feeds
from pipeline.live.session import MAX_QUESTION_CHARS
from pipeline.server import uploads
from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore
from pipeline.server.responses import VideoResponse
from pipeline.server.streams.notice_stream import notice_stream

FRAME_BYTES = 2_000_000  # of one picture that a browser sends
_MAX_SIDE = 4096  # pixels
_NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class _Command(BaseModel):
    """The JSON body of /watch/start and /watch/request."""

    file: str | None = None
    real_time: bool = True
    url: str | None = None
    browser: str | None = None
    request: str | None = None
    remove: int | None = None


def add_routes(app: FastAPI, feeds: Feeds, files: FileStore) -> None:
    """Add /watch/... to an application."""
    _add_state(app, feeds)
    _add_controls(app, feeds, files)
    _add_pictures(app, feeds)


def _add_state(app: FastAPI, feeds: Feeds) -> None:
    @app.get("/watch/state")
    async def state() -> JSONResponse:
        feed = feeds.current
        data = {} if feed is None else await asyncio.to_thread(feed.state)
        bank_bytes = await asyncio.to_thread(lambda: feeds.qa.bank.catalog.nbytes())
        return JSONResponse(data | {"bank_bytes": bank_bytes}, headers=_NO_STORE)


def _add_controls(app: FastAPI, feeds: Feeds, files: FileStore) -> None:
    @app.post("/watch/upload")
    async def upload(request: Request) -> dict[str, Any]:
        file = await uploads.store_upload(request, files)
        return {"file": file.id, "name": file.filename, "duration": file.duration}

    @app.post("/watch/start")
    async def start(request: Request) -> dict[str, Any]:
        feed = await _start(feeds, files, await _parse_command(request))
        return {"id": feed.id, "kind": feed.kind, "title": feed.title}

    @app.post("/watch/stop")
    async def stop() -> dict[str, Any]:
        await asyncio.to_thread(feeds.stop)
        return {}

    @app.post("/watch/request")
    async def alert(request: Request) -> dict[str, Any]:
        """Add an alert by its text, or remove one by its position."""
        command = await _parse_command(request)
        alerts = feeds.require_current().alerts
        if command.request is not None:
            await asyncio.to_thread(alerts.add, command.request[:MAX_QUESTION_CHARS])
        elif command.remove is not None:
            alerts.remove(command.remove)
        return alerts.state()

    @app.get("/watch/notices")
    async def notices(request: Request) -> Response:
        """Notices of alerts as server-sent events."""
        return notice_stream(request, feeds.alerts.store)

    @app.post("/watch/frame/{feed_id}")
    async def frame(feed_id: str, request: Request) -> dict[str, Any]:
        picture = await asyncio.to_thread(_decode_jpeg, await request.body())
        if not await asyncio.to_thread(feeds.push, feed_id, picture):
            raise ApiError(404, "Nobody watches this any more.")
        return {}


def _add_pictures(app: FastAPI, feeds: Feeds) -> None:
    @app.get("/watch/media/{feed_id}")
    async def media(feed_id: str) -> Response:
        file = _current(feeds, feed_id).file
        if file is None:
            raise ApiError(404, "This is no file.")
        return VideoResponse(file, _NO_STORE)

    @app.get("/watch/picture/{feed_id}")
    async def picture(feed_id: str, at: float | None = None) -> Response:
        """JPEG at a video second; without `at`, the latest one."""
        pictures = _current(feeds, feed_id).pictures
        data = await asyncio.to_thread(pictures.latest if at is None else lambda: pictures.at(at))
        if data is None:
            raise ApiError(404, "There is no picture of that moment.")
        headers = _NO_STORE if at is None else _NO_STORE | {"Cache-Control": "private, max-age=600"}
        return Response(data, media_type="image/jpeg", headers=headers)


async def _start(feeds: Feeds, files: FileStore, command: _Command) -> Feed:
    if command.file is not None:
        speed = 1.0 if command.real_time else float("inf")
        return await asyncio.to_thread(feeds.start_file, files.get(command.file), speed)
    if command.url is not None:
        try:
            return await asyncio.to_thread(feeds.start_url, command.url[:2000])
        except ValueError:  # of urlsplit
            raise ApiError(400, "The address cannot be read; check it.") from None
    if command.browser in ("camera", "screen"):
        title = f"{command.browser.capitalize()} of this browser"
        return await asyncio.to_thread(feeds.start_browser, title)
    raise ApiError(422, "Say what to watch: file, url or browser.")


def _current(feeds: Feeds, feed_id: str) -> Feed:
    """The current feed. ApiError 404 when it has another id."""
    feed = feeds.current
    if feed is None or feed.id != feed_id:
        raise ApiError(404, "Nobody watches this any more.")
    return feed


async def _parse_command(request: Request) -> _Command:
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise ApiError(415, "Send the request as Content-Type: application/json.")
    try:
        return _Command.model_validate_json(await request.body())
    except ValidationError:
        raise ApiError(422, "Say what to watch or to do, as JSON.") from None


def _decode_jpeg(data: bytes) -> np.ndarray:
    """[height, width, 3] uint8 RGB. ApiError 400 when it is not a JPEG, 413 when too large."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            if max(picture.size) > _MAX_SIDE:  # from the header, before anything is decoded
                raise _too_large()
            return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError:
        raise ApiError(
            413, f"Pictures of more than {_MAX_SIDE} pixels a side are not taken."
        ) from None
    except (OSError, SyntaxError, ValueError):
        raise ApiError(400, "The picture is no JPEG.") from None


def _too_large() -> ApiError:
    return ApiError(413, f"Pictures of more than {_MAX_SIDE} pixels a side are not taken.")
