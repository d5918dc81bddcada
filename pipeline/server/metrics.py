"""The metrics that Prometheus reads at /metrics. Knows the server's parts only as callbacks."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.schema import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# of a stream: key of its state, name, help; counters first
_STREAM_COUNTERS = (
    ("frames", "frames", "Frames that were sampled"),
    ("dropped", "dropped_frames", "Frames of them that were pushed out of the queue"),
    ("left_out", "left_out_frames", "Frames that were not sampled, to spare the encoder"),
    ("reconnects", "reconnects", "Times that the stream was connected to again"),
)
_STREAM_GAUGES = (
    ("healthy", "healthy", "1 while pictures come, else 0"),
    ("sampled_fps", "sampled_fps", "Frames sampled per second"),
    ("seen_until", "seen_seconds", "Video time of the newest frame that a question can see"),
    ("sealed_until", "sealed_seconds", "Video time up to which segments are on the disk"),
    (
        "longest_wait",
        "longest_wait_seconds",
        "Longest time from a frame's arrival until it was seen",
    ),
)
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one server. Each instance has its own registry."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "reelbank_requests",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "reelbank_request_seconds",
            "Seconds until a response was complete",
            ["route"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self.first_token = Histogram(
            "reelbank_first_token_seconds",
            "Seconds from a question's arrival to its first token, encoding included",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self.stage = Counter(
            "reelbank_stage_seconds",
            "Seconds that answers spent in each stage",
            ["stage"],
            registry=registry,
        )
        self.answers = Counter("reelbank_answers", "Answers given", ["shown"], registry=registry)
        self.visual_tokens = Counter(
            "reelbank_visual_tokens_read",
            "Visual tokens that answers have read",
            registry=registry,
        )

    @contextmanager
    def answer(self) -> Iterator[Callable[[object], None]]:
        """Yields a function that takes every event of an answer (pipeline/server/answering.py)."""
        start, first = time.perf_counter(), True

        def record(event: object) -> None:
            nonlocal first
            if isinstance(event, str | Answer) and first:
                first = False
                self.first_token.observe(time.perf_counter() - start)
            if isinstance(event, Answer):
                self.answers.labels(str(event.shown).lower()).inc()
                self.visual_tokens.inc(event.visual_tokens)
                for stage, seconds in event.seconds.items():
                    self.stage.labels(stage).inc(seconds)

        yield record

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Register a gauge. `value` is called at each scrape."""
        Gauge(f"reelbank_{name}", help_text, registry=self._registry).set_function(value)

    def counter(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Register a counter. `value` is called at each scrape and must never decrease."""
        self._registry.register(_CallbackCounter(f"reelbank_{name}", help_text, value))

    def text(self, streams: Sequence[Mapping[str, Any]] = ()) -> bytes:
        """All metrics in Prometheus' text format. streams: states of those that the reader may see,
        each with a name."""
        own = CollectorRegistry()
        if streams:
            own.register(_StreamCollector(streams))
        return generate_latest(self._registry) + generate_latest(own)


class MetricsMiddleware:
    """ASGI middleware that counts requests by route.

    The label is the route and not the path, so that unknown paths add no label values.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)


class _CallbackCounter(Collector):
    def __init__(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        self._name, self._help, self._value = name, help_text, value

    def collect(self) -> list[CounterMetricFamily]:
        return [CounterMetricFamily(self._name, self._help, value=self._value())]


class _StreamCollector(Collector):
    def __init__(self, states: Sequence[Mapping[str, Any]]) -> None:
        self._states = states

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for kind, rows in (
            (CounterMetricFamily, _STREAM_COUNTERS),
            (GaugeMetricFamily, _STREAM_GAUGES),
        ):
            for key, name, help_text in rows:
                family = kind(f"reelbank_stream_{name}", help_text, labels=["stream"])
                for state in self._states:
                    family.add_metric([state["name"]], float(state[key]))
                yield family
