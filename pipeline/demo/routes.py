"""What the page's script asks for beside Gradio: what to watch, its pictures, its file to play, its figures.

Knows HTTP and the stage; no component. Nothing that a browser sends becomes part of a path: files and watches are looked
up by id.
"""

import asyncio
import io
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from pipeline.demo.watching import Stage, Watch
from pipeline.live.session import QUESTION_LETTERS
from pipeline.server import uploads
from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore

FRAME_BYTES = 2_000_000  # of one picture that a browser sends
_SIDE = 4096  # pixels of its longer side
_UNSTORED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class _Wanted(BaseModel):
    file: str | None = None
    real_time: bool = True
    url: str | None = None
    browser: str | None = None
    request: str | None = None
    remove: int | None = None


def add_routes(app: FastAPI, stage: Stage, files: FileStore) -> None:
    """Add /watch/... to an application."""

    @app.get("/watch/state")
    async def state() -> JSONResponse:
        watch = stage.current
        told = {} if watch is None else await asyncio.to_thread(watch.state)
        return JSONResponse(
            told | {"bank_bytes": await asyncio.to_thread(lambda: stage.qa.bank.nbytes)},
            headers=_UNSTORED,
        )

    @app.post("/watch/upload")
    async def upload(request: Request) -> dict[str, Any]:
        file = await uploads.stored(request, files)
        return {"file": file.id, "name": file.filename, "duration": file.duration}

    @app.post("/watch/start")
    async def start(request: Request) -> dict[str, Any]:
        wanted = await _read(request)
        if wanted.file is not None:
            speed = 1.0 if wanted.real_time else float("inf")
            watch = await asyncio.to_thread(stage.watch_file, files.get(wanted.file), speed)
        elif wanted.url is not None:
            watch = await asyncio.to_thread(stage.watch_url, wanted.url[:2000])
        elif wanted.browser in ("camera", "screen"):
            title = (
                "Camera of this browser" if wanted.browser == "camera" else "Screen of this browser"
            )
            watch = await asyncio.to_thread(stage.watch_browser, title)
        else:
            raise ApiError(422, "Say what to watch: file, url or browser.")
        return {"id": watch.id, "kind": watch.kind, "title": watch.title}

    @app.post("/watch/stop")
    async def stop() -> dict[str, Any]:
        await asyncio.to_thread(stage.stop)
        return {}

    @app.post("/watch/request")
    async def request_(request: Request) -> dict[str, Any]:
        """A standing request to add, or the place of one to remove."""
        wanted = await _read(request)
        requests = stage.asked().requests
        if wanted.request is not None:
            await asyncio.to_thread(requests.add, wanted.request[:QUESTION_LETTERS])
        elif wanted.remove is not None:
            requests.remove(wanted.remove)
        return requests.state()

    @app.post("/watch/frame/{watch_id}")
    async def frame(watch_id: str, request: Request) -> dict[str, Any]:
        picture = await asyncio.to_thread(_decoded, await request.body())
        if not await asyncio.to_thread(stage.push, watch_id, picture):
            raise ApiError(404, "Nobody watches this any more.")
        return {}

    @app.get("/watch/media/{watch_id}")
    async def media(watch_id: str) -> FileResponse:
        watch = _watched(stage, watch_id)
        if watch.file is None:
            raise ApiError(404, "This is no file.")
        return FileResponse(watch.file.path, media_type=watch.file.media_type, headers=_UNSTORED)

    @app.get("/watch/picture/{watch_id}")
    async def picture(watch_id: str, at: float | None = None) -> Response:
        """Of a second, or the newest."""
        pictures = _watched(stage, watch_id).pictures
        data = await asyncio.to_thread(pictures.newest if at is None else lambda: pictures.at(at))
        if data is None:
            raise ApiError(404, "There is no picture of that moment.")
        headers = _UNSTORED if at is None else _UNSTORED | {"Cache-Control": "private, max-age=600"}
        return Response(data, media_type="image/jpeg", headers=headers)


def _watched(stage: Stage, watch_id: str) -> Watch:
    watch = stage.current
    if watch is None or watch.id != watch_id:
        raise ApiError(404, "Nobody watches this any more.")
    return watch


async def _read(request: Request) -> _Wanted:
    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise ApiError(415, "Send the request as Content-Type: application/json.")
    try:
        return _Wanted.model_validate_json(await request.body())
    except ValidationError:
        raise ApiError(422, "Say what to watch or to do, as JSON.") from None


def _decoded(data: bytes) -> np.ndarray:
    """[height, width, 3] uint8 RGB of a JPEG. ApiError 400 when it is none, or too large."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            if max(picture.size) > _SIDE:  # known from its head, before anything is unpacked
                raise ApiError(413, f"Pictures of more than {_SIDE} pixels a side are not taken.")
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        raise ApiError(400, "The picture is no JPEG.") from None
