"""The role that ranks lines of text by reading all of them. Knows no model and no bank."""

from collections.abc import Iterable
from typing import Protocol

from encoders.text.lines import TextLine
from memory.text.bm25 import RankedLine


class LineScan(Protocol):
    """Lines -> the best of them for a question; any number of lines, in bounded memory."""

    def rank(self, question: str, lines: Iterable[TextLine], most: int) -> list[RankedLine]:
        """At most `most` of the lines, best first. lines: read once, in order.

        `score` and `coverage` of a line are comparable within one call alone.
        """
        ...
