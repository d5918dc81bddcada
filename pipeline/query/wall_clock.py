"""Times on the wall clock in a question -> stretches of the videos that carry such times.

Knows phrases and the bank's rows; no words of videos. A phrase that names a day or a distance from now ("yesterday at noon",
"an hour ago") is meant from now. A time of day ("at noon", "between 10:00 and 10:05") is meant on the video's own days, the
latest on which the video was running then. Digits alone may as well be a time of the video ("after 12:30"): where a video
was not running at that time of day, or does not know when it was, that is what they are.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from memory.bank import MemoryBank
from pipeline.query import time_phrases
from pipeline.query.time_phrases import Phrase

Span = tuple[float, float]
NOWHERE: Span = (0.0, 0.0)
_QUOTED = re.compile(
    r"[\"\u201c\u201d\u201e\u00ab\u00bb][^\"\u201c\u201d\u00ab\u00bb]*[\"\u201c\u201d\u00ab\u00bb]"
)
_DAYS = 1000  # of one video that are looked at


@dataclass(frozen=True)
class Meant:
    """What a question says about the clock on the wall."""

    text: str  # the question, without its time where that can be nothing else
    # seconds of video time, of each video that the clock limits
    spans: dict[str, Span] = field(default_factory=dict)
    note: str = ""  # what the user must know
    alone: bool = False  # the same words are a time of the video where the clock limits nothing

    def within(self, video_id: str, span: Span) -> Span:
        """What is left of a stretch of a video."""
        limit = self.spans.get(video_id)
        if limit is None or self.alone:
            return limit or span
        return max(limit[0], span[0]), min(limit[1], span[1])


def meant(question: str, bank: MemoryBank, video_ids: Collection[str], now: float) -> Meant:
    """The stretches of these videos that a question asked at `now` (Unix seconds) is about, as far as it says so by the clock.
    Videos that were not running then get an empty one."""
    phrase = time_phrases.find(question, now) or time_phrases.find(
        question, now, date.fromtimestamp(now)
    )
    if phrase is None or any(phrase.said in quoted for quoted in _QUOTED.findall(question)):
        return Meant(question)
    if re.match(r"(?:in|during|within|over) the last\b", phrase.said, re.IGNORECASE):
        return Meant(question)  # of the video: the planner's
    walls = {
        video_id: wall
        for video_id, wall in bank.catalog.wall_clock_ranges().items()
        if video_id in video_ids
    }
    spans = {
        video_id: _stretch(question, phrase, bank, video_id, wall, now)
        for video_id, wall in walls.items()
    }
    if phrase.bare:
        return Meant(
            question,
            {video_id: span for video_id, span in spans.items() if span != NOWHERE},
            alone=True,
        )
    without = len(video_ids) - len(walls)
    if not walls:
        note = (
            f"{phrase.said!r} limits nothing here: no video searched knows when it was, as `reelbank ingest began=` says "
            "of a new one"
        )
        return Meant(question, note=note)
    note = (
        f"{phrase.said!r} leaves out {without} of {len(video_ids)} videos, which do not know when they were"
        if without
        else ""
    )
    rest = phrase.rest if re.search(r"\w", phrase.rest) else question
    return Meant(rest, dict.fromkeys(video_ids, NOWHERE) | spans, note)


def _stretch(
    question: str, phrase: Phrase, bank: MemoryBank, video_id: str, wall: Span, now: float
) -> Span:
    """Seconds of a video that ran from wall[0] to wall[1]."""
    if phrase.dated:
        return _of_video(bank, video_id, phrase.since, phrase.until)
    first, last = (datetime.fromtimestamp(moment).date() for moment in wall)
    for back in range(min((last - first).days + 2, _DAYS)):  # a night may begin on the day before
        on = time_phrases.find(question, now, last - timedelta(days=back))
        if on is not None and on.since < wall[1] and on.until > wall[0]:
            return _of_video(bank, video_id, on.since, on.until)
    return NOWHERE


def _of_video(bank: MemoryBank, video_id: str, since: float, until: float) -> Span:
    rows = bank.catalog.overlapping(video_id, since=since, until=until)
    if not rows:
        return NOWHERE
    first, last = rows[0], rows[-1]
    assert first.wall is not None and last.wall is not None  # those without are in no such range
    return first.start + max(since - first.wall, 0.0), min(last.end, last.start + until - last.wall)
