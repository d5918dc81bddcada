"""Times in a question, as people say them: "yesterday at noon", "in the last ten minutes", "between 12:00 and 12:30".

Finds the phrase, says which stretch of wall-clock time it means, and leaves the rest of the question to the model, which knows
no clock. Knows no bank and no video. English; what it does not know it leaves in the question.

A moment without an end ("at noon", "at 14:05") means a quarter of an hour either way for round words and a minute for clock
times. Local time. Where a day is not named, it is the latest one on which the time is over or has begun. "Before noon" begins
with that day, "after noon" goes on until now.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

_WORDS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
}  # fmt: skip
_UNITS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86400}
_PARTS = {"morning": (5, 12), "afternoon": (12, 18), "evening": (18, 23), "night": (0, 6)}  # hours
_POINTS = {"noon": time(12), "midday": time(12), "midnight": time(0)}
_AROUND = timedelta(minutes=15)

_COUNT = rf"(?P<count>\d{{1,4}}|{'|'.join(_WORDS)}|half an|half a)"
_UNIT = rf"(?P<unit>{'|'.join(_UNITS)})s?"
_DAY = r"(?P<day>today|yesterday|the day before yesterday)"
_PART = rf"(?P<part>{'|'.join(_PARTS)})"
_CLOCK = (
    r"(?P<{0}>\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?: ?[ap]m)?|\d{{1,2}} ?[ap]m|noon|midday|midnight)"
)
_FROM, _TO, _AT = (_CLOCK.format(name) for name in ("from_", "to", "at"))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A stretch of time that a question names."""

    since: float  # Unix seconds
    until: float
    said: str  # the words that name it
    rest: str  # the question without them
    dated: bool  # a day or a distance from now is named; if not, it is a time of day
    # digits alone, such as 12:30: in a question about a video this may be a time of the video
    bare: bool


def find(text: str, now: float, on: date | None = None) -> Phrase | None:
    """The first phrase of time in a question asked at `now` (Unix seconds), or None. What is still to come counts up to
    `now`; a stretch that lies in the future altogether is none. on: the day that is meant where none is named; a time of that
    day does not depend on `now`."""
    when = datetime.fromtimestamp(now)
    for pattern, meant in _PHRASES:
        found = pattern.search(text)
        if found is None:
            continue
        named = found.groupdict()
        dated = (
            any(named.get(key) for key in ("day", "day2", "unit"))
            or (named.get("which") or "in the").lower() != "in the"
        )
        given = on is not None and not dated
        try:
            since, until = meant(
                found, datetime.combine(on, time()) + timedelta(days=1) if on and given else when
            )
        except (ValueError, OverflowError):  # 25:00, 13 pm
            continue
        a, b = since.timestamp(), until.timestamp() if given else min(until.timestamp(), now)
        if a < b:
            rest = re.sub(r"\s+", " ", text[: found.start()] + " " + text[found.end() :])
            rest = re.sub(r"\s+([?.!,])", r"\1", rest).strip(" ,")
            clocks = [named[key] for key in ("from_", "to", "at") if named.get(key)]
            bare = (
                bool(clocks)
                and not dated
                and all(re.fullmatch(r"[\d:]+", clock) for clock in clocks)
            )
            return Phrase(a, b, found.group().strip(), rest[:1].upper() + rest[1:], dated, bare)
    return None


def _last(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    return now - _length(found), now


def _ago(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    """Around that moment: a tenth of the distance either way, ten seconds at least."""
    length = _length(found)
    slack = max(length / 10, timedelta(seconds=10))
    return now - length - slack, now - length + slack


def _between(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    since, until = _clock(found["from_"]), _clock(found["to"])
    day = _day(found, now, since)
    a, b = datetime.combine(day, since), datetime.combine(day, until)
    return a, b if a < b else b + timedelta(days=1)  # over midnight


def _since(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    at = _clock(found["at"])
    return datetime.combine(_day(found, now, at), at), now


def _before(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    moment, _ = _since(found, now)
    return datetime.combine(moment.date(), time()), moment


def _at(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    at = _clock(found["at"])
    moment = datetime.combine(_day(found, now, at), at)
    if found["at"].lower() in _POINTS:
        return moment - _AROUND, moment + _AROUND
    return moment - timedelta(minutes=1), moment + timedelta(minutes=1)


def _part(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    first, stop = _PARTS[found["part"].lower()]
    midnight = datetime.combine(_day(found, now, time(first)), time())
    if found["part"].lower() == "night" and (found["which"] or "").lower() in ("last", "yesterday"):
        midnight = datetime.combine(now.date(), time())
        # from ten in the evening on
        return midnight - timedelta(hours=2), midnight + timedelta(hours=stop)
    if (found["which"] or "").lower() in ("yesterday", "last"):
        midnight = datetime.combine(now.date(), time()) - timedelta(days=1)
    return midnight + timedelta(hours=first), midnight + timedelta(hours=stop)


def _whole_day(found: re.Match[str], now: datetime) -> tuple[datetime, datetime]:
    midnight = datetime.combine(_day(found, now, time()), time())
    return midnight, midnight + timedelta(days=1)


def _length(found: re.Match[str]) -> timedelta:
    count = (found["count"] or "one").lower()
    number = (
        0.5
        if count.startswith("half")
        else float(count)
        if count.isdigit()
        else float(_WORDS[count])
    )
    return timedelta(seconds=number * _UNITS[found["unit"].lower()])


def _day(found: re.Match[str], now: datetime, at: time) -> date:
    """The day that is named, or the latest on which `at` is over."""
    groups = found.groupdict()
    named = (groups.get("day") or groups.get("day2") or "").lower()
    back = {"today": 0, "yesterday": 1, "the day before yesterday": 2}.get(named)
    if back is None:
        back = 0 if datetime.combine(now.date(), at) < now else 1
    return now.date() - timedelta(days=back)


def _clock(text: str) -> time:
    """A time of day; ValueError where there is none."""
    text = text.lower().replace(" ", "")
    if text in _POINTS:
        return _POINTS[text]
    half = text[-2:] if text.endswith("m") else ""
    parts = [int(part) for part in text.removesuffix(half).split(":")]
    if half:
        if not 1 <= parts[0] <= 12:
            raise ValueError(text)
        parts[0] = parts[0] % 12 + (12 if half == "pm" else 0)
    hours, minutes, seconds = (*parts, 0, 0)[:3]
    return time(hours, minutes, seconds)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){pattern}(?!\w)", re.IGNORECASE)


_Meant = Callable[[re.Match[str], datetime], tuple[datetime, datetime]]
_PHRASES: tuple[tuple[re.Pattern[str], _Meant], ...] = (  # the longer ones first
    (
        _compiled(
            rf"(?:{_DAY} )?(?:between|from) {_FROM} (?:and|to|until) {_TO}(?: {_DAY.replace('day>', 'day2>')})?"
        ),
        _between,
    ),
    (_compiled(rf"(?:in|during|within|over) the (?:last|past) (?:{_COUNT} )?{_UNIT}"), _last),
    (_compiled(rf"{_COUNT} {_UNIT} ago"), _ago),
    (_compiled(rf"(?:{_DAY} )?(?:since|after) {_AT}"), _since),
    (_compiled(rf"(?:{_DAY} )?before {_AT}"), _before),
    (_compiled(rf"{_DAY} (?:at|around) {_AT}"), _at),
    (_compiled(rf"(?:at|around) {_AT}(?: {_DAY})?"), _at),
    (_compiled(rf"(?P<which>this|last|yesterday|in the) {_PART}"), _part),
    (_compiled(_DAY), _whole_day),
)
