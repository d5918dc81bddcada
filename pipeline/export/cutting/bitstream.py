"""Packets of two encoders in one track: what has to stand between them, and in which form.

H.264 and H.265 packets lean on parameter sets. Those of the film stand in the head of its track,
where a second encoder's cannot: they come along in the packets instead, under numbers of their own
(H.264), or are sent again at every seam (H.265). ITU-T H.264 7.3 and H.265 7.3; ISO/IEC 14496-15.
Knows bytes; no film and no time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_START_CODE = b"\x00\x00\x00\x01"
_H264_IDR, _H264_SPS, _H264_PPS = 5, 7, 8
_H265_ENTRIES = range(16, 22)  # BLA, IDR and CRA
_H265_SETS = (32, 33, 34)  # VPS, SPS, PPS
_H265_END = b"\x48\x01"  # end of sequence: the next picture leans on nothing before it
_H264_MOST = 31  # numbers of sequence parameter sets end here


@dataclass(frozen=True, slots=True)
class Bitstream:
    """The form of a track's packets."""

    codec: str
    length_bytes: int  # before each NAL unit; 0: start codes (Annex B)
    sets: tuple[bytes, ...]  # parameter sets, or sequence headers, of the head

    @classmethod
    def of(cls, codec: str, extradata: bytes | None) -> "Bitstream | None":
        """The form of a track by its head; None where packets of a second encoder cannot stand in
        it."""
        head = extradata or b""
        match codec:
            case "h264" if head[:1] == b"\x01" and len(head) > 6:
                return cls(codec, (head[4] & 3) + 1, tuple(_sets_of_avcc(head)))
            case "hevc" if head[:1] == b"\x01" and len(head) > 22:
                return cls(codec, (head[21] & 3) + 1, tuple(_sets_of_hvcc(head)))
            case "h264":
                kinds: tuple[int, ...] = (_H264_SPS, _H264_PPS)
                sets = [unit for unit in split(head, 0) if unit[0] & 31 in kinds]
                return cls(codec, 0, tuple(sets))
            case "hevc":
                sets = [unit for unit in split(head, 0) if unit[0] >> 1 & 63 in _H265_SETS]
                return cls(codec, 0, tuple(sets))
            case "av1":
                return cls(codec, 0, (head[4:],) if head[:1] == b"\x81" else ())
            case "vp8" | "vp9":
                return cls(codec, 0, ())
        return None

    @property
    def free_number(self) -> int:
        """The highest number that no sequence parameter set of H.264 has."""
        used = {_set_number(unit) for unit in self.sets if unit[0] & 31 == _H264_SPS}
        return max(set(range(_H264_MOST + 1)) - used)

    def can_follow(self, packet: bytes) -> bool:
        """Whether a decoder can begin with a packet behind pictures of another encoder."""
        units = split(packet, self.length_bytes)
        match self.codec:
            case "h264":
                return any(unit[0] & 31 == _H264_IDR for unit in units)
            case "hevc":
                return any(unit[0] >> 1 & 63 in _H265_ENTRIES for unit in units)
        return True

    def encoded(self, packet: bytes, *, is_last: bool) -> bytes:
        """A packet of the second encoder in the form of the track. is_last: before the film's own
        packets."""
        if self.codec not in ("h264", "hevc"):
            return packet
        units = list(split(packet, 0))
        if is_last and self.codec == "hevc":
            units.append(_H265_END)
        return joined(units, self.length_bytes)

    def copied(self, packet: bytes) -> bytes:
        """The film's own packet, the first one behind those of the second encoder."""
        match self.codec:
            case "hevc":
                return joined(self.sets, self.length_bytes) + packet
            case "av1":
                return b"".join(self.sets) + packet
        return packet


def split(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """The NAL units of a packet. length_bytes: before each; 0: start codes. A unit that is longer
    than the packet ends them."""
    if not length_bytes:
        for unit in data.split(b"\x00\x00\x01")[1:]:
            if unit := unit.rstrip(b"\x00"):
                yield unit
        return
    at = 0
    while at + length_bytes < len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        if not 0 < size <= len(data) - at:
            return
        yield data[at : at + size]
        at += size


def joined(units: Sequence[bytes], length_bytes: int) -> bytes:
    """NAL units as one packet."""
    heads = (
        len(one).to_bytes(length_bytes, "big") if length_bytes else _START_CODE for one in units
    )
    return b"".join(head + unit for head, unit in zip(heads, units, strict=True))


def _sets_of_avcc(head: bytes) -> Iterator[bytes]:
    """The parameter sets of an AVCDecoderConfigurationRecord."""
    at = 5
    for mask in (31, 255):
        if at >= len(head):
            return
        count, at = head[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(head[at : at + 2], "big")
            yield head[at + 2 : at + 2 + size]
            at += 2 + size


def _sets_of_hvcc(head: bytes) -> Iterator[bytes]:
    """The parameter sets of an HEVCDecoderConfigurationRecord."""
    at = 23
    for _ in range(head[22]):
        kind, count = head[at] & 63, int.from_bytes(head[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(head[at : at + 2], "big")
            if kind in _H265_SETS:
                yield head[at + 2 : at + 2 + size]
            at += 2 + size


def _set_number(unit: bytes) -> int:
    """The number of a sequence parameter set of H.264: an Exp-Golomb code behind four bytes."""
    bits = "".join(f"{byte:08b}" for byte in unit[4:12])
    zeros = len(bits) - len(bits.lstrip("0"))
    return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1
