"""Checks before any route: host, origin, API key, body size, and body time. Pure ASGI.

Knows headers and bytes; no route and no JSON.
- Host: unknown host names are refused, so that a web page cannot reach a local server by pointing
  its own name at it (DNS rebinding). IP addresses are always accepted.
- Origin: requests from pages of other sites are refused, so that an open browser tab cannot upload
  or ask.
- Key: when one is set, protected paths require `Authorization: Bearer KEY`.
- Body: counted while it is received, with or without Content-Length, and limited in time. After a
  refusal the rest is read and discarded for a few seconds: closing a connection with unread bytes
  resets it, and the client would never see the error.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.server.errors import ApiError

PUBLIC_PATHS = ("/health",)  # never require a key
_LINGER_S = 5.0  # how long a refused client may go on sending


class Guard:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: tuple[str, ...],
        api_key: str,
        body_bytes: Mapping[str, int],
        body_seconds: float,
        protected: tuple[str, ...] = ("/",),
    ) -> None:
        """names: accepted host names beside localhost and all IP addresses. api_key: "" = none
        required.

        body_bytes: path prefix -> largest body; the first match counts. protected: path prefixes
        that require the key.
        """
        self._app, self._names, self._key = (
            app,
            {"localhost", *(name.lower() for name in names)},
            api_key.encode(),
        )
        self._body_bytes, self._body_seconds, self._protected = body_bytes, body_seconds, protected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {key.lower(): value for key, value in scope["headers"]}
        try:
            self._check(scope, headers)
        except ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        response_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal response_started
            response_started = True
            await send(message)

        try:
            await self._app(scope, self._bounded(scope, receive), send_and_note)
        except ApiError as error:  # raised by receive_bounded, inside the route that reads the body
            if response_started:
                raise
            await _refuse(error, scope, receive, send)

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_own_host(host):
            raise ApiError(
                421,
                "This server does not go by that name; use its address, or start it with "
                "names=[...].",
            )
        origin = headers.get(b"origin")
        if origin is not None and scope.get("method") not in ("GET", "HEAD", "OPTIONS"):
            origin_host = urlsplit(origin.decode("latin-1")).netloc
            if origin_host != host:
                raise ApiError(403, "Pages of other sites may not use this server.")
        path = scope["path"]
        if self._key and path not in PUBLIC_PATHS and path.startswith(self._protected):
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
                raise ApiError(
                    401,
                    "The API key is missing or wrong; send Authorization: Bearer KEY.",
                    code="invalid_api_key",
                )
        max_bytes = self._max_body_bytes(scope)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > max_bytes:
            raise _too_large(max_bytes)

    def _is_own_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _max_body_bytes(self, scope: Scope) -> int:
        return next(
            (
                max_bytes
                for begin, max_bytes in self._body_bytes.items()
                if scope["path"].startswith(begin)
            ),
            1 << 16,
        )

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        max_bytes, deadline = self._max_body_bytes(scope), time.monotonic() + self._body_seconds
        count, complete = 0, False

        async def receive_bounded() -> Message:
            nonlocal count, complete
            if complete:
                return await receive()  # after the body, the only message left is a disconnect
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise ApiError(
                    408, f"The request was not complete after {self._body_seconds:g} s."
                ) from None
            if message["type"] == "http.request":
                count += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if count > max_bytes:
                    raise _too_large(max_bytes)
            return message

        return receive_bounded


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413, f"The request is larger than {max_bytes / 1e6:g} MB, which is the limit here."
    )


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.message})
        return
    response = error.response()
    response.headers["Connection"] = "close"  # part of the body may be unread

    async def send_then_linger(message: Message) -> None:
        if message["type"] == "http.response.body":
            # the client has the full response; keep the connection open for now
            await send({**message, "more_body": True})
            await _discard_body(receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    await response(scope, receive, send_then_linger)


async def _discard_body(receive: Receive) -> None:
    """Read and discard what the client still sends, until it ends, disconnects, or time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            more = True
            while more:
                # a disconnect message has no more_body
                more = (await receive()).get("more_body", False)
