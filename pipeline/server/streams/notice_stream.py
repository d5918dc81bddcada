"""Notices of alerts as a response of server-sent events, which ends when the server does."""

import threading
from collections.abc import AsyncGenerator, Callable

from fastapi import Request
from fastapi.responses import StreamingResponse

from pipeline.alerts.alert_store import AlertStore
from pipeline.alerts.notice_events import notice_events
from pipeline.alerts.schema import Notice
from pipeline.server.access.doorkeeper import stays_admitted
from pipeline.server.errors import ApiError
from pipeline.server.intake.protocol import ENDLESS

_MOST = 64  # clients that listen at a time
_listening = threading.BoundedSemaphore(_MOST)


def notice_stream(
    request: Request, store: AlertStore, may_see: Callable[[Notice], bool] = lambda notice: True
) -> StreamingResponse:
    """Notices from now on, or behind the header Last-Event-ID, until the client hangs up or its key
    is revoked. may_see: which ones.

    ApiError 400 where the header is no number, 429 where too many listen.
    """
    after = request.headers.get("last-event-id")
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 16):
        raise ApiError(400, "Last-Event-ID is the number of a notice.")
    if not _listening.acquire(blocking=False):
        raise ApiError(429, f"{_MOST} clients listen for notices already.", retry_after=30)
    request.scope.setdefault("state", {})[ENDLESS] = True

    async def has_gone() -> bool:
        return await request.is_disconnected() or not stays_admitted(request.scope)

    return _NoticeStream(
        notice_events(store, None if after is None else int(after), has_gone, may_see),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


class _NoticeStream(StreamingResponse):
    """Gives its place back however the response ends."""

    body_iterator: AsyncGenerator[str]

    async def __call__(self, *args: object) -> None:
        try:
            await super().__call__(*args)  # type: ignore[arg-type]
        finally:
            _listening.release()
            await self.body_iterator.aclose()
