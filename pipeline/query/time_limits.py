"""The words of time in a question -> the stretches of its videos that it is about.

Knows the phrases, the clock on the wall and the bank's rows; no retriever and no lines. `ask` and
`find` share it. Only words that can say nothing but when limit a question's frames: "in the first
half", "yesterday at noon", "after 12:30". Words that may say what is asked for, such as "at the
end", limit none. "As of Tuesday" moves the moment of the question: it sees nothing later.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.schema import Question
from memory.storage.catalog import VideoRow
from memory.timeline import Span
from pipeline.config.units import format_time
from pipeline.query import wall_clock
from pipeline.query.plan import QUOTED
from pipeline.query.present_state import without_present
from pipeline.query.time_phrases import WHOLE_VIDEO, VideoTime, parse_video_time
from pipeline.query.wall_clock import VideoLimits
from pipeline.query.wall_phrases import WallClockPhrase

_BEFORE_S = 1e-3  # so close before that no frame lies between


@dataclass(frozen=True, slots=True)
class TimedQuestion:
    """A question with the stretches that its words name."""

    question: Question
    note: str = ""  # what the user must know
    # whether it asks for the present state: of a value that changed, for the newest one
    is_present: bool = False


def video_spans(
    when: VideoTime, limits: VideoLimits | None, durations: Mapping[str, float]
) -> dict[str, Span]:
    """The seconds of each video that a question is about, some of them empty.

    when: by video time. limits: by the clock on the wall. durations: seconds of each video.
    """
    spans = {}
    for video_id, duration in durations.items():
        span = when.span(duration)
        spans[video_id] = span if limits is None else limits.within(video_id, span)
    return spans


def read_times(
    question: Question, bank: MemoryBank, videos: Mapping[str, VideoRow]
) -> TimedQuestion:
    """The question, limited to the stretches that its words name.

    videos: those of the question, by id. UserError where no video has such a time.
    """
    now, asked = _now(question, bank), question
    present = without_present(question.search_text)
    text = question.search_text if present is None else present
    if present is not None:
        question = replace(question, query=text)
    as_of = wall_clock.as_of(text, now)
    if as_of is not None:
        text, now = as_of.phrase.rest, as_of.until
        moments, note = _moments(question, as_of.phrase, now, bank)
        question = replace(question, moments=moments, query=text)
    else:
        note = ""
    is_present = question.newest or present is not None or as_of is not None
    limits = wall_clock.resolve(text, bank, question.videos, now)
    phrase = parse_video_time(limits.text)
    quotations = QUOTED.findall(asked.text)
    if phrase is not None and (
        not phrase.is_limit or any(phrase.words in each for each in quotations)
    ):
        phrase = None
    if phrase is None and not limits.spans:
        notes = " ".join(filter(None, [note, limits.note]))
        return TimedQuestion(question, notes, is_present)
    durations = {
        video_id: min(bank.catalog.duration(row), question.moment(video_id))
        for video_id, row in videos.items()
    }
    when, text = (WHOLE_VIDEO, limits.text) if phrase is None else (phrase.time, phrase.rest)
    text = re.sub(r"\s+([?.!,])", r"\1", text)
    words = limits.words if phrase is None or limits.spans else phrase.words
    spans = {
        video_id: tuple(
            (max(low, start), min(high, end))
            for start, end in question.spans_of(video_id)
            if max(low, start) < min(high, end, durations[video_id])
        )
        for video_id, (low, high) in video_spans(when, limits, durations).items()
    }
    there = [video_id for video_id, own in spans.items() if own]
    if not there:
        raise UserError(_nowhere(words, durations, is_by_clock=bool(limits.spans)))
    notes = " ".join(filter(None, [note, limits.note, _note(words, spans, durations)]))
    return TimedQuestion(replace(question, spans=spans, query=text), notes, is_present)


def _moments(
    question: Question, phrase: WallClockPhrase, wall: float, bank: MemoryBank
) -> tuple[dict[str, float], str]:
    """The moment of the question in each video, where its words move it to `wall` (Unix seconds),
    and what the user must know. UserError where no video had begun by then."""
    moments, unknown = dict(question.moments), 0
    for video_id in question.videos:
        seconds = _seconds_at(bank, video_id, wall)
        unknown += seconds is None
        if seconds is not None:
            moments[video_id] = min(question.moment(video_id), seconds)
    if unknown == len(question.videos):
        return moments, (
            f'The words "{phrase.words}" limit nothing: no video here knows when it was, as '
            "`reelbank ingest began=` says of a new one."
        )
    if all(moments.get(each, math.inf) < 0 for each in question.videos):
        raise UserError(f'No video here had begun "{phrase.words}"; ask about a later time.')
    note = f'The words "{phrase.words}" leave out what came later.'
    if unknown:
        note += f" {unknown} of {len(question.videos)} videos do not know when they were."
    return moments, note


def _seconds_at(bank: MemoryBank, video_id: str, wall: float) -> float | None:
    """Seconds of video time up to which a video was seen by a moment in Unix seconds; below 0: it
    had not begun. None: it does not know when it was."""
    seconds = bank.catalog.video_time(video_id, wall)
    if seconds is None or math.isinf(seconds):
        return seconds
    is_running = any(
        each.start <= wall - each.began < each.end for each in bank.catalog.sessions(video_id)
    )
    return seconds if is_running else seconds - _BEFORE_S  # the next session is to come


def _now(question: Question, bank: MemoryBank) -> float:
    """Unix seconds at which a question is asked: that of its latest moment in a video, where
    moments are given."""
    known = []
    for video_id in question.videos:
        moment = question.moment(video_id)
        if moment < math.inf:
            sessions = [each for each in bank.catalog.sessions(video_id) if each.start <= moment]
            known += [each.began + moment for each in sessions[-1:]]
    return max(known, default=0.0) or time.time()


def _note(words: str, spans: Mapping[str, tuple[Span, ...]], durations: Mapping[str, float]) -> str:
    there = [video_id for video_id, own in spans.items() if own]
    if len(spans) > 1:
        videos = "one video" if len(there) == 1 else f"{len(there)} videos"
        return f'The words "{words}" limit what was read to a part of {videos}.'
    start, end = spans[there[0]][0][0], min(spans[there[0]][-1][1], durations[there[0]])
    return (
        f'The words "{words}" limit what was read to {format_time(max(start, 0.0))}-'
        f"{format_time(end)}."
    )


def _nowhere(words: str, durations: Mapping[str, float], *, is_by_clock: bool) -> str:
    if is_by_clock:
        return f'No video here was running "{words}"; ask about another time.'
    longest = format_time(max(durations.values()))
    return (
        f'The words "{words}" name a time that no video here has: the longest lasts {longest}; ask '
        "about another time."
    )
