"""The film in units that are decoded alone. Knows packets and their pictures; no decoder."""

from dataclasses import dataclass

import numpy as np

from encoders.sources.container import Container


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The film in units that are decoded alone: from a packet that a decoder can begin with.

    A pass from the middle so decodes each picture exactly as a whole pass does.
    """

    entries: np.ndarray  # [U] number of the packet that a unit begins with
    # [U + 1] number of a unit's first picture; the last is the number of pictures
    edges: np.ndarray

    def of(self, picture: int) -> int:
        """The unit of a picture; the first one for what comes before it."""
        return max(0, int(np.searchsorted(self.edges, picture, side="right")) - 1)


def units_of(facts: Container) -> Units:
    """The units of a film; a single one where its packets have no time stamps."""
    table, pictures = facts.packets, facts.pictures
    if pictures is None:
        return Units(np.zeros(1, np.int64), np.array([0, len(facts.times)]))
    begins, can_begin = pictures.begins.copy(), table.entries.copy()
    # the first packet of each piece: nothing before it belongs to its pictures
    firsts = [0, *(np.flatnonzero(np.diff(pictures.packet_pieces)) + 1).tolist(), *facts.firsts[1:]]
    sizes = [len(stamps) for stamps in pictures.stamps]
    starts = np.cumsum([0, *sizes])
    can_begin[firsts] = True
    begins[firsts] = starts[pictures.packet_pieces[firsts]]
    # never into the next piece
    entries = np.flatnonzero(can_begin & (begins < starts[pictures.packet_pieces + 1]))
    numbers, first_of = np.unique(begins[entries], return_index=True)
    return Units(entries[first_of], np.append(numbers, len(facts.times)))
