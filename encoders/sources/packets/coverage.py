"""Stretches of a file that no packet comes from: a demuxer that loses its place goes on in silence.

Knows a container's packets of all streams, and sizes; nothing of pictures.
"""

from array import array

import av
import av.container
import numpy as np

from encoders.sources.packets.scan import PacketTable, demux

_SHARE = 0.05  # of the file; heads, indexes and other tracks are smaller in films that are whole
_OVERHEAD = 1.15  # of a container that cuts packets into small pieces with heads of their own

_KNOWN = 0.9  # of the packets say where they lie
_LEAST = {"asf": 2 * 3200}  # bytes: a container of pieces of this size fills up the last one
_TIMES = 4  # a packet that is so much larger than any other one is damaged

Stretch = tuple[int, int]  # first byte, end


def may_have_holes(table: PacketTable, size: int, kind: str) -> bool:
    """True if the pictures leave a large stretch open. size: of the file, in bytes; kind: FFmpeg's
    name of the format.
    """
    return bool(_holes(table.bytes, table.sizes, size, _LEAST.get(kind, 0)))


def holes(container: "av.container.InputContainer", size: int) -> list[Stretch]:
    """Stretches larger than a twentieth of the file that no stream has a packet in. Reads all
    packets from where the container stands.
    """
    least = _LEAST.get(container.format.name, 0)
    places, sizes = array("q"), array("q")
    try:
        for packet in demux(container, *container.streams):
            places.append(-1 if packet.pos is None else packet.pos)
            sizes.append(packet.size)
    except av.FFmpegError:
        pass  # the packets so far count
    return _holes(np.array(places, dtype=np.int64), np.array(sizes, dtype=np.int64), size, least)


def _holes(places: np.ndarray, sizes: np.ndarray, size: int, least: int) -> list[Stretch]:
    has_place = places >= 0
    if np.count_nonzero(has_place) < _KNOWN * len(places):
        return []  # several packets share a piece, and only the first says where it lies
    order = np.argsort(places[has_place], kind="stable")
    starts, lengths = places[has_place][order], sizes[has_place][order]
    if not len(starts):
        return []
    if len(lengths) > 2:  # a size that is damaged covers what it does not hold
        lengths = np.minimum(lengths, _TIMES * int(np.partition(lengths, -2)[-2]))
    ends = np.maximum.accumulate(starts + (lengths * _OVERHEAD).astype(np.int64))
    # also before the first packet
    ends, following = np.append(0, ends), np.append(starts, size)
    wide = np.flatnonzero(following - ends > max(_SHARE * size, least))
    return [(int(ends[at]), int(following[at])) for at in wide]
