"""Work for a request that ends when its client has gone, or its time is up.

Knows requests and threads; no route.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from pipeline.server.admission import Ticket
from pipeline.server.errors import ApiError

_T = TypeVar("_T")


async def unless_disconnected(request: Request, working: Coroutine[Any, Any, _T]) -> _T:
    """The result. ApiError 499, after cancelling the work, when the client disconnects. Call it
    when the body was read."""
    task = asyncio.ensure_future(working)

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    disconnect = asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise ApiError(499, "The client has gone.")
        return task.result()
    finally:
        disconnect.cancel()
        if not task.done():
            task.cancel()


async def in_thread(
    request: Request, ticket: Ticket, seconds: float, work: Callable[[threading.Event], _T]
) -> _T:
    """What `work` returns in a thread, which releases the ticket. It gets an event, and ends soon
    after that is set: when the client is gone (ApiError 499), and after `seconds` (504)."""
    cancelled = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(None, work, cancelled)
    ticket.transferred = True

    def end(done: asyncio.Future[_T]) -> None:
        ticket.release()
        # nobody may be left to read it, and asyncio would log it as an accident
        if not done.cancelled():
            done.exception()

    future.add_done_callback(end)

    async def wait() -> _T:
        try:
            return await asyncio.wait_for(asyncio.shield(future), seconds)
        except TimeoutError:
            raise ApiError(
                504, f"The request took longer than {seconds:g} s.", retry_after=5
            ) from None

    try:
        return await unless_disconnected(request, wait())
    finally:
        cancelled.set()
