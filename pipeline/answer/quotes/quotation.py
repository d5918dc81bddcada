"""An answer in the film's own words: the lines that answer, and how sure that is. Knows no
search."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from encoders.text.lines import THINGS, TextLine
from pipeline.config.units import format_time
from pipeline.schema import NOT_SAID

_MOST_TIMES = 8  # that a text names


@dataclass(frozen=True, slots=True)
class Quotation:
    """The shortest stretch of lines that answers a question; or all lines of a thing in the
    pictures (`THINGS`), for a question about when it is there.
    """

    lines: tuple[TextLine, ...]  # of one kind, one or more, in time order
    confidence: float  # 0..1: that the film says it and that these lines do
    is_said: bool  # False: too unsure to be an answer

    @property
    def channel(self) -> str:
        """The kind of the lines."""
        return self.lines[0].kind

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """Start of the first line and end of the last, in seconds; of things, where they are seen;
        () where it is not said.
        """
        if self.channel in THINGS:
            return tuple(_merged(self.lines)) if self.is_said else ()
        first, last = self.lines[0], max(line.end for line in self.lines)
        return ((round(first.start, 3), round(last, 3)),) if self.is_said else ()

    @property
    def text(self) -> str:
        """Such as `00:31 "The pier was built of oak."`, or `dog: 00:05-00:10, 00:31-00:40`."""
        if not self.is_said:
            return NOT_SAID
        if self.channel in THINGS:
            names = dict.fromkeys(line.text.partition(",")[0] for line in self.lines)
            times = [
                f"{format_time(start)}-{format_time(end)}"
                for start, end in self.spans[:_MOST_TIMES]
            ]
            more = len(self.spans) - len(times)
            times += [f"and {more} times more"] if more > 0 else []
            return f"{', '.join(names)}: {', '.join(times)}"
        words = " ".join(line.text for line in self.lines)
        return f'{format_time(self.lines[0].start)} "{words}"'


def _merged(lines: Sequence[TextLine]) -> Iterator[tuple[float, float]]:
    """The union of the lines' stretches, rising, in seconds."""
    start, end = lines[0].start, lines[0].end
    for line in lines[1:]:
        if line.start > end:
            yield round(start, 3), round(end, 3)
            start, end = line.start, line.end
        end = max(end, line.end)
    yield round(start, 3), round(end, 3)
