"""Errors as HTTP responses: one sentence, the right status, in the form that OpenAI's clients read.

Knows HTTP statuses and UserError; no route and no model.
"""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from encoders.errors import UserError

log = logging.getLogger("reelbank.server")


class ApiError(Exception):
    """An error response: status and sentence, optionally the field and code that it concerns."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """retry_after: seconds after which the client should try again."""
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = (
            status,
            message,
            code,
            param,
            retry_after,
        )

    def body(self) -> dict[str, Any]:
        """The JSON body in OpenAI's format."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        }

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def as_sentence(text: str) -> str:
    """One line with a full stop at its end."""
    return f"{' '.join(text.split()).rstrip('. ')}."


def as_api_error(error: BaseException) -> ApiError:
    """Convert any exception. Unexpected ones are logged, and the client sees no details."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, as_sentence(str(error)))
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, as_sentence(str(error.detail)))
    if isinstance(error, RequestValidationError):  # of the parameters of a route
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"][1:])
        return ApiError(422, as_sentence(f"{where}: {first['msg']}"), param=where)
    if isinstance(error, ClientDisconnect):
        return ApiError(499, "The client has gone.")
    log.error("a request failed", exc_info=error)
    return ApiError(500, "The server failed; its log says why.", code="internal_error")


def install(app: FastAPI) -> None:
    """Register exception handlers so that every error of this app has that format."""

    async def respond(_request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    kinds = (ApiError, UserError, HTTPException, RequestValidationError, ClientDisconnect)
    for kind in (*kinds, Exception):
        app.add_exception_handler(kind, respond)
