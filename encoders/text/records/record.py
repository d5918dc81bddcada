"""One row of a file of records, checked: what was seen or said, when, and how sure that is.

Knows rows as JSON gives them; no file and no bank. Every refusal is a ValueError whose text stands
behind the place of the row, as in "line 3: it has no time".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from encoders.text.lines import clean_text

Box = tuple[float, float, float, float]

DETECTION, OCR, SPEECH = "detection", "ocr", "speech"
RECORD_KINDS = (DETECTION, OCR, SPEECH)
IMPORT_PREFIX = "import."  # of the names of imports among those of extractors
_LATE_START_S = 0.5  # a last frame may be counted a little behind the film's end
_LATE_END_S = 30.0  # recognisers fill the last stretch of sound up, Whisper to 30 s


@dataclass(frozen=True, slots=True)
class Record:
    """A thing that is seen, or words that are read or heard."""

    kind: str  # of RECORD_KINDS
    text: str  # a class, or words
    start: float  # seconds of video time
    end: float | None  # seconds; None: a moment, not a stretch
    score: float = 1.0  # 0..1
    box: Box | None = None  # left, top, right, bottom as shares of the picture


@dataclass(frozen=True, slots=True)
class RecordRules:
    """What a file does not say itself.

    length: seconds of the film. kind: of rows that name none. frame_rate: frames a second, for rows
    that count frames; 0: unknown. first_frame: number of the frame at second 0. size: width and
    height of the film's pictures in pixels, for boxes in pixels; None: unknown.
    """

    length: float
    kind: str = ""
    frame_rate: float = 0.0
    first_frame: int = 0
    size: tuple[int, int] | None = None

    def record(self, row: Any) -> Record:
        """A row as a record. ValueError for one that is wrong."""
        if not isinstance(row, Mapping):
            raise ValueError("it is no JSON object")
        kind = row.get("kind") or self.kind or (DETECTION if "class" in row else "")
        if kind not in RECORD_KINDS:
            known = ", ".join(RECORD_KINDS)
            if not kind:
                raise ValueError(f"it has no kind; add --kind, one of {known}")
            raise ValueError(f"kind {kind!r} is not known; use one of {known}")
        words = row.get("class" if kind == DETECTION else "text", row.get("text"))
        if not isinstance(words, str) or not clean_text(words):
            raise ValueError("it has no class" if kind == DETECTION else "it has no text")
        start, end = self._times(row)
        return Record(kind, clean_text(words), start, end, _score(row), self._box(row))

    def _times(self, row: Mapping[str, Any]) -> tuple[float, float | None]:
        end = None
        if row.get("start") is not None:
            start, end = _number(row, "start"), _number(row, "end")
        elif row.get("time") is not None:
            start = _number(row, "time")
        elif row.get("frame") is not None:
            if not self.frame_rate > 0:
                raise ValueError("it counts frames; add --fps, the frames per second")
            start = (_number(row, "frame") - self.first_frame) / self.frame_rate
        else:
            raise ValueError("it has no time; give time, start and end, or frame")
        latest = self.length + _LATE_START_S
        if not 0 <= start <= latest:
            raise ValueError(f"{start:g} s is outside of the film, which has {self.length:.1f} s")
        # so that a record of the last picture has a length
        start = min(start, max(self.length - 1e-3, 0.0))
        if end is None:
            return start, None
        if not end > start:
            raise ValueError(f"it ends at {end:g} s and begins at {start:g} s")
        if end > self.length + _LATE_END_S:
            raise ValueError(f"{end:g} s is outside of the film, which has {self.length:.1f} s")
        return start, min(end, max(self.length, start + 1e-3))

    def _box(self, row: Mapping[str, Any]) -> Box | None:
        sides = row.get("box")
        if sides is None:
            return None
        if not isinstance(sides, list) or len(sides) != 4 or not all(map(_is_number, sides)):
            raise ValueError("its box is not a list of four numbers")
        form, unit = row.get("box_format", "xywh"), row.get("box_unit", "pixels")
        if form not in ("xywh", "xyxy"):
            raise ValueError(f"box_format {form!r} is not known; use xywh or xyxy")
        if unit not in ("pixels", "fractions"):
            raise ValueError(f"box_unit {unit!r} is not known; use pixels or fractions")
        left, top, right, bottom = (float(side) for side in sides)
        if form == "xywh":
            right, bottom = left + right, top + bottom
        if not (left < right and top < bottom):
            raise ValueError("its box is empty")
        width, height = self._size(row) if unit == "pixels" else (1.0, 1.0)
        if unit == "pixels" and max(right, bottom) <= 1:
            raise ValueError('its box is less than a pixel; shares need "box_unit": "fractions"')
        # detectors let boxes reach a little over the edge
        if not (left < width and top < height and right > 0 and bottom > 0) or (
            right > 1.5 * width or bottom > 1.5 * height
        ):
            raise ValueError(f"its box is outside of the picture, {width:g} by {height:g}")
        shares = left / width, top / height, right / width, bottom / height
        a, b, c, d = (round(min(max(share, 0.0), 1.0), 4) for share in shares)
        return a, b, c, d

    def _size(self, row: Mapping[str, Any]) -> tuple[float, float]:
        if row.get("width") is not None:
            size = _number(row, "width"), _number(row, "height")
            if min(size) <= 0:
                raise ValueError("its width and height are no sizes")
            return size
        if self.size is None:
            raise ValueError(
                "its box is in pixels of an unknown picture; give width and height as well"
            )
        return self.size


def _score(row: Mapping[str, Any]) -> float:
    if row.get("score") is not None:
        score = _number(row, "score")
    elif _is_number(row.get("avg_logprob")):  # of Whisper: mean log probability of the words
        score = min(math.exp(min(row["avg_logprob"], 0.0)), 1.0)
    else:
        return 1.0
    if not 0 <= score <= 1:
        raise ValueError(f"score {score:g} is not between 0 and 1")
    return round(score, 4)


def _number(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    if not _is_number(value):
        raise ValueError(f"its {key} is no number")
    return float(value)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
