"""From the time stamps of packets to video time: stray stamps, clocks that begin again, leaps.

Knows a table of packets; no file and no decoder. Headers are hints, packets are facts: nothing here
comes from a header. Decoding times rise as long as a clock runs on, whatever the order in which
pictures are shown, so a decoding time that falls back is a clock that begins again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from encoders.sources.packet_scan import MISSING, PacketTable
from encoders.sources.timeline import TimelinePart

_BACK_S = 0.25  # a clock that falls back further begins again
_STRAY_S, _STRAY_PACKETS = 10.0, 64  # a leap this wide that is taken back so soon is a stray stamp
LEAP_S = 86_400.0  # a leap wider than a day is a clock's fault, and no pause in the film
# sound that begins this much earlier than the pictures shifts nothing: delays of encoders
_LATE_S, _LATE_MOST_S = 0.1, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class PictureTimes:
    """Video time of every picture, and which packet shows which picture."""

    times: np.ndarray  # [T] float64 seconds, rising
    numbers: np.ndarray  # [P] int64: the picture of each packet; -1 for none of its own
    begins: np.ndarray  # [P] int64: number of the first picture at or after the packet's stamp
    packet_parts: np.ndarray  # [P] int64: part of each packet
    # [T of the part] int64 rising stamps of the pictures of each part
    stamps: tuple[np.ndarray, ...]
    parts: tuple[TimelinePart, ...]
    step: float  # the usual seconds from one picture to the next
    notes: tuple[str, ...]


def picture_times(
    table: PacketTable, clock: Fraction, origin: Callable[[int, float], int]
) -> PictureTimes:
    """Times of a stream whose packets all have stamps. origin: (stamp of the first picture, usual
    step in seconds) -> stamp of video time 0.
    """
    shown = np.flatnonzero(~table.hidden)  # [S]
    order = _filled(table.order[shown], table.stamps[shown], float(clock))  # [S]
    good = ~_stray(order, float(clock))
    strays = len(good) - int(good.sum())
    shown, order = shown[good], order[good]
    jumps = np.diff(order) * float(clock)
    begins_again, leaps = jumps < -_BACK_S, jumps > LEAP_S
    edges = [0, *(np.flatnonzero(begins_again | leaps) + 1).tolist(), len(shown)]
    every = [np.unique(table.stamps[shown[a:b]]) for a, b in pairwise(edges)]
    step = _usual_step(every, clock)
    zeros = [int(stamps[0]) for stamps in every]
    zeros[0] = origin(zeros[0], step)
    return _joined(
        table, clock, shown, edges, every, zeros, step, _notes(begins_again, leaps, strays)
    )


def _joined(
    table: PacketTable, clock: Fraction, shown: np.ndarray, edges: list[int],
    every: list[np.ndarray], zeros: list[int], step: float,
    named: Callable[[list[float]], tuple[str, ...]],
) -> PictureTimes:  # fmt: skip
    times, parts, start, first = [], [], 0.0, 0
    count = len(table)
    numbers = np.full(count, -1, dtype=np.int64)
    begins, packet_parts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for part, stamps in enumerate(every):
        own = shown[edges[part] : edges[part + 1]]
        # also the hidden packets up to the next part: pictures may be decoded from them
        stop = int(shown[edges[part + 1]]) if part + 1 < len(every) else count
        span = slice(int(own[0]) if part else 0, stop)
        seconds = (stamps - zeros[part]) * clock.numerator / clock.denominator + start
        numbers[own] = first + np.searchsorted(stamps, table.stamps[own])
        begins[span] = first + np.searchsorted(stamps, table.stamps[span])
        packet_parts[span] = part
        times.append(seconds)
        places = table.bytes[own]
        parts.append(
            TimelinePart(
                first_byte=int(places.min()) if part else 0,
                last_byte=int(places.max()),
                stream_start=float(zeros[part] * clock),
                start=start,
                seconds=float(seconds[-1]) - start + step,
            )
        )
        start, first = float(seconds[-1]) + step, first + len(stamps)
    return PictureTimes(
        times=np.concatenate(times),
        numbers=numbers,
        begins=begins,
        packet_parts=packet_parts,
        stamps=tuple(every),
        parts=tuple(parts),
        step=step,
        notes=named([part.start for part in parts[1:]]),
    )


def _filled(order: np.ndarray, stamps: np.ndarray, clock: float) -> np.ndarray:
    """[S] decoding times, those that are missing taken from the neighbor before (or after).

    Without any, the highest stamp so far stands for them: pictures out of order stay within
    seconds, a clock that begins again does not.
    """
    known = order != MISSING
    if not known.any():
        high = np.maximum.accumulate(stamps)
        return high if (high - stamps).max(initial=0) * clock < _STRAY_S else stamps
    at = np.maximum.accumulate(np.where(known, np.arange(len(order)), -1))
    at = np.where(at < 0, np.argmax(known), at)
    return order[at]


def _stray(order: np.ndarray, clock: float) -> np.ndarray:
    """[S] bool: packets whose clock leaps, and leaps back within a few packets."""
    stray = np.zeros(len(order), dtype=bool)
    jumps = np.diff(order) * clock
    odd = np.flatnonzero((jumps < -_BACK_S) | (jumps > _STRAY_S)) + 1  # [J] where a jump lands
    for number, at in enumerate(odd.tolist()):
        if stray[at] or abs(jumps[at - 1]) <= _STRAY_S:
            continue
        for back in odd[number + 1 :].tolist():
            if back - at > _STRAY_PACKETS:
                break
            if -_BACK_S < (order[back] - order[at - 1]) * clock < _STRAY_S:
                stray[at:back] = True
                break
    return stray


def _usual_step(every: list[np.ndarray], clock: Fraction) -> float:
    """The median seconds between neighbors; 0 for a single picture."""
    steps = np.concatenate([np.diff(stamps) for stamps in every])
    return float(np.median(steps) * float(clock)) if len(steps) else 0.0


def late_start(step: float) -> float:
    """Seconds by which pictures may follow the sound without a shift of time."""
    return min(max(_LATE_S, 2 * step), _LATE_MOST_S)


def _notes(
    begins_again: np.ndarray, leaps: np.ndarray, strays: int
) -> Callable[[list[float]], tuple[str, ...]]:
    """-> a function from the seconds at which parts begin to what the user must know."""
    kinds = leaps[begins_again | leaps]  # [parts - 1]: True for a leap

    def named(starts: list[float]) -> tuple[str, ...]:
        texts = []
        for is_leap, what in ((False, "begins again"), (True, "leaps by more than a day")):
            at = [start for start, kind in zip(starts, kinds, strict=True) if kind == is_leap]
            if at:
                times = f", {len(at)} times in all" if len(at) > 1 else ""
                texts.append(f"the file's clock {what} at {at[0]:.2f} s{times}; time goes on")
        if strays:
            texts.append(f"{strays} pictures with stray time stamps were left out")
        return tuple(texts)

    return named
