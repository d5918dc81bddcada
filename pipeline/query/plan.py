"""A question -> a plan of its search: words, a stretch of video time, and channel weights.

Rules over English phrases; knows no bank and no model. pipeline/query/wall_clock.py reads the
times on the wall clock ("yesterday at noon"). Words that name a time are not searched.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from memory.text import tokenizer
from memory.text.tokenizer import Query
from pipeline.query.presence import asked_thing
from pipeline.query.time_phrases import WHOLE_VIDEO, VideoTime, parse_video_time
from pipeline.text_model import TextModel

CHANNELS = ("subtitle", "speech", "ocr", "detection", "object", "label", "caption", "picture")
PICTURE, KV = "picture", "kv"
DENSE, LATE = "dense", "late"  # text lines by meaning: by their vectors, by their tokens
ATTENTION = "attention"  # text lines by the attention of a model that reads all of them
# channels that look at frames; kv needs the backbone, so no default has it
FRAMES = (PICTURE, KV)
_OF = PICTURE + ":"  # before the name of one frame embedder of several


def picture_of(name: str) -> str:
    """The channel of the pictures that one frame embedder ranks: "picture:conse"."""
    return _OF + name


def embedder_of(channel: str) -> str | None:
    """The name in a channel of `picture_of`; None for any other channel."""
    return channel.removeprefix(_OF) if channel.startswith(_OF) else None


def is_picture(channel: str) -> bool:
    """Whether a channel ranks frames by their embeddings."""
    return channel == PICTURE or embedder_of(channel) is not None


def looks_at_frames(channel: str) -> bool:
    """Whether a channel ranks frames, not lines."""
    return channel in FRAMES or embedder_of(channel) is not None


# kv is low as in conf/retriever/fused.yaml: keys tell footage apart rather than what it shows
_WEIGHTS = {
    "subtitle": 1.0,
    "speech": 1.0,
    "ocr": 1.0,
    "detection": 1.0,
    "object": 1.0,
    "label": 1.0,
    "caption": 0.7,
    PICTURE: 1.0,
    KV: 0.3,
    DENSE: 1.0,
    LATE: 1.0,
    ATTENTION: 1.0,
}
_CUES = (  # words of a question -> weights of channels
    (
        r"sa(?:y|ys|id|ying)|tells?|told|talk\w*|speak\w*|spoken?|speech|mention\w*|explain\w*"
        r"|hears?|heard|announc\w*|discuss\w*|narrat\w*|asks?|asked|answer\w*|quote\w*"
        r"|claims?|claimed",
        {"subtitle": 2.0, "speech": 2.0},
    ),
    (
        r"written|writes?|writing|reads?|signs?|texts?|words?|slides?|screen|titles?|heading"
        r"|labels?|labell?ed|boards?|whiteboard|banner|poster|numbers?|digits?|printed|prints?"
        r"|spells?|spelled|logo",
        {"ocr": 2.0},
    ),
    (
        r"colou?rs?|coloured|colored|shapes?|icons?|wears?|wearing|looks? like|pictures?|holds?"
        r"|holding|stands?",
        {PICTURE: 1.5, KV: 0.5, "detection": 1.5, "object": 1.5, "label": 1.5},
    ),
    (r"seen|visible", {"detection": 2.0, "object": 2.0, "label": 2.0}),
)
QUOTED = re.compile(
    r"[\"\u201c\u201d\u201e\u00ab\u00bb]"
    r"[^\"\u201c\u201d\u00ab\u00bb]*"
    r"[\"\u201c\u201d\u00ab\u00bb]"
)


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """How to search for the moments of a question."""

    text: str  # the question without its time
    query: Query
    weights: dict[str, float]  # of each channel
    time: VideoTime = WHOLE_VIDEO
    note: str = ""  # what the user must know


class Planner(Protocol):
    """A question -> its plan."""

    def __call__(self, question: str) -> QueryPlan: ...


class Rules:
    """`planner=rules`: `plan` as a part that the configuration can choose; needs no model."""

    def __init__(self, *, model: Callable[[], TextModel] | None = None) -> None:
        pass

    def __call__(self, question: str) -> QueryPlan:
        return plan(question)


def plan(question: str) -> QueryPlan:
    """The plan by the rules, in this order: times, quoted words, cue words."""
    phrase = parse_video_time(question)
    text, time = (question, WHOLE_VIDEO) if phrase is None else (phrase.rest, phrase.time)
    unquoted = QUOTED.sub(" ", text)
    weights, cues = dict(_WEIGHTS), set[str]()
    for words, cue_weights in _CUES:
        matches = re.findall(rf"\b(?:{words})\b", unquoted, re.IGNORECASE)
        if not matches:
            continue
        weights |= cue_weights
        if PICTURE not in cue_weights:  # "written" need not be written there
            cues |= {word.lower() for word in matches}
    thing = asked_thing(unquoted)  # "in the picture" need not be said there
    if thing and thing in unquoted.lower():
        cues |= set(re.findall(r"\w+", unquoted.lower())) - set(thing.split())
    query = tokenizer.query(text, cues)
    if query.phrases:
        weights = {
            name: weight if name in FRAMES else max(weight, 2.0) for name, weight in weights.items()
        }
    return QueryPlan(text, query, weights, time)
