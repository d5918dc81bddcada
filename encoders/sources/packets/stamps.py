"""From the time stamps of packets to video time: stray stamps, clocks that begin again, leaps.

Knows a table of packets; no file and no decoder. Headers are hints, packets are facts: nothing here
comes from a header. Decoding times rise as long as a clock runs on, whatever the order in which
pictures are shown, so a decoding time that falls back is a clock that begins again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from encoders.sources.packets.scan import MISSING, PacketTable
from encoders.sources.packets.timeline import TimelinePart

_BACK_S = 0.25  # a clock that falls back further begins again
_STRAY_S, _STRAY_PACKETS = 10.0, 64  # a leap this wide that is taken back so soon is a stray stamp
LEAP_S = 86_400.0  # a leap wider than a day is a clock's fault, and no pause in the film
# sound that begins this much earlier than the pictures shifts nothing: delays of encoders
_LATE_S, _LATE_MOST_S = 0.1, 0.5
_SHARED = 0.1  # of the pictures; fields of one picture and guesses of FFmpeg stay below
_WRAP_NEAR = 1 / 1000  # of the wrap: a clock that falls back by a wrap this exactly runs on


@dataclass(frozen=True, slots=True, eq=False)
class PictureTimes:
    """Video time of every picture, and which packet shows which picture."""

    times: np.ndarray  # [T] float64 seconds, rising
    numbers: np.ndarray  # [P] int64: the picture of each packet; -1 for none of its own
    begins: np.ndarray  # [P] int64: number of the first picture at or after the packet's stamp
    # [P] int64: the piece of each packet; within one, decoding times rise
    packet_pieces: np.ndarray
    # [T of the piece] int64 rising stamps of the pictures of each piece, without wraps
    stamps: tuple[np.ndarray, ...]
    parts: tuple[TimelinePart, ...]
    wraps: tuple[int, ...]  # ticks that the stamps of packets can lack
    step: float  # the usual seconds from one picture to the next
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Packets of one stream whose clock runs on."""

    own: np.ndarray  # [n] numbers of the packets that show pictures
    span: slice  # all packets, also those that an edit list hides
    stamps: np.ndarray  # [m] int64 of the pictures, rising
    order: tuple[int, int]  # decoding times of the first and the last packet
    place: int  # where the first packet lies in the file


def picture_times(
    table: PacketTable,
    streams: Sequence[int],
    clock: Fraction,
    origin: Callable[[int, float], int],
    wrap: int = 0,
) -> PictureTimes:
    """Times of a film whose packets all have stamps. streams: number of the first packet of each
    stream; one continues the other. origin: (stamp of the first picture, usual step in seconds) ->
    stamp of video time 0. wrap: ticks after which the container's clock begins again by design.
    """
    stamps, order = table.stamps.copy(), table.order.copy()
    turns, strays = 0, 0
    pieces: list[_Piece] = []
    for first, stop in pairwise((*streams, len(table))):
        block = slice(first, stop)
        order[block] = _filled(order[block], stamps[block], float(clock))
        if wrap:
            turns = max(turns, _unwrap(stamps[block], order[block], wrap))
        own, lost = _pieces(table, stamps, order, block, float(clock))
        pieces, strays = pieces + own, strays + lost
    if len(streams) > 1:
        pieces.sort(key=lambda piece: piece.place)
    step = _usual_step([piece.stamps for piece in pieces], clock)
    zeros = [int(piece.stamps[0]) for piece in pieces]
    zeros[0] = origin(zeros[0], step)
    wraps = tuple(wrap * turn for turn in range(turns + 1))
    return _joined(table, stamps, clock, pieces, zeros, step, wraps, strays)


def _pieces(
    table: PacketTable, stamps: np.ndarray, order: np.ndarray, block: slice, clock: float
) -> tuple[list[_Piece], int]:
    """The pieces of one stream, and the number of its pictures with stray stamps."""
    visible = np.flatnonzero(~table.hidden[block]) + block.start  # [S]
    stray = _stray(order[visible], clock)
    visible = visible[~stray]
    jumps = np.diff(order[visible]) * clock
    cuts = np.flatnonzero(jumps < -_BACK_S) + 1
    pieces = []
    for a, b in pairwise([0, *cuts.tolist(), len(visible)]):
        own = visible[a:b]
        # hidden packets before a picture: pictures may be decoded from them
        span = slice(
            int(own[0]) if a else block.start, int(visible[b]) if b < len(visible) else block.stop
        )
        ends = int(order[own[0]]), int(order[own[-1]])
        place = int(table.bytes[own[0]])
        pieces.append(_Piece(own, span, np.unique(stamps[own]), ends, place))
    return pieces, int(stray.sum())


def _joined(
    table: PacketTable, stamps: np.ndarray, clock: Fraction, pieces: list[_Piece],
    zeros: list[int], step: float, wraps: tuple[int, ...], strays: int,
) -> PictureTimes:  # fmt: skip
    count = len(table)
    numbers = np.full(count, -1, dtype=np.int64)
    begins, packet_pieces = np.zeros(count, np.int64), np.zeros(count, np.int64)
    times: list[np.ndarray] = []
    parts: list[TimelinePart] = []
    again: list[float] = []
    leaps: list[float] = []
    first = 0
    for number, piece in enumerate(pieces):
        start = parts[-1].start + parts[-1].seconds if parts else 0.0
        if number:
            jump = float((piece.order[0] - pieces[number - 1].order[1]) * clock)
            if -_BACK_S <= jump <= LEAP_S:  # another stream, the same clock
                start += float((zeros[number] - pieces[number - 1].stamps[-1]) * clock) - step
            else:
                again.append(start)
        seconds = (piece.stamps - zeros[number]) * clock.numerator / clock.denominator + start
        own_parts = _parts(table, stamps, clock, piece, seconds, zeros[number], step)
        if not number:
            own_parts[0] = replace(own_parts[0], first_byte=0)
        leaps += [part.start for part in own_parts[1:]]
        parts += own_parts
        numbers[piece.own] = first + np.searchsorted(piece.stamps, stamps[piece.own])
        begins[piece.span] = first + np.searchsorted(piece.stamps, stamps[piece.span])
        packet_pieces[piece.span] = number
        times.append(seconds)
        first += len(piece.stamps)
    joined = np.concatenate(times)
    if (np.diff(joined) <= 0).any():  # pieces that overlap by less than a restart
        joined = np.maximum.accumulate(joined) + np.arange(len(joined)) * 1e-9
    return PictureTimes(
        times=joined,
        numbers=numbers,
        begins=begins,
        packet_pieces=packet_pieces,
        stamps=tuple(piece.stamps for piece in pieces),
        parts=tuple(parts),
        wraps=wraps,
        step=step,
        notes=_notes(again, leaps, strays, sum(len(piece.own) for piece in pieces), len(joined)),
    )


def _parts(
    table: PacketTable, stamps: np.ndarray, clock: Fraction, piece: _Piece, seconds: np.ndarray,
    zero: int, step: float,
) -> list[TimelinePart]:  # fmt: skip
    """The parts of the timeline in a piece, which end at leaps. Takes the leaps out of `seconds`,
    in place. zero: stamp at the start of the piece.
    """
    leaps = np.flatnonzero(np.diff(seconds) > LEAP_S) + 1
    edges = [0, *leaps.tolist(), len(seconds)]
    for at in leaps.tolist():
        seconds[at:] += seconds[at - 1] + step - seconds[at]
    places, parts = table.bytes[piece.own], []
    which = np.searchsorted(piece.stamps[leaps], stamps[piece.own], side="right")
    for part, (a, b) in enumerate(pairwise(edges)):
        own, start = places[which == part], float(seconds[a]) if part else 0.0
        begin = int(piece.stamps[a]) if part else zero
        if not part:
            start = float(seconds[0] - (int(piece.stamps[0]) - zero) * clock)
        parts.append(
            TimelinePart(
                first_byte=int(own.min()),
                last_byte=int(own.max()),
                stream_start=float(begin * clock),
                start=start,
                seconds=float(seconds[b - 1]) - start + step,
            )
        )
    return parts


def _filled(order: np.ndarray, stamps: np.ndarray, clock: float) -> np.ndarray:
    """[S] decoding times, those that are missing taken from the neighbor before (or after).

    Without any, the highest stamp so far stands for them: pictures out of order stay within
    seconds, a clock that begins again does not.
    """
    has_order = order != MISSING
    if not has_order.any():
        high = np.maximum.accumulate(stamps)
        return high if (high - stamps).max(initial=0) * clock < _STRAY_S else stamps
    at = np.maximum.accumulate(np.where(has_order, np.arange(len(order)), -1))
    at = np.where(at < 0, np.argmax(has_order), at)
    return order[at]


def _unwrap(stamps: np.ndarray, order: np.ndarray, wrap: int) -> int:
    """Add to both, in place, what the container's clock has lost by wrapping around; -> how often
    it has.
    """
    falls = np.abs(np.diff(order) + wrap) < wrap * _WRAP_NEAR
    turns = np.append(0, np.cumsum(falls))
    order += turns * wrap
    stamps += turns * wrap
    # pictures that are shown behind the wrap and decoded before it
    stamps += np.where(stamps - order < -wrap // 2, wrap, 0)
    return int(turns[-1]) + 1


def _stray(order: np.ndarray, clock: float) -> np.ndarray:
    """[S] bool: packets whose clock leaps, and leaps back within a few packets."""
    stray = np.zeros(len(order), dtype=bool)
    jumps = np.diff(order) * clock
    odd = np.flatnonzero((jumps < -_BACK_S) | (jumps > _STRAY_S)) + 1  # [J] where a jump lands
    for number, at in enumerate(odd.tolist()):
        if stray[at] or abs(jumps[at - 1]) <= _STRAY_S:
            continue
        for back in odd[number + 1 : number + 1 + _STRAY_PACKETS].tolist():
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
    again: list[float], leaps: list[float], strays: int, packets: int, pictures: int
) -> tuple[str, ...]:
    """What the user must know. again, leaps: seconds at which a part begins."""
    texts = []
    for at, what in ((again, "begins again"), (leaps, "leaps by more than a day")):
        if at:
            times = f", {len(at)} times in all" if len(at) > 1 else ""
            texts.append(f"the file's clock {what} at {at[0]:.2f} s{times}; time goes on")
    if strays:
        texts.append(f"{strays} pictures with stray time stamps were left out")
    if packets - pictures > _SHARED * packets:
        texts.append(
            f"{packets - pictures} of {packets} pictures share a time stamp with another one"
        )
    return tuple(texts)
