"""Several units of a film decoded at once, each by one thread, in time order for the caller.

FFmpeg computes without Python's lock, so threads use all cores. A decoder gives a unit the same
bits whoever runs it, as each unit is decoded alone by one thread of FFmpeg; threads within a
decoder would lose pictures around damage.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, TypeVar

import av

from encoders.sources.decoding.scaler import Scaler
from encoders.sources.decoding.unit_decoder import UnitDecoder

T = TypeVar("T")

Convert = Callable[[av.VideoFrame, Scaler], T]

# pictures that a worker takes at once, at least: units of one picture are not worth the way
_SPAN_PICTURES = 64
_SOON = 4  # pictures that may always wait of the span that the caller reads


@dataclass(frozen=True, slots=True)
class UnitPicture(Generic[T]):
    """A picture that a worker decoded."""

    number: int
    content: T | None  # of a wanted picture
    # of the first picture of a unit, if that is not wanted: it may answer for a lost one
    frame: av.VideoFrame | None

    @property
    def is_light(self) -> bool:
        """True for a number alone."""
        return self.content is None and self.frame is None


@dataclass(slots=True, eq=False)
class _Span(Generic[T]):
    """Units that one worker decodes, and what it has decoded."""

    units: Sequence[int]
    # pictures, and behind those of a unit whether it is damaged
    ready: deque[UnitPicture[T] | bool] = field(default_factory=deque)
    waiting: int = 0  # pictures of `ready` that are not light
    error: BaseException | None = None


class SpanWorkers(Generic[T]):
    """`with SpanWorkers(...) as workers: workers.pictures(unit)`, for each of `units` in order.

    At most `most` pictures wait, and a few more of the unit that the caller reads.
    """

    def __init__(
        self,
        units: Sequence[int],
        edges: Sequence[int],
        decoder: Callable[[], UnitDecoder],
        convert: Convert[T],
        wants: Callable[[int], bool],
        *,
        workers: int,
        most: int,
    ) -> None:
        """units: rising. edges: first picture of every unit of the film. decoder: makes one for a
        thread. wants: whether the picture of this number is converted.
        """
        self._decoder, self._convert, self._wants, self._most = decoder, convert, wants, most
        self.units = frozenset(units)
        self._spans: Iterator[_Span[T]] = _spans(units, edges)
        self._taken: deque[_Span[T]] = deque()  # in order; the first is the caller's
        self._changed = threading.Condition()
        self._waiting, self._stops = 0, False
        self._threads = [
            threading.Thread(target=self._run, name=f"decoder-{number}", daemon=True)
            for number in range(workers)
        ]

    def __enter__(self) -> "SpanWorkers[T]":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stops = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def pictures(self, unit: int) -> Iterator[UnitPicture[T] | bool]:
        """The pictures of a unit, then whether it showed a sign of damage. Ask for the units in
        order. Raises what stopped the worker.
        """
        while True:
            item = self._next(unit)
            yield item
            if isinstance(item, bool):
                return

    def _next(self, unit: int) -> UnitPicture[T] | bool:
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._taken)
                span = self._taken[0]
                if span.units[-1] >= unit:
                    break
                self._taken.popleft()  # all of it was read
                self._changed.notify_all()
            self._changed.wait_for(lambda: span.ready or span.error is not None)
            if not span.ready:
                assert span.error is not None
                raise span.error
            item = span.ready.popleft()
            if not isinstance(item, bool) and not item.is_light:
                span.waiting, self._waiting = span.waiting - 1, self._waiting - 1
                self._changed.notify_all()
            return item

    def _run(self) -> None:
        scaler = Scaler()
        with ExitStack() as stack:
            decoder: UnitDecoder | None = None
            while True:
                with self._changed:
                    span = None if self._stops else next(self._spans, None)
                    if span is None:
                        return
                    self._taken.append(span)
                    self._changed.notify_all()
                try:
                    if decoder is None:  # made with a span at hand, so that its error has a reader
                        decoder = stack.enter_context(closing(self._decoder()))
                    for item in self._decoded(span, decoder, scaler):
                        if not self._put(span, item):
                            return
                except BaseException as error:  # raised again in the caller's thread
                    with self._changed:
                        span.error = error
                        self._changed.notify_all()

    def _decoded(
        self, span: _Span[T], decoder: UnitDecoder, scaler: Scaler
    ) -> Iterator[UnitPicture[T] | bool]:
        for unit in span.units:
            is_first = True
            for number, frame in decoder.pictures(unit):
                content = self._convert(frame, scaler) if self._wants(number) else None
                spare = frame if is_first and content is None else None
                yield UnitPicture(number, content, spare)
                is_first = False
            yield decoder.is_damaged

    def _put(self, span: _Span[T], item: UnitPicture[T] | bool) -> bool:
        """Hand over an item once there is room. False if nobody waits for it any more."""

        def has_room() -> bool:
            is_read = bool(self._taken) and self._taken[0] is span
            return self._waiting < self._most or (is_read and span.waiting < _SOON)

        is_light = isinstance(item, bool) or item.is_light
        with self._changed:
            self._changed.wait_for(lambda: self._stops or is_light or has_room())
            if self._stops:
                return False
            span.ready.append(item)
            if not is_light:
                span.waiting, self._waiting = span.waiting + 1, self._waiting + 1
            self._changed.notify_all()
        return True


def _spans(units: Sequence[int], edges: Sequence[int]) -> Iterator[_Span[T]]:
    """Consecutive ones of the units together, until they have enough pictures."""
    span: list[int] = []
    pictures = 0
    for unit in units:
        span.append(unit)
        pictures += edges[unit + 1] - edges[unit]
        if pictures >= _SPAN_PICTURES:
            yield _Span(span)
            span, pictures = [], 0
    if span:
        yield _Span(span)
