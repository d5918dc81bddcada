"""A server that really listens, in a thread of this process, and films for it. Knows no claim."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from pipeline.config.compose import compose
from pipeline.demo import command as demo
from pipeline.demo.app import Demo
from pipeline.demo.app import build_app as build_page
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


@contextmanager
def paging(folder: Path, *overrides: str) -> Iterator[tuple[str, Demo]]:
    """The address of `reelbank demo` with these settings, and its parts."""
    config = compose("demo", [f"bank={folder / 'bank'}", "port=0", *overrides])
    demo.check(config)
    parts = demo.build_demo(config)
    with listening(build_page(parts)) as address:
        yield address, parts
