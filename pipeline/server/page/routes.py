"""The page of `reelbank serve`, and the routes that only the page needs.

Knows HTTP and the library; no bank. Everything else that the page does is the API of clients.

    GET /, /live, /film/ID      the page; its script reads the address
    GET /page/NAME              its script, styles
    GET /v1/videos              the films and streams that the visitor may see
    GET /v1/videos/ID           one, with its segments and lines
    GET /v1/videos/ID/picture   JPEG of a moment (at=SECONDS), or the newest one of a stream
    GET /v1/videos/ID/content   its film (seekable)
    GET /v1/videos/ID/clip      a stretch of it as a file (start=, end=)
    GET /v1/videos/ID/summary   its chapters, and what tells most
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.server.access.doorkeeper import sees
from pipeline.server.answering import WholeBank
from pipeline.server.errors import ApiError
from pipeline.server.files import StoredFile
from pipeline.server.page.excerpts import Excerpts, clip_folder
from pipeline.server.page.library import Library, LibraryVideo, is_same_film, no_video
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
T = TypeVar("T")
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

    @app.get("/live", include_in_schema=False)
    async def live() -> Response:
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
            raise no_video()
        return video

    async def read(video: LibraryVideo, function: Callable[[LibraryVideo], T]) -> T:
        """What a function says of a video, called in a thread with its bank open."""

        def call() -> T:
            with library.reading(video):
                return function(video)

        return await asyncio.to_thread(call)

    @app.get("/v1/videos")
    async def every(request: Request) -> dict[str, Any]:
        videos = await visible(request)
        data = await asyncio.to_thread(library.summaries, videos.values())
        return {
            "object": "list",
            "data": data,
            "whole_bank": library.sees_bank,
            "can_watch": library.can_watch,
            "about": library.about,
        }

    @app.get("/v1/videos/{video_id}")
    async def one(request: Request, video_id: str) -> dict[str, Any]:
        return await read(await find(request, video_id), library.detail)

    @app.get("/v1/videos/{video_id}/picture")
    async def picture(request: Request, video_id: str, at: Seconds | None = None) -> Response:
        video = await find(request, video_id)
        seconds = None if at is None else max(0.0, at)
        data = await read(video, lambda each: library.picture(each, seconds))
        if data is None:
            raise ApiError(404, "There is no picture of that moment.")
        keeps = "no-store" if at is None else "private, max-age=600"
        headers = {"Cache-Control": keeps, "X-Content-Type-Options": "nosniff"}
        return Response(data, media_type="image/jpeg", headers=headers)

    async def film_of(request: Request, video_id: str) -> tuple[LibraryVideo, StoredFile]:
        video = await find(request, video_id)
        file = await read(video, library.media)
        if file is None or not await asyncio.to_thread(is_same_film, video, file):
            raise ApiError(404, "The film of this video is not there.", code="file_not_found")
        return video, file

    @app.get("/v1/videos/{video_id}/content")
    async def content(request: Request, video_id: str) -> Response:
        return VideoResponse((await film_of(request, video_id))[1])

    excerpts = Excerpts()

    @app.get("/v1/videos/{video_id}/clip")
    async def clip(request: Request, video_id: str, start: Seconds, end: Seconds) -> Response:
        video, file = await film_of(request, video_id)
        folder = await asyncio.to_thread(clip_folder)
        try:
            path = await asyncio.to_thread(
                excerpts.clip, file, video.title, start, end, Path(folder.name)
            )
        except BaseException:
            folder.cleanup()
            raise
        return _ClipResponse(path, folder, file.media_type)

    @app.get("/v1/videos/{video_id}/summary")
    async def summary(request: Request, video_id: str) -> dict[str, Any]:
        return await read(await find(request, video_id), excerpts.summary)


class _ClipResponse(FileResponse):
    """A clip, whose folder is deleted however the response ends."""

    def __init__(self, path: Path, folder: "tempfile.TemporaryDirectory[str]", kind: str) -> None:
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        super().__init__(path, media_type=kind, filename=path.name, headers=headers)
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.to_thread(self._folder.cleanup)


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
