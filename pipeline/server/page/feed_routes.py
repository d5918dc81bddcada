"""The routes by which visitors of the page have something watched.

Knows HTTP and feeds; no bank. Client input never becomes part of a path: files and feeds are looked
up by id.

    POST   /v1/videos                {"browser": "camera"}, or "screen"; gives an id
    POST   /v1/videos/ID/frame       JPEG of that browser
    POST   /v1/videos/ID/play        {"speed": 1}; an uploaded film as if it were live, 0: as fast
                                     as it encodes
    DELETE /v1/videos/ID/play        stop either
"""

import asyncio
import io
import math
from typing import Any, Literal, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from pipeline.server.access.doorkeeper import sees
from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore
from pipeline.server.page.feeds import Feeds
from pipeline.server.streams.stream import Stream

FRAME_BYTES = 2_000_000  # of one picture that a browser sends
_MAX_SIDE = 4096  # pixels
Body = TypeVar("Body", bound=BaseModel)


class ShowBody(BaseModel):
    """Of POST /v1/videos."""

    model_config = ConfigDict(extra="forbid", strict=True)
    browser: Literal["camera", "screen"]


class PlayBody(BaseModel):
    """Of POST /v1/videos/ID/play."""

    model_config = ConfigDict(extra="forbid", strict=True)
    speed: float = Field(1.0, ge=0, le=1000, allow_inf_nan=False)  # 0: as fast as it encodes


def add_feed_routes(app: FastAPI, feeds: Feeds, files: FileStore, bank: str) -> None:
    """Add the routes to an application. bank: folder of the server's own, which takes it all."""

    def admit(request: Request) -> None:
        if not sees(request, bank):
            raise ApiError(403, "This key may not see this bank.", code="missing_bank")

    @app.post("/v1/videos")
    async def show(request: Request) -> JSONResponse:
        admit(request)
        hint = 'Say what to watch: {"browser": "camera"}, or "screen".'
        body = await _parse(request, ShowBody, hint)
        return _started(await asyncio.to_thread(feeds.show_browser, body.browser))

    @app.post("/v1/videos/{video_id}/frame")
    async def frame(request: Request, video_id: str) -> dict[str, Any]:
        admit(request)
        picture = await asyncio.to_thread(_decode_jpeg, await request.body())
        if not await asyncio.to_thread(feeds.push, video_id, picture):
            raise ApiError(404, "Nobody watches this any more.")
        return {}

    @app.post("/v1/videos/{video_id}/play")
    async def play(request: Request, video_id: str) -> JSONResponse:
        admit(request)
        body = await _parse(request, PlayBody, 'Say how fast: {"speed": 1}.')
        file = next((each for each in files.all() if each.video_id == video_id), None)
        if file is None:
            raise ApiError(404, "There is no such film that was uploaded.", code="file_not_found")
        return _started(await asyncio.to_thread(feeds.play, file, body.speed or math.inf))

    @app.delete("/v1/videos/{video_id}/play")
    async def stop(request: Request, video_id: str) -> dict[str, Any]:
        admit(request)
        await asyncio.to_thread(feeds.stop, video_id)
        return {"id": video_id, "stopped": True}


def _started(stream: Stream) -> JSONResponse:
    return JSONResponse({"id": stream.name, "object": "video", "stream": stream.state()}, 201)


async def _parse(request: Request, kind: type[Body], hint: str) -> Body:
    """A body. ApiError 415 where it is no JSON by its header, 422 where it does not fit."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send the request as Content-Type: application/json.")
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError:
        raise ApiError(422, hint) from None


def _decode_jpeg(data: bytes) -> np.ndarray:
    """[height, width, 3] uint8 RGB. ApiError 400 when it is not a JPEG, 413 when too large."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            if max(picture.size) > _MAX_SIDE:  # from the header, before anything is decoded
                raise _too_large()
            return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError:
        raise _too_large() from None
    except (OSError, SyntaxError, ValueError):
        raise ApiError(400, "The picture is no JPEG.") from None


def _too_large() -> ApiError:
    return ApiError(413, f"Pictures of more than {_MAX_SIDE} pixels a side are not taken.")
