"""Stores an upload as browsers and OpenAI's clients send it.

Knows multipart forms. The guard limits the size of the body.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import IO

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore, StoredFile

MAX_FIELDS = 16
MAX_FIELD_BYTES = 64 << 10
_MAX_BOUNDARIES = MAX_FIELDS + 3  # before each field, before the file, and at the end
_PIECE = 1 << 20
_PARSED_AT_ONCE = 64 << 10  # bytes


async def store_upload(request: Request, files: FileStore) -> StoredFile:
    """Store the form part named `file`.

    ApiError when the form is invalid, UserError when the file is not a video. Nothing is stored
    then.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(
            415, "Send the video as multipart/form-data with a part named file.", param="file"
        )
    async with _form(request) as form:
        file, purpose = form.get("file"), form.get("purpose") or "user_data"
        if not isinstance(file, UploadFile):
            raise ApiError(
                400,
                "There is no part named file with a file name; that is the video.",
                param="file",
            )
        if not isinstance(purpose, str) or not purpose.isidentifier() or len(purpose) > 40:
            raise ApiError(400, "purpose must be a word such as user_data.", param="purpose")
        return await files.store(_read(file.file), file.filename or "", purpose)


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """The form of a request. ApiError 413 for a field that is too large, else 400."""
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"")
    try:
        async with aclosing(_pieces(request, b"\r\n--" + boundary)) as pieces:
            form = await MultiPartParser(
                request.headers,
                pieces,
                max_files=1,
                max_fields=MAX_FIELDS,
                max_part_size=MAX_FIELD_BYTES,
            ).parse()
    except MultiPartException as error:
        if "maximum size" in error.message:
            raise ApiError(
                413, f"A field of the form is larger than {MAX_FIELD_BYTES // 1024} KiB."
            ) from error
        raise _unreadable() from error
    except (KeyError, UnicodeError) as error:
        raise _unreadable() from error
    try:
        yield form
    finally:
        await form.close()


async def _pieces(request: Request, boundary: bytes) -> AsyncGenerator[bytes]:
    """The body in pieces that are parsed quickly: parsing runs in the event loop.

    ApiError 400 when the boundary stands in it too often: the parser is slow behind each one.
    """
    boundaries = 0
    async for piece in request.stream():
        boundaries += piece.count(boundary)
        if boundaries > _MAX_BOUNDARIES:
            raise _unreadable()
        for start in range(0, len(piece), _PARSED_AT_ONCE):
            if start:
                await asyncio.sleep(0)  # other requests have their turn
            yield piece[start : start + _PARSED_AT_ONCE]


def _unreadable() -> ApiError:
    return ApiError(400, "The multipart body cannot be read.", param="file")


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece
