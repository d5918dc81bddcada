"""The grammar of times in English questions: stretches of a video, and references to an answer.

1 Video time, `parse_video_time`: "after 12:30", "in the first nine minutes", "in the second half".
2 The last answer of a conversation, `parse_reference`: "and after that?", "and now?".

The clock on the wall has a grammar of its own: pipeline/query/wall_phrases.py. The grammar knows no
present moment, no bank and no video. It leaves what it does not understand in the question.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pipeline.query.time_words import LENGTH, UNITS_S, Span, TimePhrase, length_s, lower

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
    rf"|(?:second|minute|hour) \d+(?:\.\d+)?|{LENGTH}\b)"
)
_IN = r"(?:in|during|within|over|of)"
_ORDINALS = ("first", "second", "third", "fourth")
_FRACTIONS = {"half": 2, "third": 3, "quarter": 4}


def _position(text: str) -> float:
    """Seconds of "12:30", "1:02:03", "minute 5" or "90 seconds"."""
    if ":" in text:
        parts = [int(part) for part in reversed(text.split(":"))]
        return float(sum(part * 60**power for power, part in enumerate(parts)))
    seconds = length_s(text)
    if seconds is not None:
        return seconds
    unit, number = text.split()
    return float(number) * UNITS_S[lower(unit)]


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
        _video(rf"{_IN} the first ({LENGTH})\b"),
        lambda match: VideoTime(0.0, _position(match[1])),
    ),
    (
        _video(rf"{_IN} the (?:last|final) ({LENGTH})\b"),
        lambda match: VideoTime(_position(match[1]), 0.0, Scale.FROM_END),
    ),
    (
        _video(rf"{_IN} the ({'|'.join(_ORDINALS)}|last|final) ({'|'.join(_FRACTIONS)})\b"),
        lambda match: _fraction(lower(match[1]), lower(match[2])),
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
    rf"|(?:after|since|before|until|up to) {LENGTH}",
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


# ---- 2 references to the last answer


class Direction(Enum):
    """Where a follow-up looks, seen from the last answer."""

    AFTER = "after what it cites"
    BEFORE = "before what it cites"
    AGAIN = "at everything up to now"
    NOW = "at the newest moment"


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
_WHOLE = {
    Direction.AGAIN: re.compile(r"(?:and )?(?:again|once more)\b", re.IGNORECASE),
    Direction.NOW: re.compile(
        r"(?:and |so |(?:and )?(?:what|how) about )?"
        r"(?:(?:as of |right )?now|at the moment|currently)\b",
        re.IGNORECASE,
    ),
}
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
    for direction, opening in _WHOLE.items():
        match = opening.match(question)
        if match is not None and is_filler(question[match.end() :]):
            return ReferencePhrase(match.group(), "", direction)
    return None


def is_filler(text: str) -> bool:
    """True where these words ask nothing: "and", "what about", "?"."""
    return _FILLER.fullmatch(text) is not None
