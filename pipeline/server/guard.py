"""Checks before any route: host, origin, API key, body size, and body time. Pure ASGI.

Knows headers and bytes; no route and no JSON.
- Host: unknown host names are refused, so that a web page cannot reach a local server by pointing
  its own name at it (DNS rebinding). IP addresses are always accepted.
- Origin: requests from pages of other sites are refused, so that an open browser tab cannot upload
  or ask.
- Key: when one is set, protected paths require `Authorization: Bearer KEY`
  (pipeline/server/access/).
- Body: counted while it is received, with or without Content-Length, and limited in time. All
  bodies together are limited by a `BodyLine`.
- A response that comes before the end of the body: the rest is read and discarded for a few
  seconds. Closing a connection with unread bytes resets it, and the client would never see the
  response.
- Shutdown: a request that runs too long for it ends with 503.
"""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.server.access.doorkeeper import Doorkeeper
from pipeline.server.errors import ApiError
from pipeline.server.intake.body_line import Arrival, BodyLine

PUBLIC_PATHS = ("/health",)  # never require a key
IDLE_S = 60.0  # a body of which nothing comes for so long is given up
_LINGER_S = 5.0  # how long a client may go on sending after its response
_ARRIVAL = "reelbank.arrival"  # key of a request's state


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """What bounds the bodies of some paths."""

    nbytes: int  # of one body
    line: BodyLine  # for all of them together


class Guard:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: tuple[str, ...],
        doorkeeper: Doorkeeper,
        bodies: Mapping[str, BodyLimit],
        body_seconds: float,
        protected: tuple[str, ...] = ("/",),
    ) -> None:
        """names: accepted host names beside localhost and all IP addresses. doorkeeper: of the
        keys.

        bodies: path prefix -> limit; the first match counts, and "" matches every path.
        body_seconds: for a body to arrive. protected: path prefixes that require the key.
        """
        self._app, self._doorkeeper = app, doorkeeper
        self._names = {"localhost", *(name.lower() for name in names)}
        self._bodies, self._body_seconds, self._protected = bodies, body_seconds, protected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.lower(): value for key, value in scope["headers"]}
        if scope["type"] == "websocket":
            try:
                self._check(scope, headers)
            except ApiError as error:
                await send({"type": "websocket.close", "code": 1008, "reason": error.message})
                return
            await self._app(scope, receive, send)
            return
        limit = self._body_limit(scope["path"])
        exchange = _Exchange(scope, headers, receive, send, limit, self._body_seconds)
        try:
            try:
                self._check(scope, headers)
                await self._app(scope, exchange.receive, exchange.send)
            except ApiError as error:
                if exchange.has_response:
                    raise
                await error.response()(scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:  # uvicorn does this at shutdown only
                await exchange.abort()
        finally:
            exchange.close()

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_own_host(host):
            raise ApiError(
                421,
                "This server does not go by that name; use its address, or start it with "
                "names=[...].",
            )
        origin = headers.get(b"origin")
        if (
            origin is not None
            and scope.get("method") not in ("GET", "HEAD", "OPTIONS")
            and origin.decode("latin-1").partition("://")[2] != host
        ):
            raise ApiError(403, "Pages of other sites may not use this server.")
        path = scope["path"]
        if path not in PUBLIC_PATHS and path.startswith(self._protected):
            self._doorkeeper.admit(scope, headers)
        max_bytes = self._body_limit(path).nbytes
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > max_bytes:
            raise _too_large(max_bytes)

    def _is_own_host(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _body_limit(self, path: str) -> BodyLimit:
        return next(limit for begin, limit in self._bodies.items() if path.startswith(begin))


class _Exchange:
    """One request and its response: bounds the body, and reads what the response left unread."""

    def __init__(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
        limit: BodyLimit,
        body_seconds: float,
    ) -> None:
        self.has_response = False
        self._scope, self._receive, self._send, self._limit = scope, receive, send, limit
        self._body_seconds, self._deadline = body_seconds, time.monotonic() + body_seconds
        self._body_is_open = (
            headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        )
        self._count = 0
        self._is_over = self._lingers = False
        self._arrival: Arrival | None = None

    async def receive(self) -> Message:
        """The next message. ApiError 408, 413, or 429 when the body passes a limit."""
        if not self._body_is_open:
            return await self._receive()  # the only message left is a disconnect
        if self._arrival is None:
            self._arrival = self._limit.line.enter()
            self._scope.setdefault("state", {})[_ARRIVAL] = self._arrival
        seconds = max(0.0, min(IDLE_S, self._deadline - time.monotonic()))
        try:
            message = await self._arrival.receive(self._receive, seconds)
        except TimeoutError:
            raise ApiError(
                408,
                f"The request was not complete after {self._body_seconds:g} s, or nothing came for "
                f"{IDLE_S:g} s.",
            ) from None
        self._body_is_open = message.get("more_body", False)  # a disconnect has none
        self._count += len(message.get("body", b""))
        if self._count > self._limit.nbytes:
            raise _too_large(self._limit.nbytes)
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the response. The last one waits until the body has been read."""
        if message["type"] == "http.response.start":
            self.has_response = True
            if self._body_is_open:
                self._lingers = True
                self.close()
                headers = [*message.get("headers", []), (b"connection", b"close")]
                message = {**message, "headers": headers}
        elif not message.get("more_body", False):
            if self._lingers:
                # the client has the whole response; keep the connection open for now
                await self._send({**message, "more_body": True})
                await self._discard_body()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            self._is_over = True
        await self._send(message)

    async def abort(self) -> None:
        """End the response now, as an error if none has begun. For shutdown."""
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        self._body_is_open = self._lingers = False
        # what has begun with a Content-Length cannot end early; uvicorn closes its connection
        with contextlib.suppress(Exception):
            if not self.has_response:
                error = ApiError(503, "The server is being shut down.")
                await error.response()(self._scope, self.receive, self.send)
            elif not self._is_over:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def close(self) -> None:
        """Give back the room of the body."""
        if self._arrival is not None:
            self._arrival.close()

    async def _discard_body(self) -> None:
        """Read and discard what the client still sends, until it ends, disconnects, or time is
        up.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                more = True
                while more:
                    # a disconnect message has no more_body
                    more = (await self._receive()).get("more_body", False)


def release_body(request: Request) -> None:
    """Give back the room of a request's body before the request ends: it is no more in memory."""
    arrival = request.scope.get("state", {}).get(_ARRIVAL)
    if arrival is not None:
        arrival.close()


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413, f"The request is larger than {max_bytes / 1e6:g} MB, which is the limit here."
    )
