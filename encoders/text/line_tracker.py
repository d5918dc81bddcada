"""Repeated readings of the same text -> one line with a start and an end. Knows texts and times; no
pictures.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from encoders.text.lines import TextLine, clean_text, split_line
from encoders.text.ocr_worker import OcrText


@dataclass
class _OpenLine:
    text: str
    confidence: float
    box: tuple[float, float, float, float]
    start: float
    known_at: float  # second of the reading that gave the text
    read_at: float  # second of the last reading
    missed_at: float | None = None  # second of the first reading that missed it


class LineTracker:
    """State of one text span. A text continues while it is read again with at most `alike` of its
    letters different. A text that two readings miss ended where the picture changed before the
    first of them. Readings that are probably none (`plausible`) do not count.

    confidence: of the reader, below which a text is left out.
    """

    def __init__(self, video_id: str, alike: float, confidence: float = 0.0) -> None:
        self._video_id, self._alike, self._confidence = video_id, alike, confidence
        self._open: list[_OpenLine] = []
        self._lines: list[TextLine] = []

    def take(self, time: float, reading: Iterable[OcrText], changed_at: float) -> None:
        """Add the reading of the frame at `time`. changed_at: since when the picture differs from
        the one read before.
        """
        left = list(self._open)
        for text, confidence, box in plausible(reading, self._confidence):
            same = min(left, key=lambda line: edit_distance(text, line.text), default=None)
            if same is not None and edit_distance(text, same.text) <= self._alike:
                left.remove(same)
                if confidence > same.confidence + 0.02:
                    same.text, same.confidence, same.known_at = text, confidence, time
                same.box, same.read_at, same.missed_at = box, time, None
            else:
                self._open.append(_OpenLine(text, confidence, box, time, time, time))
        for line in left:
            if line.missed_at is not None:
                self._end(line, line.missed_at)
            else:
                line.missed_at = max(changed_at, line.read_at)

    def finish(self, end: float) -> tuple[TextLine, ...]:
        """All lines of the text span, which ends at `end`, in time order."""
        for line in list(self._open):
            self._end(line, end if line.missed_at is None else line.missed_at)
        return tuple(sorted(self._lines, key=lambda line: (line.start, line.box or (), line.text)))

    def _end(self, line: _OpenLine, end: float) -> None:
        self._open.remove(line)
        end = max(end, line.read_at + 1e-3)
        known_at = min(line.known_at, end)
        self._lines += split_line(
            TextLine(
                self._video_id,
                line.start,
                end,
                "ocr",
                line.text,
                known_at,
                line.confidence,
                line.box,
            )
        )


def plausible(prints: Iterable[OcrText], least: float) -> list[OcrText]:
    """Without probable misreadings: low confidence, and single letters or marks."""
    texts = []
    for text, confidence, box in prints:
        text = clean_text(text)
        letters = [c for c in text if c.isalnum()]
        if confidence >= least and (
            len(letters) >= 2 or (letters and ord(letters[0]) > 0x2E7F and confidence >= 0.9)
        ):
            texts.append((text, confidence, box))
    return texts


def edit_distance(a: str, b: str) -> float:
    """Edits per letter between two texts, ignoring case and blanks: 0 = equal, 1 = nothing in
    common.
    """
    a, b = "".join(a.casefold().split()), "".join(b.casefold().split())
    if a == b:
        return 0.0
    longest = max(len(a), len(b))
    if not a or not b or abs(len(a) - len(b)) > longest / 2:
        return 1.0
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != other))
    return row[-1] / longest
