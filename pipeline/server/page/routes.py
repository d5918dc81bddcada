"""The page of `reelbank serve`, and the routes that only the page needs.

Knows HTTP and the library; no bank. Everything else that the page does is the API of clients.

    GET /, /film/ID             the page; its script reads the address
    GET /page/NAME              its script, styles
    GET /v1/videos              the films and streams that the visitor may see
    GET /v1/videos/ID           one, with its segments and lines
    GET /v1/videos/ID/picture   JPEG of a moment (at=SECONDS)
    GET /v1/videos/ID/content   its film (seekable)
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.server.access.doorkeeper import sees
from pipeline.server.answering import WholeBank
from pipeline.server.errors import ApiError
from pipeline.server.page.library import Library, LibraryVideo, is_same_film
from pipeline.server.responses import VideoResponse

ASSETS = Path(__file__).parent / "assets"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Seconds = Annotated[float, Query(le=1e9, allow_inf_nan=False)]
_COOKIE = b"reelbank_key="  # the key of a visitor, for pictures and films


def add_page(
    app: FastAPI, library: Library, videos_of: Callable[[Request], Awaitable[WholeBank]]
) -> None:
    """Add the page to an application. videos_of: encoded videos that the key of a request may
    see."""
    app.add_middleware(KeyOfCookie)
    _add_assets(app)
    _add_videos(app, library, videos_of)


def _add_assets(app: FastAPI) -> None:
    files = {path.name: path.read_bytes() for path in ASSETS.iterdir() if path.suffix in _TYPES}

    def reply(name: str) -> Response:
        kind = _TYPES[Path(name).suffix]
        return Response(files[name], media_type=f"{kind}; charset=utf-8", headers=_HEADERS)

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return reply("index.html")

    @app.get("/film/{video_id}", include_in_schema=False)
    async def film(video_id: str) -> Response:
        return reply("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in files:
            raise ApiError(404, "There is nothing here.")
        return reply(name)


def _add_videos(
    app: FastAPI, library: Library, videos_of: Callable[[Request], Awaitable[WholeBank]]
) -> None:
    async def visible(request: Request) -> dict[str, LibraryVideo]:
        bank: WholeBank = {}
        with suppress(ApiError):  # nothing is encoded yet
            bank = await videos_of(request)
        return await asyncio.to_thread(library.videos, bank, lambda root: sees(request, root))

    async def find(request: Request, video_id: str) -> LibraryVideo:
        video = (await visible(request)).get(video_id)
        if video is None:
            raise ApiError(404, "There is no such film or stream.", code="video_not_found")
        return video

    @app.get("/v1/videos")
    async def every(request: Request) -> dict[str, Any]:
        videos = await visible(request)
        data = await asyncio.to_thread(lambda: [library.summary(one) for one in videos.values()])
        return {"object": "list", "data": data, "whole_bank": library.sees_bank}

    @app.get("/v1/videos/{video_id}")
    async def one(request: Request, video_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(library.detail, await find(request, video_id))

    @app.get("/v1/videos/{video_id}/picture")
    async def picture(request: Request, video_id: str, at: Seconds = 0.0) -> Response:
        video = await find(request, video_id)
        data = await asyncio.to_thread(library.picture, video, max(0.0, at))
        if data is None:
            raise ApiError(404, "There is no picture of that moment.")
        headers = {"Cache-Control": "private, max-age=600", "X-Content-Type-Options": "nosniff"}
        return Response(data, media_type="image/jpeg", headers=headers)

    @app.get("/v1/videos/{video_id}/content")
    async def content(request: Request, video_id: str) -> Response:
        video = await find(request, video_id)
        file = await asyncio.to_thread(library.media, video)
        if file is None or not await asyncio.to_thread(is_same_film, video, file):
            raise ApiError(404, "The film of this video is not there.", code="file_not_found")
        return VideoResponse(file)


class KeyOfCookie:
    """ASGI middleware: the key of a visitor for pictures and films, which a browser fetches without
    a header. Reads only, so another site gains nothing by a link."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] in ("GET", "HEAD")
            and scope["path"].startswith("/v1/videos/")
        ):
            headers = dict(scope["headers"])
            key = _key_of(headers.get(b"cookie", b""))
            if key and b"authorization" not in headers:
                more = (b"authorization", b"Bearer " + key)
                scope = {**scope, "headers": [*scope["headers"], more]}
        await self._app(scope, receive, send)


def _key_of(cookies: bytes) -> bytes:
    for cookie in cookies.split(b";"):
        if cookie.strip().startswith(_COOKIE):
            return unquote_to_bytes(cookie.strip().removeprefix(_COOKIE))
    return b""
