"""A server that really listens, in a thread of this process, films for it, and requests by hand.

Knows no claim.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from pipeline.config.compose import compose
from pipeline.needle_world import video
from pipeline.server import command
from pipeline.server.app import Service, build_app

SIZE = (320, 180)


def film(path: Path, *needles: str, seconds: float = 12.0, seed: int = 3) -> Path:
    """A film with cards, such as "code:4821@5": each shown for two seconds."""
    placed = tuple(video.parse(text, number) for number, text in enumerate(needles))
    video.write(path, placed, seconds, video.procedural_footage(seed, SIZE), size=SIZE)
    return path


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of an application that is served."""
    config = compose("serve", ["port=0"])
    with command.listen(config) as socket:
        server = uvicorn.Server(command.uvicorn_settings(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not stop"


@contextmanager
def serving(folder: Path, *overrides: str) -> Iterator[tuple[str, Service]]:
    """The address of `reelbank serve` with these settings, and its parts."""
    config = compose("serve", [f"bank={folder / 'bank'}", "port=0", *overrides])
    command.check(config)
    service = command.build_service(config)
    with listening(build_app(service)) as address:
        yield address, service


def connect(address: str, seconds: float = 20.0) -> socket.socket:
    """A connection to a server, as bare as it can be."""
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=seconds)


def exchange(address: str, data: bytes, seconds: float = 20.0) -> bytes:
    """All that a server sends to these bytes, until it closes the connection."""
    with connect(address, seconds) as client:
        client.sendall(data)
        return receive_all(client)


def receive_all(client: socket.socket) -> bytes:
    """What comes until the other side closes. ConnectionError when it resets instead."""
    received = b""
    while piece := client.recv(1 << 16):
        received += piece
    return received


def statuses(received: bytes) -> list[int]:
    """The status of every response in what was received."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def post_json(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A POST request with a JSON body, as it goes over the wire. length: what its head claims."""
    head = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def chat_json(*parts: Any, **more: Any) -> bytes:
    """The body of a chat request with these content parts."""
    messages = [{"role": "user", "content": list(parts)}]
    return json.dumps({"model": "reelbank", "messages": messages} | more).encode()


class _Accidents(logging.Handler):
    """Remembers records with a traceback, and errors."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.lines.append(self.format(record))


@contextmanager
def accidents() -> Iterator[list[str]]:
    """Tracebacks and errors in the logs of a server. Begin after the server has started."""
    handler = _Accidents()
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "reelbank.server", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
