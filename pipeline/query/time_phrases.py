"""The grammar of times in English questions: number words, units, and three kinds of phrases.

1 Video time, `parse_video_time`: "after 12:30", "in the first nine minutes", "in the second half".
2 The clock on the wall, `parse_wall_clock`: "yesterday at noon", "an hour ago". The phrases carry
  what the words say; pipeline/query/wall_clock.py turns them into moments.
3 The last answer of a conversation, `parse_reference`: "and after that?", "and now?".

The grammar knows no present moment, no bank and no video. It leaves what it does not understand
in the question.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import time
from enum import Enum

Span = tuple[float, float]  # seconds: start, end

# ---- words

_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30,
    "forty": 40, "fifty": 50, "sixty": 60,
}  # fmt: skip
_UNITS_S = {
    "second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60, "hour": 3600, "h": 3600, "day": 86400
}  # fmt: skip
_PARTS_OF_DAY = {  # hours
    "morning": (5, 12),
    "afternoon": (12, 18),
    "evening": (18, 23),
    "night": (0, 6),
}
_NAMED_TIMES = {"noon": time(12), "midday": time(12), "midnight": time(0)}
_DAYS_BACK = {"today": 0, "yesterday": 1, "the day before yesterday": 2}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_COUNT = rf"(?:\d+(?:\.\d+)?|{'|'.join(_NUMBERS)})"
_WHOLE_UNIT = r"(?:second|sec|minute|min|hour)s?"
_UNIT = rf"(?:{_WHOLE_UNIT}|s|h)"
_LENGTH = rf"(?:{_COUNT} ?{_UNIT}|half an? {_WHOLE_UNIT})"
_ANY_LENGTH = re.compile(
    rf"(?:(?P<count>{_COUNT}) ?|(?P<half>half )?(?:an? )?)(?P<unit>{_UNIT}|days?)", re.IGNORECASE
)
# letters that `re.IGNORECASE` takes for i and s, and `str.lower` leaves
_FOLDED = str.maketrans({"\u0131": "i", "\u017f": "s", "\u0307": None})


def _lower(text: str) -> str:
    return text.lower().translate(_FOLDED)


def _length(text: str) -> float | None:
    """Seconds of "90 s", "half an hour", "a day" or "minute"; None where it is no length."""
    match = _ANY_LENGTH.fullmatch(text)
    if match is None:
        return None
    unit = _lower(match["unit"])
    unit_s = _UNITS_S[unit if unit in _UNITS_S else unit.removesuffix("s")]
    if match["count"] is None:
        return unit_s * (0.5 if match["half"] else 1.0)
    count = _lower(match["count"])
    return (_NUMBERS[count] if count in _NUMBERS else float(count)) * float(unit_s)


@dataclass(frozen=True, slots=True)
class TimePhrase:
    """Words of a question that name a time."""

    words: str  # as the question has them
    rest: str  # the question without them


# ---- 1 video time


class Scale(Enum):
    """What the numbers of a `VideoTime` are."""

    SECONDS = "seconds from the beginning"
    SHARES = "shares of the video"
    FROM_END = "seconds before the end"


@dataclass(frozen=True, slots=True)
class VideoTime:
    """A stretch of any video; by default all of it."""

    start: float = 0.0
    end: float = math.inf
    scale: Scale = Scale.SECONDS

    def span(self, duration: float) -> Span:
        """The stretch of a video of so many seconds."""
        match self.scale:
            case Scale.SECONDS:
                return self.start, self.end
            case Scale.SHARES:
                return self.start * duration, self.end * duration
            case Scale.FROM_END:
                return max(duration - self.start, 0.0), duration - self.end


WHOLE_VIDEO = VideoTime()


@dataclass(frozen=True, slots=True)
class VideoTimePhrase(TimePhrase):
    """A phrase of video time."""

    time: VideoTime
    # True: the words can only say when; False: they may as well say what ("which code stands at the
    # end?", "what does he say about 12:30?")
    is_limit: bool


_AROUND_S = 30.0  # seconds on either side of "at 12:30"
_EDGE = 0.15  # share of the video that "at the beginning" means

_POSITION = (
    r"(?:\d{1,2}:\d{2}(?::\d{2})?(?![\d:])"
    rf"|(?:second|minute|hour) \d+(?:\.\d+)?|{_LENGTH}\b)"
)
_IN = r"(?:in|during|within|over|of)"
_ORDINALS = ("first", "second", "third", "fourth")
_FRACTIONS = {"half": 2, "third": 3, "quarter": 4}


def _position(text: str) -> float:
    """Seconds of "12:30", "1:02:03", "minute 5" or "90 seconds"."""
    if ":" in text:
        parts = [int(part) for part in reversed(text.split(":"))]
        return float(sum(part * 60**power for power, part in enumerate(parts)))
    length = _length(text)
    if length is not None:
        return length
    unit, number = text.split()
    return float(number) * _UNITS_S[_lower(unit)]


def _fraction(ordinal: str, fraction: str) -> VideoTime:
    """The first, second, third, fourth or last half, third or quarter."""
    parts = _FRACTIONS[fraction]
    number = parts - 1 if ordinal in ("last", "final") else _ORDINALS.index(ordinal)
    return VideoTime(number / parts, (number + 1) / parts, Scale.SHARES)


def _around(middle: float) -> VideoTime:
    return VideoTime(max(middle - _AROUND_S, 0.0), middle + _AROUND_S)


def _video(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b{pattern}", re.IGNORECASE)


_VIDEO_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], VideoTime]], ...] = (
    (
        _video(rf"(?:between|from) ({_POSITION}) (?:and|to|until|till) ({_POSITION})"),
        lambda match: VideoTime(_position(match[1]), _position(match[2])),
    ),
    (
        _video(rf"{_IN} the first ({_LENGTH})\b"),
        lambda match: VideoTime(0.0, _position(match[1])),
    ),
    (
        _video(rf"{_IN} the (?:last|final) ({_LENGTH})\b"),
        lambda match: VideoTime(_position(match[1]), 0.0, Scale.FROM_END),
    ),
    (
        _video(rf"{_IN} the ({'|'.join(_ORDINALS)}|last|final) ({'|'.join(_FRACTIONS)})\b"),
        lambda match: _fraction(_lower(match[1]), _lower(match[2])),
    ),
    (
        _video(r"(?:at|in|near|towards?) the (?:very )?(?:beginning|start)\b"),
        lambda match: VideoTime(0.0, _EDGE, Scale.SHARES),
    ),
    (
        _video(r"(?:at|in|near|towards?) the (?:very )?end\b"),
        lambda match: VideoTime(1 - _EDGE, 1.0, Scale.SHARES),
    ),
    (
        _video(r"(?:in|near|around) the middle\b"),
        lambda match: VideoTime(1 / 3, 2 / 3, Scale.SHARES),
    ),
    (
        _video(rf"(?:after|since) ({_POSITION})"),
        lambda match: VideoTime(_position(match[1])),
    ),
    (
        _video(rf"(?:before|until|up to|by) ({_POSITION})"),
        lambda match: VideoTime(0.0, _position(match[1])),
    ),
    (
        _video(rf"(?:at|around|about|near) ({_POSITION})"),
        lambda match: _around(_position(match[1])),
    ),
)


_NAMED_POSITION = r"(?:\d{1,2}:\d{2}|(?:second|minute|hour) \d)"
# of the forms above, those that can only say when
_LIMITS = re.compile(
    rf"between |from |(?:in|during|within|over) the (?:first|second|third|fourth|last|final) "
    rf"|(?:after|since|before|until|up to|at|around) {_NAMED_POSITION}"
    rf"|(?:after|since|before|until|up to) {_LENGTH}",
    re.IGNORECASE,
)


def parse_video_time(question: str) -> VideoTimePhrase | None:
    """The first phrase of video time that leaves words in the question."""
    for pattern, video_time in _VIDEO_FORMS:
        match = pattern.search(question)
        if match is None:
            continue
        rest = (question[: match.start()] + " " + question[match.end() :]).strip(" ,")
        if re.search(r"\w", rest):
            words = match.group()
            is_limit = _LIMITS.match(words) is not None
            return VideoTimePhrase(words, " ".join(rest.split()), video_time(match), is_limit)
    return None


# ---- 2 the clock on the wall


class Form(Enum):
    """What a wall-clock phrase says."""

    BETWEEN = "between two clock times"
    LAST = "in the last so many seconds, of a video or until now"
    PAST = "in the past so many seconds, until now"
    AGO = "so many seconds ago"
    SINCE = "after a clock time"
    BEFORE = "before a clock time"
    AT = "at a clock time"
    HOURS = "in some hours of a day, or all of them"


@dataclass(frozen=True, slots=True)
class WallClockPhrase(TimePhrase):
    """A phrase of wall-clock time, which means nothing without the present moment."""

    form: Form
    length_s: float  # LAST, PAST, AGO
    at: time  # SINCE, BEFORE, AT; the first of BETWEEN; where HOURS begin
    until: time  # the second of BETWEEN
    hours: tuple[int, int]  # HOURS; below 0: of the evening before
    days_back: int | None  # 0 today, 1 yesterday, 2 the day before; None: not named
    is_dated: bool  # names a day or a distance from now; otherwise it is a time of day
    is_bare: bool  # digits alone, such as 12:30, which may also be a time of the video
    is_named: bool  # AT noon, midday or midnight
    # 0 Monday to 6 Sunday: the latest one that has begun; None: not named
    weekday: int | None = None
    is_last: bool = False  # "last Tuesday": today does not count


_WEEKDAY = rf"(?:{'|'.join(_WEEKDAYS)})"
# a weekday alone is no time: "what did the Monday club do?"
_DAY = rf"(?P<day>{'|'.join(_DAYS_BACK)}|(?:on|last) {_WEEKDAY})"
_CLOCK = (
    r"(?P<{0}>\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?: ?[ap]m)?|\d{{1,2}} ?[ap]m|noon|midday|midnight)"
)
_FROM, _TO, _AT = (_CLOCK.format(name) for name in ("from_", "to", "at"))
_WALL_LENGTH = rf"{_COUNT} ?(?:{_UNIT}|days?)|(?:half )?an? (?:{_WHOLE_UNIT}|days?)"


def _wall(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){pattern}(?!\w)", re.IGNORECASE)


_WALL_PATTERNS: tuple[tuple[Form, re.Pattern[str]], ...] = (  # the longer ones first
    (
        Form.BETWEEN,
        _wall(
            rf"(?:{_DAY} )?(?:between|from) {_FROM} (?:and|to|until) {_TO}"
            rf"(?: {_DAY.replace('day>', 'day2>')})?"
        ),
    ),
    (
        Form.LAST,
        _wall(
            rf"(?:in|during|within|over) the (?P<last>last|past) "
            rf"(?P<length>{_WALL_LENGTH}|{_WHOLE_UNIT}|days?)"
        ),
    ),
    (Form.AGO, _wall(rf"(?P<length>{_WALL_LENGTH}) ago")),
    (Form.SINCE, _wall(rf"(?:{_DAY} )?(?:since|after) {_AT}")),
    (Form.BEFORE, _wall(rf"(?:{_DAY} )?before {_AT}")),
    (Form.AT, _wall(rf"{_DAY} (?:at|around) {_AT}")),
    (Form.AT, _wall(rf"(?:at|around) {_AT}(?: {_DAY})?")),
    (
        Form.HOURS,
        _wall(
            rf"(?P<which>this|last|yesterday|in the|(?:(?:on|last) )?{_WEEKDAY}) "
            rf"(?P<part>{'|'.join(_PARTS_OF_DAY)})"
        ),
    ),
    (Form.HOURS, _wall(_DAY)),
)


def parse_wall_clock(question: str) -> Iterator[WallClockPhrase]:
    """The readings of a question by the clock on the wall, the longest phrase first.

    Only the first that means a moment counts; a later one may be a part of an earlier one.
    """
    for form, pattern in _WALL_PATTERNS:
        match = pattern.search(question)
        if match is None:
            continue
        rest = re.sub(r"\s+", " ", question[: match.start()] + " " + question[match.end() :])
        rest = re.sub(r"\s+([?.!,])", r"\1", rest).strip(" ,")
        try:
            yield _wall_clock_phrase(form, match, rest[:1].upper() + rest[1:])
        except ValueError:  # 25:00, 13 pm
            continue


def _wall_clock_phrase(form: Form, match: re.Match[str], rest: str) -> WallClockPhrase:
    """ValueError on a clock time that does not exist."""
    groups = {name: _lower(text) for name, text in match.groupdict().items() if text}
    clocks = [groups[name] for name in ("from_", "to", "at") if name in groups]
    times = [_clock(text) for text in clocks] or [time()]
    day = groups.get("day") or groups.get("day2")
    which = groups.get("which", "in the")
    weekday, is_last = _weekday(day or which)
    hours, days_back = (0, 24), None if day is None else _DAYS_BACK.get(day)
    if "part" in groups:
        times = [time(_PARTS_OF_DAY[groups["part"]][0])]
        hours, days_back = _part_of_day(groups["part"], which)
    is_dated = bool(day) or "length" in groups or which != "in the"
    is_bare = all(re.fullmatch(r"[\d:]+", text) for text in clocks)
    return WallClockPhrase(
        words=match.group().strip(),
        rest=rest,
        form=Form.PAST if groups.get("last") == "past" else form,
        length_s=_length(groups.get("length", "")) or 0.0,
        at=times[0],
        until=times[-1],
        hours=hours,
        days_back=days_back,
        is_dated=is_dated,
        is_bare=bool(clocks) and not is_dated and is_bare,
        is_named=groups.get("at") in _NAMED_TIMES,
        weekday=weekday,
        is_last=is_last,
    )


def _weekday(words: str) -> tuple[int | None, bool]:
    """The number of the weekday that these words end with, and whether it is the last one."""
    name = words.split()[-1]
    if name not in _WEEKDAYS:
        return None, False
    return _WEEKDAYS.index(name), words.startswith("last ")


def _part_of_day(part: str, which: str) -> tuple[tuple[int, int], int | None]:
    """Its hours, and how many days ago; None: the latest day on which it has begun."""
    first, stop = _PARTS_OF_DAY[part]
    if part == "night" and which in ("last", "yesterday"):
        return (-2, stop), 0  # from ten in the evening before
    if part == "night" and which.split()[-1] in _WEEKDAYS:
        return (22, 24 + stop), None
    return (first, stop), 1 if which in ("last", "yesterday") else None


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


# ---- 3 references to the last answer


class Direction(Enum):
    """Where a follow-up looks, seen from the last answer."""

    AFTER = "after what it cites"
    BEFORE = "before what it cites"
    AGAIN = "at everything up to now"


@dataclass(frozen=True, slots=True)
class ReferencePhrase(TimePhrase):
    """A phrase that refers to the last answer, or to its question."""

    direction: Direction


_THAT = r"(?:that|this|then|it)"
_OPENING = r"(?:and )?(?:what (?:came|was|happened|is) )?"
_OPENINGS = {
    Direction.AFTER: re.compile(
        rf"{_OPENING}(?:after {_THAT}|afterwards|then|next|later)\b", re.IGNORECASE
    ),
    Direction.BEFORE: re.compile(
        rf"{_OPENING}(?:before {_THAT}|earlier|beforehand)\b", re.IGNORECASE
    ),
}
_ANYWHERE = re.compile(rf"(?P<direction>after|before) {_THAT}\b", re.IGNORECASE)
_AGAIN = re.compile(r"(?:and )?(?:now|again|once more)\b", re.IGNORECASE)
_FILLER = re.compile(r"(?:and|so|but|ok|okay|what about|how about|,|\?|!|\.|\s)*", re.IGNORECASE)


def parse_reference(question: str) -> ReferencePhrase | None:
    """The reference of a question to the last answer: "and after that?", "who came before it?"."""
    question = question.strip()
    anywhere = _ANYWHERE.search(question)
    for direction, opening in _OPENINGS.items():
        match = opening.match(question)
        if match is None and anywhere and Direction[anywhere["direction"].upper()] is direction:
            match = anywhere
        if match is not None:
            rest = (question[: match.start()] + question[match.end() :]).strip(" ,?!.")
            return ReferencePhrase(match.group(), rest, direction)
    match = _AGAIN.match(question)
    if match is not None and is_filler(question[match.end() :]):
        return ReferencePhrase(match.group(), "", Direction.AGAIN)
    return None


def is_filler(text: str) -> bool:
    """True where these words ask nothing: "and", "what about", "?"."""
    return _FILLER.fullmatch(text) is not None
