"""Pictures of a file by PyAV: exact on every codec, container and GOP structure that was tried.

Knows the facts of a `Container` and pictures by their number; no sampling rate, no batches of a
bank and no user errors.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from encoders.sources.container import Container
from encoders.sources.decoding.scaler import Scaler
from encoders.sources.decoding.span_workers import Convert, SpanWorkers, UnitPicture
from encoders.sources.decoding.unit_decoder import UnitDecoder
from encoders.sources.decoding.units import units_of

_SILENT_PICTURES = 5  # a decoder that leaves out more than this without an error is in damage
_CALM_UNITS = 4  # without damage, until workers decode again
_WAITING = 64  # converted pictures that may wait for each worker, unless the caller says otherwise

T = TypeVar("T")
_Found = tuple[int, Callable[[], T]]  # number of a picture, and what makes its content


@dataclass(frozen=True, slots=True)
class Decoded(Generic[T]):
    """A picture that the decoder gave without complaint."""

    number: int  # of the picture in the film
    after_damage: bool  # something between the picture before and this one could not be decoded
    content: Callable[[], T]  # converts the picture, or has it ready


class PyAvReader(Generic[T]):
    """Pictures in time order. Leaves out what no wanted picture is decoded from; decodes all around
    damage, and skips from damage to the next keyframe. Never returns a picture that the decoder
    reports as damaged.

    Several workers give the same pictures as one: from a damaged unit on, the caller's thread
    decodes alone, until some units in a row are undamaged.

    After iteration, `gaps` lists what could not be decoded: (last good time, next good time or None
    if none came).
    """

    def __init__(
        self,
        facts: Container,
        convert: Convert[T],
        numbers: np.ndarray,
        *,
        workers: int = 1,
        most: int | None = None,
        hwaccel: HWAccel | None = None,
    ) -> None:
        """convert: makes what the caller needs of a picture; called by all workers. numbers: [W] of
        pictures, rising, of a pass over the whole film. most: converted pictures that may wait.
        hwaccel: the device that workers decode with; None: software. The caller's thread, which
        decodes around damage, uses software.
        """
        self._facts, self._convert, self._workers = facts, convert, workers
        self._hwaccel = hwaccel
        self._most = _WAITING * workers if most is None else most
        self._units = units_of(facts)
        self.gaps: list[tuple[float, float | None]] = []
        self._last = -1  # number of the last good picture
        self._calm = _CALM_UNITS  # units since damage
        self._gap: int | None = None  # number of the last good picture before damage
        self._wanted = np.zeros(len(facts.times), dtype=bool)
        self._wanted[numbers] = True

    def pictures(self, first: int, ahead: int | None = None) -> Generator[Decoded[T]]:
        """Good pictures in rising order: the wanted ones, and any that were decoded on the way.
        Begins with the unit of picture `first`; more pictures than wanted come around damage.
        ahead: workers decode nothing behind this picture; None: they do to the end.
        """
        self.gaps, self._gap, self._last, self._calm = [], None, -1, _CALM_UNITS
        edges = self._units.edges
        units = [
            unit
            for unit in range(self._units.of(first), len(self._units.entries))
            if self._wanted[edges[unit] : edges[unit + 1]].any()
        ]
        with ExitStack() as stack:
            decoder = self._new_decoder()
            stack.callback(decoder.close)
            workers = self._started(stack, units, ahead)
            scaler, before = Scaler(), None
            for unit in units:
                if self._gap is not None and before is not None and unit > before + 1:
                    self._close_gap(int(edges[before + 1]))
                yield from self._unit(unit, decoder, workers, scaler)
                before = unit
        if self._gap is not None or self._facts.cut_off:
            self._add_gap(self._time(self._last), None)

    @property
    def is_in_damage(self) -> bool:
        """True if the pictures behind the last one could not be decoded."""
        return self._gap is not None

    def _new_decoder(self, hwaccel: HWAccel | None = None) -> UnitDecoder:
        return UnitDecoder(self._facts, self._units, self._wanted, hwaccel)

    def _started(
        self, stack: ExitStack, units: list[int], ahead: int | None
    ) -> SpanWorkers[T] | None:
        """Workers for these units; None where the caller's thread is enough."""
        stop = len(self._units.entries) if ahead is None else self._units.of(ahead) + 1
        units = [unit for unit in units if unit < stop]
        workers = min(self._workers, len(units))
        if workers < 2 or self._facts.pictures is None:
            return None
        return stack.enter_context(
            SpanWorkers(
                units,
                self._units.edges.tolist(),
                partial(self._new_decoder, self._hwaccel),
                self._convert,
                lambda number: bool(self._wanted[number]),
                workers=workers,
                most=self._most,
            )
        )

    def _time(self, number: int) -> float:
        return float(self._facts.times[number]) if number >= 0 else -1.0

    def _close_gap(self, number: int) -> None:
        if self._gap is not None:
            self._add_gap(self._time(self._gap), self._time(number))
            self._gap = None

    def _add_gap(self, good: float, again: float | None) -> None:
        """Damage that begins where the last one did goes on: what lay between was not wanted."""
        if self.gaps and self.gaps[-1][0] == good:
            self.gaps.pop()
        self.gaps.append((good, again))

    def _unit(
        self, unit: int, decoder: UnitDecoder, workers: SpanWorkers[T] | None, scaler: Scaler
    ) -> Iterator[Decoded[T]]:
        def content(frame: av.VideoFrame) -> Callable[[], T]:
            return partial(self._convert, frame, scaler)

        is_damaged = True
        if workers is not None and unit in workers.units:
            # damage can stay in a decoder, and the one of this thread has it as with one worker
            is_calm = self._calm >= _CALM_UNITS
            for item in workers.pictures(unit):
                if isinstance(item, bool):
                    is_damaged = item or not is_calm
                elif is_calm:
                    yield from self._numbered(item.number, self._ready(item, content))
        if is_damaged and self._facts.pictures is not None:
            for number, frame in decoder.pictures(unit):
                yield from self._numbered(number, content(frame))
            is_damaged = decoder.is_damaged
        self._calm = 0 if is_damaged else self._calm + 1
        if is_damaged:
            for number, frame in self._careful(decoder, unit):
                yield from self._numbered(number, content(frame))

    def _ready(
        self, item: UnitPicture[T], content: Callable[[av.VideoFrame], Callable[[], T]]
    ) -> Callable[[], T]:
        if item.frame is not None:
            return content(item.frame)
        return partial(_content, item)

    def _numbered(self, number: int, content: Callable[[], T]) -> Iterator[Decoded[T]]:
        if number <= self._last:
            return
        after_damage = self._gap is not None
        self._close_gap(number)
        self._last = number
        yield Decoded(number, after_damage, content)

    def _careful(self, decoder: UnitDecoder, unit: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """All good pictures of a unit. What lies between damage and the next keyframe is lost."""
        pictures, count = self._facts.pictures, 0
        first = int(self._units.edges[unit])
        end = len(self._facts.packets) if pictures is None else decoder.stop_of(unit)
        last = self._last
        for frame, packet in self._whole(decoder, unit, end):
            if frame is None:
                self._gap = last if self._gap is None else self._gap
                continue
            number = count if pictures is None else decoder.number(frame, unit)
            count += 1
            if number is None or number <= last or number < packet:
                continue
            if number - last > _SILENT_PICTURES and last >= first:
                self._gap = last if self._gap is None else self._gap
            last = number
            if number < len(self._facts.times):
                yield number, frame

    def _whole(
        self, decoder: UnitDecoder, unit: int, stop: int
    ) -> Iterator[tuple[av.VideoFrame | None, int]]:
        """Undamaged frames up to packet `stop`, each with the number of the first picture that can
        be good; None where frames were lost.
        """
        first, pictures = int(self._units.edges[unit]), self._facts.pictures
        feed = decoder.feed(unit)
        coder = feed.coder
        if coder.is_open:
            coder.flush_buffers()
        waiting, floor = False, first
        try:
            for at, packet in feed.packets(int(self._units.entries[unit]), stop):
                if pictures is not None and 0 <= pictures.numbers[at] < first:
                    continue
                if waiting and not packet.is_keyframe:
                    continue
                if waiting:
                    # earlier pictures depend on lost ones
                    waiting, floor = False, int(pictures.begins[at]) if pictures is not None else 0
                try:
                    frames = coder.decode(packet)
                except av.FFmpegError:
                    waiting = True
                    frames = self._drain(coder)
                for frame in frames:
                    if frame.is_corrupt:
                        waiting = True
                    else:
                        yield frame, floor
                if waiting:
                    self._drain(coder)
                    yield None, floor
        except av.FFmpegError:
            yield None, floor
            return
        for frame in self._drain(coder):
            yield (None if frame.is_corrupt else frame), floor

    @staticmethod
    def _drain(coder: "av.VideoCodecContext") -> list[av.VideoFrame]:
        """The pictures that the decoder still holds back; resets the decoder for a new start."""
        try:
            delayed = coder.decode(None)
        except av.FFmpegError:
            delayed = []
        coder.flush_buffers()
        return delayed


def _content(item: UnitPicture[T]) -> T:
    """Of a wanted picture. A picture on the way to it that is no unit's first answers nothing."""
    assert item.content is not None
    return item.content
