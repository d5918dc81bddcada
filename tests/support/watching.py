"""A server whose streams a test watches: in another process that can be killed, and what it says.

Knows HTTP and the files of a bank; no claim.
"""

import contextlib
import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from tests.support import children
from tests.support.sessions import world

QUESTION = "What is the code on the card?"


def until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.05)


def state(address: str, name: str) -> dict:
    answer: dict = httpx.get(f"{address}/v1/streams/{name}", timeout=30).json()
    return answer


def asked(address: str, name: str, question: str = QUESTION) -> httpx.Response:
    part = {"type": "video_url", "video_url": {"url": f"stream:{name}"}}
    content = [part, {"type": "text", "text": question}]
    body = {"model": "reelbank", "messages": [{"role": "user", "content": content}]}
    return httpx.post(f"{address}/v1/chat/completions", json=body, timeout=120)


def is_sealed(address: str, name: str, seconds: float) -> bool:
    return bool(state(address, name)["sealed_until"] > seconds)


def looped(*needles: str, seconds: float = 8.0) -> Callable[[float], np.ndarray]:
    """The same seconds again and again, so that it does not matter when a client connects."""
    paint = world(*needles)
    return lambda at: paint(at % seconds)


@contextlib.contextmanager
def killed_server(bank: Path, *settings: str) -> Iterator[str]:
    """The address of `reelbank serve` in a process of its own, which is killed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process, _ = children.start(
        children.command, ["serve", "--bank", str(bank), f"port={port}", *settings]
    )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.is_alive(), "the server ended"
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{address}/health", timeout=30).status_code == 200
        return False

    try:
        until(answers)
        yield address
    finally:
        process.kill()
        process.join(20)


def stored(root: Path, name: str) -> list[tuple]:
    """(number, start, end, digest) of each segment of a stream; the bank is whole."""
    with MemoryBank.open(root, None, UniformRetriever(), recent_frames=0, create=False) as bank:
        rows = bank.catalog.segments(name)
        problems = [each for each in bank.check.verify() if not each.harmless]
    assert problems == [], problems
    return [(row.number, row.start, row.end, digest(root, name, row.number)) for row in rows]


def digest(root: Path, name: str, number: int) -> str:
    path = root / "segments" / name / f"{number:06d}.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()
