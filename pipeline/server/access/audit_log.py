"""A line for every request of a server with keys: who did what, and how it ended.

JSON lines in files of 10 MB, the newest six. No question, no answer, no key, and no query string
stands in it. Knows keys and HTTP; no route.
"""

import io
import json
import logging
import os
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encoders.errors import UserError
from pipeline.server.access.doorkeeper import key_of

_BYTES, _FILES = 10_000_000, 5
_PATH_LETTERS = 300  # of a line: who has no key must not push older lines out with long ones
_QUIET = ("/health",)  # asked every few seconds by whoever runs the server
log = logging.getLogger(__name__)


class _PrivateFile(RotatingFileHandler):
    """Only the owner may read its files, also those that come after the first one."""

    def _open(self) -> io.TextIOWrapper:
        file = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(file, "a", encoding="utf-8")


class AuditLog:
    """One file."""

    def __init__(
        self,
        path: Path,
        is_wanted: Callable[[], bool] = lambda: True,
        *,
        file_bytes: int = _BYTES,
    ) -> None:
        """is_wanted: whether there is anything to log yet, such as keys; the file is opened with
        the first request for which it is. UserError where it is, and cannot be written."""
        self._path, self._is_wanted, self._file_bytes = path, is_wanted, file_bytes
        self._logger = logging.Logger("reelbank.audit")  # of its own: no other handler gets it
        if is_wanted():
            self._open()

    def _open(self) -> None:
        path = self._path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = _PrivateFile(path, maxBytes=self._file_bytes, backupCount=_FILES)
        except OSError as error:
            raise UserError(
                f"audit={path} cannot be written ({error.strerror}); give another file"
            ) from error
        self._logger.addHandler(handler)

    def write(self, scope: Scope, status: int, seconds: float) -> None:
        """Add a line. A disk that is full costs the line, and no request."""
        if not self._logger.handlers:
            if not self._is_wanted():
                return
            try:
                self._open()
            except UserError as error:
                log.error("reelbank: %s", error)
                return
        key, client = key_of(scope), scope.get("client")
        line = {
            "at": round(time.time(), 3),
            "key": None if key is None else key.name,
            "key_id": None if key is None else key.id,
            "from": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:_PATH_LETTERS],
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
