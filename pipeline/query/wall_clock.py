"""Wall-clock times in a question -> moments, and stretches of the videos that carry such times.

Knows the phrases of pipeline/query/wall_phrases.py and the bank's rows; no words of videos. Times
are those of the machine's time zone (TZ). A phrase that names a day or a distance from now
("yesterday at noon", "an hour ago") counts from now. A time of day ("at noon", "between 10:00 and
10:05") means the video's own days: the latest on which the video was running then. Digits alone may
also be a time of the video ("after 12:30"): they are one where a video was not running at that time
of day, or has no wall-clock times.

A moment without an end ("at noon", "at 14:05") means a quarter of an hour either way for noon,
midnight and whole hours, and a minute for clock times. "Before noon" begins with that day; "after
noon" ends now. A night that a clock change makes longer has some times twice: a stretch then begins
with the first and ends with the second. Times that it leaves out are no stretch.
"""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.storage.catalog import Session
from pipeline.query.plan import QUOTED
from pipeline.query.time_words import Span
from pipeline.query.wall_phrases import Form, WallClockPhrase, parse_wall_clock

NOWHERE: Span = (0.0, 0.0)
_AROUND_NAMED = 15 * 60.0  # seconds
_AROUND_CLOCK = 60.0
_AROUND_AGO = 10.0  # at least
_DAYS = 1000  # of one video that are tried, from the latest back


@dataclass(frozen=True, slots=True)
class WallClockRange:
    """A phrase and what it means."""

    phrase: WallClockPhrase
    since: float  # Unix seconds; -infinite: from the beginning
    until: float


@dataclass(frozen=True)
class VideoLimits:
    """The stretches of videos that a question is about by the clock on the wall."""

    text: str  # the question, without its time where that can be nothing else
    words: str = ""  # of the question that name the time; "": none do
    spans: dict[str, Span] = field(default_factory=dict)  # seconds, of each limited video
    note: str = ""  # what the user must know
    # the phrase may be a video time: a video without a limit keeps the span of its own
    is_ambiguous: bool = False

    def within(self, video_id: str, span: Span) -> Span:
        """The part of a video's span that is inside its limit."""
        limit = self.spans.get(video_id)
        if limit is None or self.is_ambiguous:
            return limit or span
        return max(limit[0], span[0]), min(limit[1], span[1])


def wall_clock_range(question: str, now: float, on: date | None = None) -> WallClockRange | None:
    """The first phrase of a question asked at `now` (Unix seconds) that means a stretch of time.

    What is still to come is cut off at `now`; a stretch in the future means nothing. on: the day
    of phrases that name none; such a stretch does not depend on `now`.
    """
    return _first_range(parse_wall_clock(question), now, on)


def as_of(question: str, now: float) -> WallClockRange | None:
    """What a question asked at `now` (Unix seconds) says of the moment that it is asked as of: "as
    of Tuesday" is the end of that day. None where it says nothing."""
    limit = wall_clock_range(question, now)
    if limit is None or limit.phrase.form is not Form.AS_OF:
        return None
    return None if _is_quoted(limit.phrase, question) else limit


def resolve(question: str, bank: MemoryBank, video_ids: Collection[str], now: float) -> VideoLimits:
    """The stretches of these videos that a question asked at `now` (Unix seconds) is about.

    A video that was not running then gets an empty stretch. UserError on a time that is to come.
    """
    phrases = tuple(parse_wall_clock(question))
    if phrases and _is_to_come(phrases[0], now) and not _is_quoted(phrases[0], question):
        raise UserError(
            f'The words "{phrases[0].words}" name a time that has not come yet; ask about an '
            "earlier one."
        )
    limit = _first_range(phrases, now) or _first_range(phrases, now, date.fromtimestamp(now))
    # "in the last ..." is video time here: the planner reads it
    if limit is None or limit.phrase.form is Form.LAST:
        return VideoLimits(question)
    phrase = limit.phrase
    if _is_quoted(phrase, question):
        return VideoLimits(question)
    running = bank.catalog.wall_clock_ranges().keys() & set(video_ids)
    spans = {
        video_id: _video_span(bank, video_id, limit, phrases, now) for video_id in sorted(running)
    }
    if phrase.is_bare:
        limited = {video_id: span for video_id, span in spans.items() if span != NOWHERE}
        return VideoLimits(question, phrase.words, limited, is_ambiguous=True)
    if not running:
        note = (
            f"{phrase.words!r} limits nothing here: no video searched knows when it was, as "
            "`reelbank ingest began=` says of a new one"
        )
        return VideoLimits(question, phrase.words, note=note)
    without = len(video_ids) - len(running)
    note = (
        f"{phrase.words!r} leaves out {without} of {len(video_ids)} videos, "
        "which do not know when they were"
        if without
        else ""
    )
    rest = phrase.rest if re.search(r"\w", phrase.rest) else question
    return VideoLimits(rest, phrase.words, dict.fromkeys(video_ids, NOWHERE) | spans, note)


# ---- phrases -> moments


def _is_quoted(phrase: WallClockPhrase, question: str) -> bool:
    return any(phrase.words in quotation for quotation in QUOTED.findall(question))


def _is_to_come(phrase: WallClockPhrase, now: float) -> bool:
    """Whether a phrase that names a day means a stretch that begins later than now."""
    if not phrase.is_dated:
        return False
    try:
        return _moments(phrase, now)[0] >= now
    except (ValueError, OverflowError):
        return False


def _first_range(
    phrases: Iterable[WallClockPhrase], now: float, on: date | None = None
) -> WallClockRange | None:
    for phrase in phrases:
        day = None if phrase.is_dated else on
        if day is None and _is_to_come(phrase, now):
            return None  # a later phrase may be a part of this one
        try:
            # a day that is over when the phrase is read
            moment = (
                now if day is None else _first(datetime.combine(day + timedelta(days=1), time()))
            )
            since, until = _moments(phrase, moment)
        except (ValueError, OverflowError):  # before the year 1
            continue
        until = min(until, now) if day is None else until
        if since < until:
            return WallClockRange(phrase, since, until)
    return None


def _moments(phrase: WallClockPhrase, now: float) -> tuple[float, float]:
    """Unix seconds. OverflowError or ValueError where a length leads out of the calendar."""
    form = phrase.form
    if form in (Form.LAST, Form.PAST, Form.AGO):
        before = now - phrase.length_s
        datetime.fromtimestamp(before)  # raises out of the calendar
        if form is not Form.AGO:
            return before, now
        slack = max(phrase.length_s / 10, _AROUND_AGO)  # a tenth of the distance either way
        return before - slack, before + slack
    day = _day(phrase, datetime.fromtimestamp(now))
    midnight, moment = datetime.combine(day, time()), datetime.combine(day, phrase.at)
    begin, end = (midnight + timedelta(hours=each) for each in phrase.hours)
    if form is Form.BETWEEN:
        until = datetime.combine(day, phrase.until)
        return _first(moment), _last(until if moment < until else until + timedelta(days=1))
    if form is Form.SINCE:
        return _first(moment), _last(midnight + timedelta(days=1)) if phrase.ends_with_day else now
    if form is Form.BEFORE:
        return _first(midnight), _last(moment)
    if form is Form.AT:
        around = _AROUND_NAMED if phrase.is_named else _AROUND_CLOCK
        return _first(moment) - around, _last(moment) + around
    if form in (Form.AS_OF, Form.UNTIL):
        return -math.inf, _last(moment if phrase.has_clock else end)
    if form is Form.EARLIER:
        return -math.inf, _first(begin)
    if form is Form.FROM_ON:
        return _first(begin), now
    if form is Form.LATER:
        return _last(end), now
    return _first(begin), _last(end)


def _day(phrase: WallClockPhrase, now: datetime) -> date:
    """The day that the phrase names, or the latest on which its time is over."""
    if phrase.day is not None:
        return phrase.day
    if phrase.month_day is not None:
        return _latest(*phrase.month_day, now.date())
    back = phrase.days_back
    if phrase.weeks_back is not None:
        back = now.weekday() + 7 * phrase.weeks_back
    if phrase.weekday is not None:
        back = (now.weekday() - phrase.weekday) % 7
        begins = datetime.combine(now.date(), time()) + timedelta(hours=phrase.hours[0])
        if back == 0 and (phrase.is_last or max(begins, _at(phrase, now)) > now):
            back = 7
    if back is None:
        back = 0 if datetime.combine(now.date(), phrase.at) < now else 1
    return now.date() - timedelta(days=back)


def _latest(month: int, day: int, today: date) -> date:
    """The latest such date that has begun. ValueError where none was in eight years."""
    for year in range(today.year, today.year - 9, -1):
        try:
            found = date(year, month, day)
        except ValueError:  # the 29th of February
            continue
        if found <= today:
            return found
    raise ValueError(f"no {day}.{month}.")


def _at(phrase: WallClockPhrase, now: datetime) -> datetime:
    """Its clock time today; midnight for a phrase of hours."""
    return datetime.combine(now.date(), phrase.at if phrase.has_clock else time())


def _first(moment: datetime) -> float:
    """Unix seconds of a local time; of one that comes twice, the first."""
    return _instants(moment)[0]


def _last(moment: datetime) -> float:
    """Unix seconds of a local time; of one that comes twice, the second."""
    return _instants(moment)[1]


def _instants(moment: datetime) -> tuple[float, float]:
    """Unix seconds at which clocks show a local time: twice where a clock change repeats it, and
    the change itself where it leaves it out."""
    first, last = (moment.replace(fold=fold).timestamp() for fold in (0, 1))
    if first <= last:
        return first, last
    low, high = last, first
    before = _offset(low)
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if _offset(middle) == before else (low, middle)
    return float(round(high)), float(round(high))


def _offset(seconds: float) -> timedelta | None:
    """Of local time from UTC, at a moment in Unix seconds."""
    return datetime.fromtimestamp(seconds).astimezone().utcoffset()


# ---- moments -> seconds of a video


def _video_span(
    bank: MemoryBank,
    video_id: str,
    limit: WallClockRange,
    phrases: Collection[WallClockPhrase],
    now: float,
) -> Span:
    """Seconds of a video that knows when it was; NOWHERE if it was not running then."""
    sessions = bank.catalog.sessions(video_id)
    if limit.phrase.is_dated:
        return _seconds(sessions, limit)
    first, last = (
        datetime.fromtimestamp(moment).date()
        for moment in (
            min(each.began + each.start for each in sessions),
            max(each.began + each.end for each in sessions),
        )
    )
    for back in range(min((last - first).days + 2, _DAYS)):  # a night may begin on the day before
        on_day = _first_range(phrases, now, last - timedelta(days=back))
        span = NOWHERE if on_day is None else _seconds(sessions, on_day)
        if span != NOWHERE:
            return span
    return NOWHERE


def _seconds(sessions: Sequence[Session], limit: WallClockRange) -> Span:
    """From the first to the last second of the sessions that were running within the limit."""
    spans = [
        (max(each.start, limit.since - each.began), min(each.end, limit.until - each.began))
        for each in sessions
    ]
    spans = [(start, end) for start, end in spans if start < end]
    return (spans[0][0], spans[-1][1]) if spans else NOWHERE
