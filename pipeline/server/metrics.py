"""The figures that Prometheus reads at /metrics. Knows the server's parts only as functions that give a number."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.schema import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Figures:
    """One server's; several in a process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "reelbank_requests",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "reelbank_request_seconds", "Seconds until a response was complete", ["route"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "reelbank_first_token_seconds", "Seconds from a question's arrival to its first token, encoding included",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.stage = Counter(
            "reelbank_stage_seconds",
            "Seconds that answers spent in each stage",
            ["stage"],
            registry=self._registry,
        )
        self.answers = Counter(
            "reelbank_answers", "Answers given", ["shown"], registry=self._registry
        )
        self.read = Counter(
            "reelbank_visual_tokens_read",
            "Visual tokens that answers have read",
            registry=self._registry,
        )

    @contextmanager
    def answer(self) -> Iterator[Callable[[object], None]]:
        """Gives a function that is told every event of an answer (pipeline/server/answering.py)."""
        began, first = time.perf_counter(), True

        def note(event: object) -> None:
            nonlocal first
            if isinstance(event, str | Answer) and first:
                first = False
                self.first_token.observe(time.perf_counter() - began)
            if isinstance(event, Answer):
                self.answers.labels(str(event.shown).lower()).inc()
                self.read.inc(event.visual_tokens)
                for stage, seconds in event.seconds.items():
                    self.stage.labels(stage).inc(seconds)

        yield note

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A number that is asked for when it is read."""
        Gauge(f"reelbank_{name}", help_text, registry=self._registry).set_function(value)

    def counter(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """The same for a number that only grows."""
        self._registry.register(_Counted(f"reelbank_{name}", help_text, value))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class Measured:
    """An ASGI middleware that counts requests by route, not by path: what strangers ask for makes no new rows."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self._app, self._figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._figures.requests.labels(method, route, str(status)).inc()
            self._figures.seconds.labels(route).observe(time.perf_counter() - began)


class _Counted(Collector):
    def __init__(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        self._name, self._help, self._value = name, help_text, value

    def collect(self) -> list[CounterMetricFamily]:
        return [CounterMetricFamily(self._name, self._help, value=self._value())]
