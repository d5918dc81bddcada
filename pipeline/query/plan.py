"""A question -> how its moments are looked for: the words, the stretch of video time, and how much each channel counts.

Rules over English phrases; knows no bank and no model. Moments on the clock on the wall ("yesterday at noon") are for
pipeline/query/wall_clock.py. What a rule takes for a time is cut out of the words that are searched.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from memory.text import tokenizer
from memory.text.tokenizer import Query

CHANNELS = ("subtitle", "speech", "ocr", "caption", "picture")
PICTURE, KV = "picture", "kv"
DENSE, LATE = "dense", "late"  # lines by meaning: their vectors; their tokens
# channels that look at frames; kv needs the backbone, so it has to be asked for
FRAMES = (PICTURE, KV)

# kv: as in conf/retriever/fused.yaml, its keys tell footage apart rather than what is asked
_USUAL = {
    "subtitle": 1.0,
    "speech": 1.0,
    "ocr": 1.0,
    "caption": 0.7,
    PICTURE: 1.0,
    KV: 0.3,
    DENSE: 1.0,
    LATE: 1.0,
}
_CUES = (  # words of a question -> weights of channels
    (
        r"sa(?:y|ys|id|ying)|tells?|told|talk\w*|speak\w*|spoken?|speech|mention\w*|explain\w*|hears?|heard|announc\w*|discuss\w*"
        r"|narrat\w*|asks?|asked|answer\w*|quote\w*|claims?|claimed",
        {"subtitle": 2.0, "speech": 2.0},
    ),
    (
        r"written|writes?|writing|reads?|signs?|texts?|words?|slides?|screen|titles?|heading|labels?|labell?ed|boards?|whiteboard"
        r"|banner|poster|numbers?|digits?|printed|prints?|spells?|spelled|logo",
        {"ocr": 2.0},
    ),
    (
        r"colou?rs?|coloured|colored|shapes?|icons?|wears?|wearing|looks? like|pictures?|holds?|holding|stands?",
        {PICTURE: 1.5, KV: 0.5},
    ),
)
_NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "eight": 8,
    "ten": 10,
    "fifteen": 15,
    "twenty": 20,
}
_UNIT_S = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_COUNT = rf"(?:\d+(?:\.\d+)?|{'|'.join(_NUMBERS)})"
_UNIT = r"(?:seconds?|secs?|minutes?|mins?|hours?|s|h)"
_TIME = rf"(?:\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?![\d:])|(?:second|minute|hour) \d+(?:\.\d+)?|{_COUNT} ?{_UNIT}\b)"
_ABOUT_S = 30.0  # "at 12:30"
_EDGE = 0.15  # of the video: "at the beginning"

Span = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """How to look for a question's moments."""

    text: str  # without times
    query: Query
    weights: dict[str, float]
    # seconds of a video -> stretch of it
    when: Callable[[float], Span] = field(default=lambda duration: (0.0, math.inf))
    note: str = ""  # what the user must know


class Rules:
    """The rules as a part that can be chosen: `planner=rules`. It needs no backbone."""

    def __init__(self, *, backbone: Callable[[], Any] | None = None) -> None:
        pass

    def __call__(self, question: str) -> Plan:
        return plan(question)


def plan(question: str) -> Plan:
    """The rules, in this order: times, quoted words, cue words."""
    text, when = _cut_time(question)
    bare = re.sub(
        r"[\"\u201c\u201d\u201e\u00ab\u00bb][^\"\u201c\u201d\u00ab\u00bb]*[\"\u201c\u201d\u00ab\u00bb]",
        " ",
        text,
    )
    weights, cues = dict(_USUAL), set[str]()
    for words, more in _CUES:
        found = re.findall(rf"\b(?:{words})\b", bare, re.IGNORECASE)
        weights |= more if found else {}
        # "written" need not be written there
        cues |= set() if PICTURE in more else {word.lower() for word in found}
    query = tokenizer.query(text, cues)
    if query.phrases:
        weights = {
            name: weight if name in FRAMES else max(weight, 2.0) for name, weight in weights.items()
        }
    return Plan(text, query, weights, when)


def _cut_time(question: str) -> tuple[str, Callable[[float], Span]]:
    """The question without its time, and the time."""
    for pattern, made in _TIMES:
        found = pattern.search(question)
        if found is not None:
            rest = (question[: found.start()] + " " + question[found.end() :]).strip(" ,")
            if re.search(r"\w", rest):
                return " ".join(rest.split()), made(found)
    return question, lambda duration: (0.0, math.inf)


def _seconds(text: str) -> float:
    """Of "12:30", "1:02:03", "minute 5" or "90 seconds"."""
    text = text.lower().strip()
    if ":" in text:
        return float(
            sum(int(part) * 60**power for power, part in enumerate(reversed(text.split(":"))))
        )
    first, second = re.fullmatch(r"(\d[\d.]*|[a-z]+) ?(\d[\d.]*|[a-z]+)", text).groups()  # type: ignore[union-attr]
    unit, count = (first, second) if second[0].isdigit() else (second, first)
    number = float(_NUMBERS.get(count, 0)) or float(count)
    return number * _UNIT_S[unit if unit in _UNIT_S else unit.removesuffix("s")]


def _part(which: str, parts: int) -> Span:
    """Shares of the video: the first, second, third or last of so many parts."""
    number = (
        parts - 1
        if which in ("last", "final")
        else ("first", "second", "third", "fourth").index(which)
    )
    return number / parts, (number + 1) / parts


def _shares(low: float, high: float) -> Callable[[float], Span]:
    return lambda duration: (low * duration, high * duration)


def _fixed(low: float, high: float) -> Callable[[float], Span]:
    return lambda duration: (max(low, 0.0), high)


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b{pattern}", re.IGNORECASE)


_IN = r"(?:in|during|within|over|of)"
_TIMES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Callable[[float], Span]]], ...] = (
    (
        _rule(rf"(?:between|from) ({_TIME}) (?:and|to|until|till) ({_TIME})"),
        lambda m: _fixed(_seconds(m[1]), _seconds(m[2])),
    ),
    (_rule(rf"{_IN} the first ({_COUNT} ?{_UNIT}\b)"), lambda m: _fixed(0.0, _seconds(m[1]))),
    (
        _rule(rf"{_IN} the (?:last|final) ({_COUNT} ?{_UNIT}\b)"),
        lambda m: lambda duration: (max(duration - _seconds(m[1]), 0.0), duration),
    ),
    (
        _rule(rf"{_IN} the (first|second|third|fourth|last|final) (half|third|quarter)\b"),
        lambda m: _shares(
            *_part(m[1].lower(), {"half": 2, "third": 3, "quarter": 4}[m[2].lower()])
        ),
    ),
    (
        _rule(r"(?:at|in|near|towards?) the (?:very )?(?:beginning|start)\b"),
        lambda m: _shares(0.0, _EDGE),
    ),
    (_rule(r"(?:at|in|near|towards?) the (?:very )?end\b"), lambda m: _shares(1 - _EDGE, 1.0)),
    (_rule(r"(?:in|near|around) the middle\b"), lambda m: _shares(1 / 3, 2 / 3)),
    (_rule(rf"(?:after|since) ({_TIME})"), lambda m: _fixed(_seconds(m[1]), math.inf)),
    (_rule(rf"(?:before|until|up to|by) ({_TIME})"), lambda m: _fixed(0.0, _seconds(m[1]))),
    (
        _rule(rf"(?:at|around|about|near) ({_TIME})"),
        lambda m: _fixed(_seconds(m[1]) - _ABOUT_S, _seconds(m[1]) + _ABOUT_S),
    ),
)
