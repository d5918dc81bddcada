"""The grammar of the clock on the wall: "yesterday at noon", "as of Tuesday", "last week".

The phrases carry what the words say; pipeline/query/wall_clock.py turns them into moments. Knows no
present moment, no bank and no video.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time
from enum import Enum

from pipeline.query.time_words import COUNT, DAYS, UNIT, WHOLE_UNIT, TimePhrase, length_s, lower

_PARTS_OF_DAY = {  # hours
    "morning": (5, 12),
    "afternoon": (12, 18),
    "evening": (18, 23),
    "night": (0, 6),
}
_NAMED_TIMES = {"noon": time(12), "midday": time(12), "midnight": time(0)}
_DAYS_BACK = {"today": 0, "yesterday": 1, "the day before yesterday": 2}
_WEEKS_BACK = {"this week": 0, "last week": 1, "the week before last": 2}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = tuple(
    "january february march april may june july august september october november december".split()
)
WEEK_HOURS = 7 * 24


class Form(Enum):
    """What a wall-clock phrase says."""

    BETWEEN = "between two clock times"
    LAST = "in the last so many seconds, of a video or until now"
    PAST = "in the past so many seconds, until now"
    AGO = "so many seconds ago"
    SINCE = "after a clock time"
    BEFORE = "before a clock time, on its day"
    AT = "at a clock time"
    HOURS = "in some hours of a day, or all of them"
    AS_OF = "as of the end of some hours, or of a clock time: what was known then"
    UNTIL = "up to the end of some hours, or to a clock time"
    EARLIER = "before some hours begin, on earlier days too"
    FROM_ON = "from where some hours begin until now"
    LATER = "from the end of some hours until now"


@dataclass(frozen=True, slots=True)
class WallClockPhrase(TimePhrase):
    """A phrase of wall-clock time, which means nothing without the present moment."""

    form: Form
    length_s: float  # LAST, PAST, AGO
    at: time  # SINCE, BEFORE, AT, AS_OF, UNTIL; the first of BETWEEN; where HOURS begin
    until: time  # the second of BETWEEN
    hours: tuple[int, int]  # of the day; below 0: of the evening before; above 24: of later days
    days_back: int | None  # 0 today, 1 yesterday, 2 the day before; None: not named
    is_dated: bool  # names a day or a distance from now; otherwise it is a time of day
    is_bare: bool  # digits alone, such as 12:30, which may also be a time of the video
    is_named: bool  # AT noon, midday or midnight, or an hour without minutes
    has_clock: bool  # a clock time, not hours alone
    # 0 Monday to 6 Sunday: the latest one that has begun; None: not named
    weekday: int | None = None
    is_last: bool = False  # "last Tuesday": today does not count
    weeks_back: int | None = None  # 0: the Monday of this week; None: no week is named
    day: date | None = None  # of a date with its year
    month_day: tuple[int, int] | None = None  # month and day of a date without one: the latest
    ends_with_day: bool = False  # SINCE: "on Tuesday after 10:00" ends with Tuesday


_WEEKDAY = rf"(?:{'|'.join(_WEEKDAYS)})"
_MONTH = rf"(?:{'|'.join(f'{name[:3]}(?:{name[3:]})?' if name[3:] else name for name in _MONTHS)})"
_NUMBER = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = (
    rf"(?:\d{{4}}-\d{{2}}-\d{{2}}|(?:the )?{_NUMBER}(?: of)? {_MONTH}(?:,? \d{{4}})?"
    rf"|{_MONTH} {_NUMBER}(?:,? \d{{4}})?)"
)
_NAMED_DAYS = "|".join(reversed(_DAYS_BACK))  # the longest first
_WEEKS = "|".join(_WEEKS_BACK)
# a weekday alone is no time: "what did the Monday club do?"
_DAY_TEXT = (
    rf"{_NAMED_DAYS}|(?:on|last|of) {_WEEKDAY}|{_WEEKDAY}(?=['\u2019]s)|(?:(?:on|of) )?{_DATE}"
)
_DAY = rf"(?P<day>{_DAY_TEXT})"
_DAY_BEHIND = rf"(?P<day2>{_DAY_TEXT})"
# behind "as of" and the like, it is one
_ANY_DAY = rf"{_NAMED_DAYS}|(?:last )?{_WEEKDAY}|{_DATE}|{_WEEKS}"
_PARTS = "|".join(_PARTS_OF_DAY)
_CLOCK_TEXT = r"\d{1,2}:\d{2}(?::\d{2})?(?: ?[ap]m)?|\d{1,2} ?[ap]m|noon|midday|midnight"
_HOUR_TEXT = rf"{_CLOCK_TEXT}|\d{{1,2}}"  # a bare hour: only beside a day
_FROM, _TO = (rf"(?P<{name}>{_HOUR_TEXT})" for name in ("from_", "to"))
_AT = rf"(?P<at>{_CLOCK_TEXT})"
_AT_HOUR = rf"(?P<at>{_HOUR_TEXT})"
_WALL_LENGTH = rf"{COUNT} ?(?:{UNIT}|{DAYS})|(?:half )?an? (?:{WHOLE_UNIT}|{DAYS})"
_WHEN = (
    rf"(?:(?P<at>{_CLOCK_TEXT}),? (?:on )?(?P<day>{_ANY_DAY})"
    rf"|(?:on )?(?P<day2>{_ANY_DAY})"
    rf"(?:,? (?:(?:at )?(?P<at2>{_CLOCK_TEXT})|at (?P<at3>\d{{1,2}})|(?P<part>{_PARTS})))?"
    rf"|(?P<which>this|last) (?P<part2>{_PARTS}))"
)


def _wall(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){pattern}(?:['\u2019]s)?(?!\w)", re.IGNORECASE)


_PATTERNS: tuple[tuple[Form, re.Pattern[str]], ...] = (  # the longer ones first
    (Form.AS_OF, _wall(rf"as (?:of|at) {_WHEN}")),
    (Form.UNTIL, _wall(rf"(?:until|till|up to|up until|by) {_WHEN}")),
    (Form.EARLIER, _wall(rf"(?<!the day )before {_WHEN}")),
    (Form.FROM_ON, _wall(rf"(?:since {_WHEN})")),
    (Form.FROM_ON, _wall(rf"(?:from {_WHEN} on(?:wards?)?)")),
    (Form.LATER, _wall(rf"after {_WHEN}")),
    (
        Form.BETWEEN,
        _wall(rf"(?:{_DAY},? )?(?:between|from) {_FROM} (?:and|to|until) {_TO}(?: {_DAY_BEHIND})?"),
    ),
    (
        Form.LAST,
        _wall(
            rf"(?:in|during|within|over) the (?P<last>last|past) "
            rf"(?P<length>{_WALL_LENGTH}|{WHOLE_UNIT}|{DAYS})"
        ),
    ),
    (Form.AGO, _wall(rf"(?P<length>{_WALL_LENGTH}) ago")),
    (Form.SINCE, _wall(rf"(?:{_DAY},? )?(?P<since>since|after) {_AT}")),
    (Form.BEFORE, _wall(rf"(?:{_DAY},? )?before {_AT}")),
    (Form.AT, _wall(rf"{_DAY},? (?:at|around) {_AT_HOUR}")),
    (Form.AT, _wall(rf"(?:at|around) {_AT_HOUR} {_DAY_BEHIND}")),
    (Form.AT, _wall(rf"(?:at|around) {_AT}")),
    (
        Form.HOURS,
        _wall(
            rf"(?P<which>this|last|in the|{_NAMED_DAYS}|(?:(?:on|last) )?{_WEEKDAY}"
            rf"|(?:on )?{_DATE})(?: in the)? (?P<part>{_PARTS})"
        ),
    ),
    (
        Form.HOURS,
        _wall(rf"(?:on|in|during) the (?P<part>{_PARTS}) of (?P<which>{_WEEKDAY}|{_DATE})"),
    ),
    (Form.HOURS, _wall(rf"(?P<day>{_WEEKS})")),
    (Form.HOURS, _wall(_DAY)),
)


def parse_wall_clock(question: str) -> Iterator[WallClockPhrase]:
    """The readings of a question by the clock on the wall, the longest phrase first.

    Only the first that means a moment counts; a later one may be a part of an earlier one.
    """
    for form, pattern in _PATTERNS:
        match = pattern.search(question)
        if match is None:
            continue
        # "Tuesday's code" is the code of Tuesday
        the = " the " if match.group()[-2:] in ("'s", "\u2019s") else " "
        rest = re.sub(r"\s+", " ", question[: match.start()] + the + question[match.end() :])
        rest = re.sub(r"\s+([?.!,])", r"\1", rest).strip(" ,")
        try:
            yield _phrase(form, match, rest[:1].upper() + rest[1:])
        except ValueError:  # 25:00, 13 pm, an hour without its day
            continue


def _phrase(form: Form, match: re.Match[str], rest: str) -> WallClockPhrase:
    """ValueError on a clock time or a date that does not exist."""
    groups = {name.rstrip("23"): lower(text) for name, text in match.groupdict().items() if text}
    clocks = _clocks(groups)
    times = [_clock(text) for text in clocks] or [time()]
    day, which = groups.get("day", ""), groups.get("which", "in the")
    name = day or which
    hours, days_back = (0, 24), _DAYS_BACK.get(name)
    if "part" in groups:
        hours, days_back = _part_of_day(groups["part"], name)
        times = [time(hours[0] % 24)]
    if day in _WEEKS_BACK:
        hours = (0, WEEK_HOURS)
    seconds = length_s(groups.get("length", "")) or 0.0
    is_dated = bool(day) or "length" in groups or which != "in the"
    if any(text.isdigit() for text in clocks) and not is_dated:
        raise ValueError(match.group())
    if form is Form.AGO and "day" in groups["length"]:
        form, days_back, seconds = Form.HOURS, round(seconds / 86400), 0.0
    if form is Form.EARLIER and clocks:
        form = Form.BEFORE
    if form in (Form.FROM_ON, Form.LATER) and clocks:
        form = Form.SINCE
    if form is Form.LAST and (groups["last"] == "past" or re.search(DAYS, groups["length"])):
        form = Form.PAST
    weekday, is_last = _weekday(name)
    exact, month_day = _date(name)
    return WallClockPhrase(
        words=match.group().strip(),
        rest=rest,
        form=form,
        length_s=seconds,
        at=times[0],
        until=times[-1],
        hours=hours,
        days_back=days_back,
        is_dated=is_dated,
        is_bare=bool(clocks)
        and not is_dated
        and all(re.fullmatch(r"[\d:]+", text) for text in clocks),
        is_named=groups.get("at") in _NAMED_TIMES or groups.get("at", "").isdigit(),
        has_clock=bool(clocks),
        weekday=weekday,
        is_last=is_last,
        weeks_back=_WEEKS_BACK.get(day),
        day=exact,
        month_day=month_day,
        ends_with_day=bool(day) and groups.get("since") == "after",
    )


def _clocks(groups: dict[str, str]) -> list[str]:
    """The clock times of a phrase; "between 2 and 3 pm" is two of the afternoon."""
    clocks = [groups[name] for name in ("from_", "to", "at") if name in groups]
    if len(clocks) == 2 and clocks[0].isdigit() and clocks[1].endswith("m"):
        clocks[0] += clocks[1][-2:]
    return clocks


def _weekday(words: str) -> tuple[int | None, bool]:
    """The number of the weekday that these words end with, and whether it is the last one."""
    name = words.split()[-1] if words else ""
    if name not in _WEEKDAYS:
        return None, False
    return _WEEKDAYS.index(name), words.startswith("last ")


def _date(words: str) -> tuple[date | None, tuple[int, int] | None]:
    """The date that these words name: with its year, or month and day. ValueError where there is no
    such day."""
    iso = re.search(r"\d{4}-\d{2}-\d{2}", words)
    if iso is not None:
        return date.fromisoformat(iso.group()), None
    month = next((n for n, m in enumerate(_MONTHS, 1) if re.search(rf"\b{m[:3]}", words)), 0)
    numbers = [int(number) for number in re.findall(r"\d+", words)]
    if not month or not numbers:
        return None, None
    if len(numbers) == 2:
        return date(numbers[1], month, numbers[0]), None
    date(2000, month, numbers[0])  # a leap year has every day
    return None, (month, numbers[0])


def _part_of_day(part: str, name: str) -> tuple[tuple[int, int], int | None]:
    """Its hours, and how many days ago; None: on the day that is named, or the latest on which it
    has begun."""
    first, stop = _PARTS_OF_DAY[part]
    if part == "night" and name in ("last", "yesterday"):
        return (-2, stop), 0  # from ten in the evening before
    if part == "night" and name not in ("this", "in the"):
        return (22, 24 + stop), _DAYS_BACK.get(name)
    return (first, stop), 1 if name == "last" else _DAYS_BACK.get(name)


def _clock(text: str) -> time:
    """A time of day. ValueError where there is none."""
    text = text.replace(" ", "")
    if text in _NAMED_TIMES:
        return _NAMED_TIMES[text]
    half = text[-2:] if text.endswith("m") else ""
    parts = [int(part) for part in text.removesuffix(half).split(":")]
    if half:
        if not 1 <= parts[0] <= 12:
            raise ValueError(text)
        parts[0] = parts[0] % 12 + (12 if half == "pm" else 0)
    hours, minutes, seconds = (*parts, 0, 0)[:3]
    return time(hours, minutes, seconds)
