"""Notices as server-sent events, from the newest or from where a client stopped reading.

Knows the store and the form of events; no route.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

from pipeline.alerts.alert_store import AlertStore
from pipeline.alerts.schema import Notice

_POLL_S = 0.5
_HEARTBEAT_S = 15.0  # a proxy closes a connection on which nothing comes for a minute


async def notice_events(
    store: AlertStore,
    after: int | None,
    has_gone: Callable[[], Awaitable[bool]],
    may_see: Callable[[Notice], bool] = lambda notice: True,
) -> AsyncGenerator[str]:
    """Yield an event for each notice, with its number as the id, and a comment now and then.

    after: number of the last notice that the client has (the header Last-Event-ID); None: only new
    ones come. has_gone: whether the client hung up, or the server ends. may_see: whether the client
    gets a notice; the others are passed over.
    """
    last = await asyncio.to_thread(lambda: store.newest) if after is None else after
    quiet_s = 0.0
    yield "retry: 2000\n\n"
    while not await has_gone():
        notices = await asyncio.to_thread(store.notices, last)
        for notice in notices:
            last = notice.number
            if may_see(notice):
                yield f"id: {last}\nevent: alert\ndata: {json.dumps(notice.body)}\n\n"
        if notices:
            quiet_s = 0.0
            continue
        await asyncio.sleep(_POLL_S)
        quiet_s += _POLL_S
        if quiet_s >= _HEARTBEAT_S:
            quiet_s = 0.0
            yield ": here\n\n"
