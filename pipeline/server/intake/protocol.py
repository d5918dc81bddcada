"""HTTP/1.1 on a connection: uvicorn's own protocol, with stricter framing and time limits.

Knows bytes and h11; no path and no body.
- A request whose end two readers could see in different places is refused and the connection
  closed: Content-Length beside Transfer-Encoding, one of them twice, or an unusual way to write
  them. A proxy in front could take the rest for another client's request (request smuggling).
- A head must arrive within `HEAD_S`.
- A body in very many tiny chunks is refused: each costs more than its bytes.
- A client that breaks the protocol gets 400 in OpenAI's form, and the request ends.
"""

import asyncio
import json
import re
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.server.errors import ApiError

HEAD_BYTES = 64 << 10
HEAD_S = 30.0
ENDLESS = "reelbank.endless"  # key of a request's state: its response ends with the server
_MAX_CHUNKS = 1024  # of a body, unless they have this many bytes on average:
_MIN_CHUNK_BYTES = 64
_LINGER_S = 2.0  # so long a refused client may go on sending, so that it sees the answer
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_FRAMING = re.compile(
    rb"^(transfer-encoding|content-length)[ \t]*:(.*(?:\n[ \t].*)*)$", re.IGNORECASE | re.MULTILINE
)
_WHY = "The request cannot be read as HTTP/1.1"


class _StrictConnection(h11.Connection):
    """h11's parser. RemoteProtocolError for a head or body as above, with `why` in a sentence."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES)
        self.why = ""
        self._chunks = self._chunk_bytes = 0

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            head = self.trailing_data[0]
            if (end := _END_OF_HEAD.search(head)) is not None:
                if end.start() > HEAD_BYTES:
                    self._refuse(f"its head is larger than {HEAD_BYTES >> 10} KiB")
                self._check_framing(head[: end.start()])
                self._chunks = self._chunk_bytes = 0
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._chunk_bytes += len(event.data)
            if self._chunks > max(_MAX_CHUNKS, self._chunk_bytes / _MIN_CHUNK_BYTES):
                self._refuse(f"its body comes in more than {_MAX_CHUNKS} tiny chunks")
        return event

    def _check_framing(self, head: bytes) -> None:
        first = head.partition(b"\n")[0].rstrip(b"\r")
        if not first.endswith((b" HTTP/1.1", b" HTTP/1.0")):
            self._refuse("its first line does not end in HTTP/1.1")
        fields = [(name.lower(), value.rstrip(b"\r")) for name, value in _FRAMING.findall(head)]
        if len(fields) > 1:
            self._refuse("it has more than one Content-Length or Transfer-Encoding")
        for name, value in fields:
            text = value.strip(b" ").lower()  # nothing but blanks, so no tab and no folded line
            if name == b"transfer-encoding":
                if text != b"chunked" or first.endswith(b"1.0"):
                    self._refuse("the only Transfer-Encoding that is taken is chunked, in HTTP/1.1")
            elif not text.isdigit():
                self._refuse("its Content-Length is no number")

    def _refuse(self, why: str) -> None:
        self.why = why
        raise h11.RemoteProtocolError(why)


class HttpProtocol(H11Protocol):
    """One connection. Pass the class as `http` to uvicorn.Config."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: _StrictConnection = _StrictConnection()
        self._head_timer: asyncio.TimerHandle | None = None
        self._lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio leaves this out for sockets that were made without a protocol number; a response
        # in two packets then waits 40 ms for the client's acknowledgement
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        super().data_received(data)
        self._watch_head()

    def shutdown(self) -> None:
        """Called when the server stops. A body that is under way is not waited for, nor a response
        without an end."""
        super().shutdown()
        cycle = self.cycle
        if cycle is not None and cycle.scope.get("state", {}).get(ENDLESS):
            self._end_request()
            self.transport.close()  # else the server waits for its end as long as it may
            return
        if cycle is not None and cycle.more_body and not cycle.response_started:
            self._end_request()
            self._respond_and_close(ApiError(503, "The server is being shut down."), linger=0.1)

    def send_400_response(self, msg: str) -> None:
        """Called when the client breaks the protocol. The request that is under way ends."""
        self._end_request()
        why = f"{_WHY}: {self.conn.why}." if self.conn.why else f"{_WHY}."
        self._respond_and_close(ApiError(400, why))

    def _end_request(self) -> None:
        """Tell the application that its client has gone."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _watch_head(self) -> None:
        """Start the clock of a head, unless it runs; stop it when there is a request."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self.conn.trailing_data[0]:
            self._respond_and_close(
                ApiError(408, f"The head of the request was not complete after {HEAD_S:g} s.")
            )
        else:
            self.transport.close()

    def _respond_and_close(self, error: ApiError, linger: float = _LINGER_S) -> None:
        """Send an error unless a response has begun, then close.

        linger: seconds that the client may go on sending.
        """
        if self._lingers or self.transport.is_closing():
            return
        self._lingers = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error.body()).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            response = h11.Response(status_code=error.status, headers=headers, reason=b"")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(linger, self.transport.close)
