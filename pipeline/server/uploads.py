"""Stores an upload as browsers and OpenAI's clients send it.

Knows multipart forms. The guard limits the size of the body.
"""

import asyncio
from collections.abc import Iterator
from typing import IO

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from pipeline.server.errors import ApiError
from pipeline.server.files import FileStore, StoredFile

_PIECE = 1 << 20


async def store_upload(request: Request, files: FileStore) -> StoredFile:
    """Store the form part named `file`.

    ApiError when the form is invalid, UserError when the file is not a video. Nothing is stored
    then.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(
            415, "Send the video as multipart/form-data with a part named file.", param="file"
        )
    try:
        async with request.form(max_files=1, max_fields=16) as form:
            file, purpose = form.get("file"), form.get("purpose") or "user_data"
            if not isinstance(file, UploadFile):
                raise ApiError(
                    400,
                    "There is no part named file with a file name; that is the video.",
                    param="file",
                )
            if not isinstance(purpose, str) or not purpose.isidentifier() or len(purpose) > 40:
                raise ApiError(400, "purpose must be a word such as user_data.", param="purpose")
            return await asyncio.to_thread(
                files.put, _read(file.file), file.filename or "", purpose
            )
    except (MultiPartException, KeyError, UnicodeError) as error:
        raise ApiError(400, "The multipart body cannot be read.", param="file") from error


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece
