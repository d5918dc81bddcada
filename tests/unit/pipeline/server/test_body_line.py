"""Bodies under way are bounded in number and bytes, and the ones that stop give way."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pipeline.server.errors import ApiError
from pipeline.server.intake import body_line
from pipeline.server.intake.body_line import BodyLine


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(body_line, "_SLOW_AFTER_S", 0.05)


def run(claim: Coroutine[Any, Any, None]) -> None:
    asyncio.run(claim)


async def piece(data: bytes = b"x", more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def never() -> dict[str, Any]:
    await asyncio.sleep(3600)
    raise AssertionError


def test_a_newcomer_is_refused_while_all_bodies_arrive_and_let_in_after():
    async def claim() -> None:
        line = BodyLine("requests", 2, 1000)
        first, _ = line.enter(), line.enter()
        with pytest.raises(ApiError, match="2 requests arrive already") as told:
            line.enter()
        assert (told.value.status, told.value.retry_after) == (429, 5)
        first.close()
        first.close()
        line.enter()
        assert len(line) == 2

    run(claim())


def test_a_body_that_stopped_gives_way_and_is_told():
    async def claim() -> None:
        line = BodyLine("requests", 2, 1e6)
        stopped, busy = line.enter(), line.enter()
        await stopped.receive(piece, 1)
        waiting = asyncio.create_task(stopped.receive(never, 30))
        for _ in range(4):
            await asyncio.sleep(0.03)
            await busy.receive(lambda: piece(b"x" * 10_000), 1)
        line.enter()
        with pytest.raises(ApiError, match="too slowly") as told:
            await waiting
        assert told.value.status == 408 and len(line) == 2
        with pytest.raises(ApiError, match="too slowly"):
            await stopped.receive(piece, 1)
        with pytest.raises(ApiError, match="arrive already"):  # the busy one stays
            line.enter()
        await busy.receive(piece, 1)

    run(claim())


def test_a_drop_a_second_is_no_progress():
    async def claim() -> None:
        line = BodyLine("requests", 1, 1e6)
        dripping = line.enter()
        await dripping.receive(lambda: piece(b"x" * 100_000), 1)
        for _ in range(8):
            await dripping.receive(piece, 1)
            await asyncio.sleep(0.02)
        line.enter()
        with pytest.raises(ApiError, match="too slowly"):
            await dripping.receive(piece, 1)

    run(claim())


def test_a_complete_body_never_gives_way():
    async def claim() -> None:
        line = BodyLine("requests", 1, 1e6)
        complete = line.enter()
        await complete.receive(lambda: piece(b"x", more=False), 1)
        await asyncio.sleep(0.1)
        with pytest.raises(ApiError, match="arrive already"):
            line.enter()

    run(claim())


def test_bytes_of_all_bodies_are_bounded():
    async def claim() -> None:
        line = BodyLine("requests", 9, 1000)
        first, second = line.enter(), line.enter()
        await first.receive(lambda: piece(b"x" * 600), 1)
        with pytest.raises(ApiError, match="MB already") as told:
            await second.receive(lambda: piece(b"x" * 600), 1)
        assert told.value.status == 429 and line.nbytes == 600
        await asyncio.sleep(0.1)  # now the first one stands still
        await second.receive(lambda: piece(b"x" * 600), 1)
        assert (line.nbytes, len(line)) == (600, 1)
        second.close()
        assert line.nbytes == 0

    run(claim())


def test_time_that_is_up_is_a_timeout():
    async def claim() -> None:
        with pytest.raises(TimeoutError):
            await BodyLine("requests", 1, 1).enter().receive(never, 0.01)

    run(claim())
