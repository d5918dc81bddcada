"""A line for every request of a server with keys: who did what, and how it ended.

JSON lines in files of 10 MB, the newest six. No question, no answer, no key, and no query string
stands in it. Knows keys and HTTP; no route.
"""

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encoders.errors import UserError
from pipeline.server.access.doorkeeper import key_of

_BYTES, _FILES = 10_000_000, 5
_QUIET = ("/health",)  # asked every few seconds by whoever runs the server


class AuditLog:
    """One file."""

    def __init__(self, path: Path) -> None:
        """UserError where the file cannot be written."""
        self._logger = logging.Logger("reelbank.audit")  # of its own: no other handler gets it
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)
            handler = RotatingFileHandler(path, maxBytes=_BYTES, backupCount=_FILES)
        except OSError as error:
            raise UserError(
                f"audit={path} cannot be written ({error.strerror}); give another file"
            ) from error
        self._logger.addHandler(handler)

    def write(self, scope: Scope, status: int, seconds: float) -> None:
        """Add a line. A disk that is full costs the line, and no request."""
        key, client = key_of(scope), scope.get("client")
        line = {
            "at": round(time.time(), 3),
            "key": None if key is None else key.name,
            "key_id": None if key is None else key.id,
            "from": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 3),
        }
        self._logger.info(json.dumps(line))

    def close(self) -> None:
        """Close the file."""
        for handler in self._logger.handlers:
            handler.close()


class AuditMiddleware:
    """ASGI middleware, outside of the guard: refused requests have a line too."""

    def __init__(self, app: ASGIApp, log: AuditLog) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # a client that is gone before an answer began

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._log.write(scope, status, time.perf_counter() - start)
