"""An answer in the film's own words: the lines that answer, and how sure that is. Knows no
search."""

from dataclasses import dataclass

from encoders.text.lines import TextLine
from pipeline.config.units import format_time
from pipeline.schema import NOT_SAID


@dataclass(frozen=True, slots=True)
class Quotation:
    """The shortest stretch of lines that answers a question."""

    lines: tuple[TextLine, ...]  # of one kind, one or more, in time order
    confidence: float  # 0..1: that the film says it and that these lines do
    is_said: bool  # False: too unsure to be an answer

    @property
    def channel(self) -> str:
        """The kind of the lines."""
        return self.lines[0].kind

    @property
    def spans(self) -> tuple[tuple[float, float], ...]:
        """Start of the first line and end of the last, in seconds; () where it is not said."""
        first, last = self.lines[0], max(line.end for line in self.lines)
        return ((round(first.start, 3), round(last, 3)),) if self.is_said else ()

    @property
    def text(self) -> str:
        """Such as `00:31 "The pier was built of oak."`."""
        if not self.is_said:
            return NOT_SAID
        words = " ".join(line.text for line in self.lines)
        return f'{format_time(self.lines[0].start)} "{words}"'
