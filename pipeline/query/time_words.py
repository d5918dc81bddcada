"""Words of time in English: numbers, units and lengths. Knows no phrase and no present moment."""

import re
from dataclasses import dataclass

Span = tuple[float, float]  # seconds: start, end

_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30,
    "forty": 40, "fifty": 50, "sixty": 60,
}  # fmt: skip
UNITS_S = {
    "second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60, "hour": 3600, "h": 3600, "day": 86400,
    "week": 604800,
}  # fmt: skip

COUNT = rf"(?:\d+(?:\.\d+)?|{'|'.join(_NUMBERS)})"
WHOLE_UNIT = r"(?:second|sec|minute|min|hour)s?"
UNIT = rf"(?:{WHOLE_UNIT}|s|h)"
DAYS = r"(?:day|week)s?"  # units that no video time is given in
LENGTH = rf"(?:{COUNT} ?{UNIT}|half an? {WHOLE_UNIT})"
_ANY_LENGTH = re.compile(
    rf"(?:(?P<count>{COUNT}) ?|(?P<half>half )?(?:an? )?)(?P<unit>{UNIT}|{DAYS})", re.IGNORECASE
)
# letters that `re.IGNORECASE` takes for i and s, and `str.lower` leaves
_FOLDED = str.maketrans({"\u0131": "i", "\u017f": "s", "\u0307": None})


def lower(text: str) -> str:
    """In lower case, as `re.IGNORECASE` compares."""
    return text.lower().translate(_FOLDED)


def length_s(text: str) -> float | None:
    """Seconds of "90 s", "half an hour", "a day" or "minute"; None where it is no length."""
    match = _ANY_LENGTH.fullmatch(text)
    if match is None:
        return None
    unit = lower(match["unit"])
    unit_s = UNITS_S[unit if unit in UNITS_S else unit.removesuffix("s")]
    if match["count"] is None:
        return unit_s * (0.5 if match["half"] else 1.0)
    count = lower(match["count"])
    return (_NUMBERS[count] if count in _NUMBERS else float(count)) * float(unit_s)


@dataclass(frozen=True, slots=True)
class TimePhrase:
    """Words of a question that name a time."""

    words: str  # as the question has them
    rest: str  # the question without them
