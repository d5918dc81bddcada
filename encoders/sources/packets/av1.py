"""Which packets of AV1 no other picture is decoded from, by their frame headers.

Knows the first bits of sequence and frame headers (AV1 Bitstream & Decoding Process Specification,
sections 5.5.1 and 5.9.2). A decoder keeps nothing of a frame but in the slots that the frame
refreshes: pictures, motion, probabilities, and segments alike. So one that refreshes no slot can be
left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_CHOOSE = 2  # a frame says so itself


class _Bits:
    """Reads a header bit by bit; IndexError behind its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __call__(self, count: int = 1) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What a frame header's bits depend on."""

    screen_tools: int  # 0, 1, or _CHOOSE
    whole_motion: int  # 0, 1, or _CHOOSE
    order_bits: int


class Av1Frames:
    """The packets of one stream, in file order."""

    def __init__(self, extradata: bytes) -> None:
        """extradata: of the container: 4 bytes, then the sequence header, if it has one."""
        self._sequence: _Sequence | None = None
        self.is_spare(extradata[4:])

    def is_spare(self, data: bytes) -> bool:
        """True if no other packet needs this one. False where that is not sure."""
        frames = 0
        try:
            for kind, unit in _units(data):
                if kind == _SEQUENCE:
                    self._sequence = _sequence(_Bits(unit))
                    return False
                if kind in (_FRAME_HEADER, _FRAME):
                    if self._sequence is None or _refreshes(_Bits(unit), self._sequence):
                        return False
                    frames += 1
        except IndexError:
            return False
        return frames > 0


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each unit. IndexError for one that is cut off in its head."""
    at = 0
    while at < len(data):
        head, at = data[at], at + 1
        at += head >> 2 & 1  # of layers
        size, shift = 0, 0
        if not head >> 1 & 1:
            size = len(data) - at
        else:
            while True:
                byte, at = data[at], at + 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        yield head >> 3 & 15, data[at : at + size]
        at += size


def _sequence(bits: _Bits) -> _Sequence | None:
    """None for streams whose frame headers hold more than is read here: stills, layers, frame
    numbers, and models of a decoder's buffer.
    """
    bits(4)
    if bits():  # a still picture
        return None
    if bits():  # timing
        bits(64)
        if bits():
            zeros = 0
            while not bits():
                zeros += 1
            bits(zeros)
        if bits():
            return None
    has_delays = bits()
    for _ in range(bits(5) + 1):
        if bits(12):
            return None
        if bits(5) > 7:
            bits()
        if has_delays and bits():
            bits(4)
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    bits(width_bits + height_bits)
    if bits():
        return None
    bits(7)
    has_order = bits()
    bits(2 * has_order)
    screen_tools = _CHOOSE if bits() else bits()
    whole_motion = _CHOOSE
    if screen_tools:
        whole_motion = _CHOOSE if bits() else bits()
    return _Sequence(screen_tools, whole_motion, bits(3) + 1 if has_order else 0)


def _refreshes(bits: _Bits, sequence: _Sequence) -> bool:
    """Whether a later frame can be decoded from this one. True as well for a frame that only shows
    an earlier one, which may be a keyframe.
    """
    if bits():  # shows an earlier one
        return True
    kind, is_shown = bits(2), bits()
    if not is_shown:
        bits()
    if kind == _SWITCH or (kind == _KEY and is_shown):
        return True
    is_resilient = bits()
    bits()
    screen_tools = bits() if sequence.screen_tools == _CHOOSE else sequence.screen_tools
    if screen_tools and sequence.whole_motion == _CHOOSE:
        bits()
    bits(1 + sequence.order_bits)
    if kind not in (_KEY, _INTRA_ONLY) and not is_resilient:
        bits(3)
    return bits(8) != 0
