"""The same print in one reading after another -> one line with a beginning and an end. Knows texts and times; no pictures."""

from collections.abc import Iterable
from dataclasses import dataclass

from encoders.text.lines import TextLine, cleaned, lines_of
from encoders.text.ocr_worker import Print


@dataclass
class _Shown:
    text: str
    confidence: float
    box: tuple[float, float, float, float]
    start: float
    known: float  # when the text was read as it is now
    seen: float  # when it was read last
    gone: float | None = None  # when a reading first missed it


class Repeats:
    """State of one stretch. A text that is read again with at most `alike` of its letters different goes on; one that two
    readings miss has ended where the picture changed before the first of them."""

    def __init__(self, video_id: str, alike: float) -> None:
        self._video_id, self._alike = video_id, alike
        self._shown: list[_Shown] = []
        self._ended: list[TextLine] = []

    def take(self, time: float, prints: Iterable[Print], changed_at: float) -> None:
        """A reading of the frame at `time`; changed_at: since when the picture was not the one that was read before."""
        left = list(self._shown)
        for text, confidence, box in prints:
            same = min(left, key=lambda shown: distance(text, shown.text), default=None)
            if same is not None and distance(text, same.text) <= self._alike:
                left.remove(same)
                if confidence > same.confidence + 0.02:
                    same.text, same.confidence, same.known = text, confidence, time
                same.box, same.seen, same.gone = box, time, None
            else:
                self._shown.append(_Shown(text, confidence, box, time, time, time))
        for shown in left:
            if shown.gone is not None:
                self._end(shown, shown.gone)
            else:
                shown.gone = max(changed_at, shown.seen)

    def finish(self, end: float) -> tuple[TextLine, ...]:
        """All lines of the stretch, which is over at `end`, in time order."""
        for shown in list(self._shown):
            self._end(shown, end if shown.gone is None else shown.gone)
        return tuple(sorted(self._ended, key=lambda line: (line.start, line.box or (), line.text)))

    def _end(self, shown: _Shown, end: float) -> None:
        self._shown.remove(shown)
        end = max(end, shown.seen + 1e-3)
        known = min(shown.known, end)
        self._ended += lines_of(
            TextLine(
                self._video_id,
                shown.start,
                end,
                "ocr",
                shown.text,
                known,
                shown.confidence,
                shown.box,
            )
        )


def telling(prints: Iterable[Print], least: float) -> list[Print]:
    """Without what is probably no print: unsure readings, and single letters or marks."""
    found = []
    for text, confidence, box in prints:
        text = cleaned(text)
        letters = [c for c in text if c.isalnum()]
        if confidence >= least and (
            len(letters) >= 2 or (letters and ord(letters[0]) > 0x2E7F and confidence >= 0.9)
        ):
            found.append((text, confidence, box))
    return found


def distance(a: str, b: str) -> float:
    """Edits per letter between two texts, without case and blanks: 0 the same, 1 nothing in common."""
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
