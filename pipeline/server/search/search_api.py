"""Two routes that answer no question: moments for words or a picture, and rows of frame embedders.

Knows OpenAI's form of embeddings, and the engine of a search; no chat.

    POST /v1/embeddings   {"model": "reelbank-conse", "input": "a dog"}
    POST /v1/search       {"query": "a dog", "image": "data:image/...", "top": 10}

An input, and `image`, may be a picture: a data: URL, or a part of type image_url. A search sees
the videos that clients uploaded, and with whole_bank=true all of the bank. Clients name them by id,
never by path.
"""

import base64
import functools
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict

from encoders.errors import UserError
from encoders.schema import FrameEmbedder
from pipeline.moments.picture_query import PictureBytes, picture_frames
from pipeline.runtime.cancel import raise_if_cancelled
from pipeline.server.admission import AdmissionQueue
from pipeline.server.answering import BankVideo, WholeBank
from pipeline.server.errors import ApiError
from pipeline.server.intake import bounded_json
from pipeline.server.intake.bounded_json import LongText
from pipeline.server.intake.hang_up import in_thread
from pipeline.server.intake.inline_video import InlineVideo

if TYPE_CHECKING:
    from pipeline.engine import Engine

MAX_INPUTS = 256
MAX_MOMENTS = 100
_EXAMPLE = "image/jpeg"
_Model = TypeVar("_Model", bound=BaseModel)


class _Fields(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


_ONE: JsonDict = {
    "anyOf": [{"type": "string"}, {"type": "object", "required": ["type"]}]  # a text, or a part
}
_INPUT: JsonDict = {"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE}]}  # type: ignore[misc]


class EmbeddingsBody(_Fields):
    model: str
    input: Any = Field(json_schema_extra=_INPUT)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class SearchBody(_Fields):
    query: str = ""
    image: Any = None
    videos: list[str] = Field([], max_length=100)
    start: float | None = Field(None, ge=0, allow_inf_nan=False)
    end: float | None = Field(None, ge=0, allow_inf_nan=False)
    top: int = Field(10, ge=1, le=MAX_MOMENTS)


@dataclass(frozen=True)
class SearchApi:
    """What the two routes work with."""

    embedders: Mapping[str, FrameEmbedder]  # by the name of their model in the API
    open_engine: "Callable[[], Engine]"  # of searches over the server's banks
    queue: AdmissionQueue
    sees_bank: bool  # whether clients may search what they did not upload
    letters: int  # of a text, at most
    seconds: float  # that a request may take, its wait in the line of searches included

    @functools.cached_property
    def engine(self) -> "Engine":
        """Opened by the first search."""
        return self.open_engine()

    def close(self) -> None:
        """Free what searches loaded."""
        if "engine" in vars(self):
            self.engine.close()

    def embed(self, data: bytearray, cancelled: threading.Event) -> dict[str, Any]:
        """The reply to a request for embeddings. ApiError on one that cannot be, and Cancelled."""
        body, long_texts = _parse(EmbeddingsBody, data)
        embedder = self.embedders.get(body.model)
        if embedder is None:
            names = " or ".join(map(repr, self.embedders)) or "none here"
            raise ApiError(
                404,
                f"There is no model {body.model[:60]!r} that embeds; use {names}.",
                code="model_not_found",
                param="model",
            )
        one_or_many = body.input if isinstance(body.input, list) else [body.input]
        if not 1 <= len(one_or_many) <= MAX_INPUTS:
            raise ApiError(422, f"input: give 1 to {MAX_INPUTS} texts or pictures.", param="input")
        inputs = [self._input(one, long_texts) for one in one_or_many]
        rows = []
        for one in inputs:
            raise_if_cancelled(cancelled)
            rows.append(_row(embedder, one))
        if body.dimensions not in (None, len(rows[0])):
            raise ApiError(
                400,
                f"dimensions={body.dimensions} is not to be had: {body.model} has {len(rows[0])}.",
                param="dimensions",
            )
        is_packed = body.encoding_format == "base64"
        tokens = sum(math.ceil(len(one) / 4) for one in inputs if isinstance(one, str))
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _pack(row) if is_packed else row.tolist(),
                }
                for index, row in enumerate(rows)
            ],
            "model": body.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def search(
        self, data: bytearray, cancelled: threading.Event, videos: WholeBank
    ) -> dict[str, Any]:
        """The reply to a search. ApiError, or UserError, on one that cannot be, and Cancelled.

        videos: encoded ones that the client may see.
        """
        body, long_texts = _parse(SearchBody, data)
        ids = self._ids(body.videos, videos)
        query = self._text(body.query, long_texts, "query")
        picture = None
        if body.image is not None:
            given = self._input(body.image, long_texts, "image")
            if isinstance(given, str):
                raise _no_picture("image")
            picture = PictureBytes(given)
        result = self.engine.find(
            query,
            ids,
            start=body.start,
            end=body.end,
            top=body.top,
            picture=picture,
            cancelled=cancelled,
        )
        moments = [
            {
                "object": "moment",
                "video_id": one.video_id,
                **_names(videos[one.video_id]),
                "start": round(one.start, 3),
                "end": round(one.end, 3),
                "frame_at": round(one.at, 3),
                "score": one.score,
                "channels": list(one.channels),
                "text": " / ".join(dict.fromkeys(line.text for line in one.lines)),
            }
            for one in result.moments
        ]
        reply = {"object": "list", "data": moments}
        return reply | ({"warning": " ".join(result.notes)} if result.notes else {})

    def _ids(self, names: Sequence[str], videos: WholeBank) -> list[str]:
        """The ids of the videos to search. ApiError 404 where there is none."""
        seen = {key: one for key, one in videos.items() if one.file_id or self.sees_bank}
        by_file = {one.file_id: key for key, one in seen.items() if one.file_id}
        unknown = [name for name in names if name not in seen and name not in by_file]
        if unknown or not seen:
            which = f"video {unknown[0][:60]!r}" if unknown else "video"
            raise ApiError(
                404,
                f"There is no encoded {which} that can be searched; upload it to /v1/files, or "
                "wait until it is encoded.",
                code="video_not_found",
                param="videos",
            )
        return [by_file.get(name, name) for name in names] or list(seen)

    def _input(
        self, one: Any, long_texts: Mapping[str, LongText], where: str = "input"
    ) -> str | bytes:
        """A text, or the bytes of a picture."""
        if isinstance(one, dict) and one.get("type") == "image_url":
            url = one.get("image_url")
            one = url.get("url") if isinstance(url, dict) else url
            if not isinstance(one, str) or not _is_data(one, long_texts):
                raise _no_picture(where)
        if isinstance(one, dict) and one.get("type") == "text":
            one = one.get("text")
        if not isinstance(one, str):
            raise ApiError(
                422, f"{where}: give texts, or pictures as data: URLs; no token ids.", param=where
            )
        if _is_data(one, long_texts):
            url = InlineVideo(long_texts.get(one, one), "picture", _EXAMPLE)
            return b"".join(url.pieces())
        text = self._text(one, long_texts, where)
        if not text.strip():
            raise ApiError(422, f"{where}: a text is empty.", param=where)
        return text

    def _text(self, text: str, long_texts: Mapping[str, LongText], where: str) -> str:
        if text in long_texts or len(text) > self.letters:
            raise ApiError(
                400, f"{where}: a text has at most {self.letters} letters here.", param=where
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ApiError(
                400, f"{where} holds halves of characters (lone surrogates).", param=where
            ) from None
        return text


def add_search(
    app: FastAPI, api: SearchApi, videos_of: Callable[[Request], Awaitable[WholeBank]]
) -> None:
    """Add the routes to an application. videos_of: the encoded videos that a client may see."""

    async def reply(
        request: Request, work: Callable[[bytearray, threading.Event], dict[str, Any]]
    ) -> JSONResponse:
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, "Send the request as Content-Type: application/json.")
        body = bytearray()
        async for piece in request.stream():
            body += piece
        ticket = api.queue.enter()
        done = await in_thread(request, ticket, api.seconds, functools.partial(work, body))
        return JSONResponse(done)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> JSONResponse:
        return await reply(request, api.embed)

    @app.post("/v1/search")
    async def search(request: Request) -> JSONResponse:
        videos = await videos_of(request)
        return await reply(request, functools.partial(api.search, videos=videos))


def _parse(kind: type[_Model], data: bytearray) -> tuple[_Model, Mapping[str, LongText]]:
    document = bounded_json.parse(data)
    try:
        return kind.model_validate(document.value), document.long_texts
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        raise ApiError(
            422, f"{where}: {first['msg']}.", code="invalid_field", param=where
        ) from None


def _is_data(text: str, long_texts: Mapping[str, LongText]) -> bool:
    return text in long_texts or text[:5].lower() == "data:"


def _row(embedder: FrameEmbedder, one: str | bytes) -> np.ndarray:
    """[E] float32, unit length."""
    if isinstance(one, str):
        return embedder.embed_text(one).cpu().float().numpy()
    try:
        frames = picture_frames(one, "A picture of input")
    except UserError as error:
        raise ApiError(422, f"{error}.", code="invalid_picture", param="input") from None
    return embedder.embed_frames(frames)[0].cpu().float().numpy()


def _names(video: BankVideo) -> dict[str, str]:
    return {"filename": video.filename} | ({"file_id": video.file_id} if video.file_id else {})


def _pack(row: np.ndarray) -> str:
    """Base64 of little-endian float32, as OpenAI's clients ask for it."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _no_picture(where: str) -> ApiError:
    return ApiError(
        422, f"{where}: a picture is written as data:image/...;base64,....", param=where
    )
