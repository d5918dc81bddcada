"""What stands before the routes: who may come in, how much they may send, and how long that may take. Pure ASGI.

Knows headers and bytes; no route and no JSON.
- Host: a name that is not ours is refused, so that a web page cannot reach a server on this machine by pointing its own name
  at it (DNS rebinding). IP addresses are always ours.
- Origin: a page of another site is refused, so that what a user has open in a browser cannot upload or ask.
- Key: where one is set, every path but /health wants it as `Authorization: Bearer KEY`.
- Body: counted while it comes in, with or without a Content-Length, and bounded in time. What comes after a refusal is read
  and thrown away for some seconds: closing on unread bytes resets the connection, and takes the sentence with it.
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

OPEN = ("/health",)  # paths without key
_LINGER = 5.0  # seconds in which a client that is refused may still send


class Guard:
    """An ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: tuple[str, ...],
        api_key: str,
        body_bytes: Mapping[str, int],
        body_seconds: float,
        keyed: tuple[str, ...] = ("/",),
    ) -> None:
        """names: host names that are ours, beside localhost and all IP addresses. api_key: "" = none is wanted.
        body_bytes: beginning of a path -> bytes of a body there, the first that fits. keyed: beginnings of paths that want
        the key."""
        self._app, self._names, self._key = (
            app,
            {"localhost", *(name.lower() for name in names)},
            api_key.encode(),
        )
        self._body_bytes, self._body_seconds, self._keyed = body_bytes, body_seconds, keyed

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
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, self._bounded(scope, receive), sending)
        except ApiError as error:  # raised while the body was read, inside whatever read it
            if began:
                raise
            await _refuse(error, scope, receive, send)

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host):
            raise ApiError(
                421,
                "This server does not go by that name; use its address, or start it with names=[...].",
            )
        origin = headers.get(b"origin")
        if origin is not None and scope.get("method") not in ("GET", "HEAD", "OPTIONS"):
            theirs = urlsplit(origin.decode("latin-1")).netloc
            if theirs != host:
                raise ApiError(403, "Pages of other sites may not use this server.")
        path = scope["path"]
        if self._key and path not in OPEN and path.startswith(self._keyed):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
                raise ApiError(
                    401,
                    "The API key is missing or wrong; send Authorization: Bearer KEY.",
                    code="invalid_api_key",
                )
        most = self._most(scope)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            raise _too_large(most)

    def _is_ours(self, host: str) -> bool:
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

    def _most(self, scope: Scope) -> int:
        return next(
            (most for begin, most in self._body_bytes.items() if scope["path"].startswith(begin)),
            1 << 16,
        )

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        most, ends = self._most(scope), time.monotonic() + self._body_seconds
        count, complete = 0, False

        async def receiving() -> Message:
            nonlocal count, complete
            if complete:
                return await receive()  # only the news that the client has gone
            try:
                message = await asyncio.wait_for(receive(), max(0.0, ends - time.monotonic()))
            except TimeoutError:
                raise ApiError(
                    408, f"The request was not complete after {self._body_seconds:g} s."
                ) from None
            if message["type"] == "http.request":
                count += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if count > most:
                    raise _too_large(most)
            return message

        return receiving


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The request is larger than {most / 1e6:g} MB, which is the limit here.")


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.message})
        return
    response = error.response()
    response.headers["Connection"] = "close"  # not all of a body is read

    async def lingering(message: Message) -> None:
        if message["type"] == "http.response.body":
            # the client has all of it, the server may not close yet
            await send({**message, "more_body": True})
            await _throw_away(receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    await response(scope, receive, lingering)


async def _throw_away(receive: Receive) -> None:
    """What a client still sends, until it is done or gone or out of time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            more = True
            while more:
                # the news that the client has gone has none
                more = (await receive()).get("more_body", False)
