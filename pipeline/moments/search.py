"""One search of a bank for a few words, from its limits to the moments and what the user must know.

Knows a finder and the channels that it was built with; no settings of commands, no output.
"""

import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.schema import VideoInfo
from memory.retrieval.fusion import NEAR_S, Moment, fuse, widen
from memory.schema import VideoSpan
from pipeline.moments.finder import Finder

if TYPE_CHECKING:
    from pipeline.moments.picture_query import SoughtPicture  # it loads a decoder of films


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to find, and where."""

    query: str
    videos: tuple[str, ...] = ()  # ids; none: the whole bank
    start: float | None = None  # seconds of video time; None: no limit
    end: float | None = None
    asked_at: float | None = None  # second of each of these videos after which nothing counts
    top: int = 10  # moments, at most
    widen: float = 0.0  # seconds of context on each side of a moment
    picture: "SoughtPicture | None" = None  # to search for, beside the words or in place of them


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search gave."""

    moments: list[Moment]  # best first
    videos: dict[str, VideoInfo]  # of the moments, by id
    notes: list[str]  # what the user must know
    has_text: bool  # whether any extractor ran on what was searched

    @property
    def paths(self) -> dict[str, str]:
        """Files of the videos, by id."""
        return {video_id: info.path for video_id, info in self.videos.items()}


def check_request(request: SearchRequest, *, has_picture: bool = False) -> None:
    """UserError on words or limits that make no sense. has_picture: words may be left out."""
    if not request.query.strip() and not has_picture:
        raise UserError('The query is empty; give a few words, such as query="rebuilt in granite".')
    if request.top < 1:
        raise UserError(f"top={request.top} finds nothing; use 1 or more.")
    if not request.widen >= 0:
        raise UserError(f"widen={request.widen} is below 0; give seconds, 0 or more.")
    for key in ("start", "end", "asked_at"):
        second = getattr(request, key)
        if second is not None and not second >= 0:
            raise UserError(
                f"{key}={second} is before a video begins; give seconds of video time, 0 or more"
            )
    if request.start is not None and request.end is not None and not request.start < request.end:
        raise UserError(
            f"start={request.start} is not before end={request.end}; give a start that comes first"
        )


def search(
    finder: Finder, request: SearchRequest, cancelled: threading.Event | None = None
) -> SearchResult:
    """The moments of a request, with the notes of the plan and of the wall clock. cancelled: once
    it is set, Cancelled is raised between two steps."""
    bank, picture = finder.bank, request.picture
    plan, limits = finder.plan(request.query, request.videos)
    if picture is not None:
        plan = replace(plan, weights={})  # words choose among embedders; a picture is for them all
    rankings = finder.rankings(
        plan,
        request.videos,
        limits,
        start=request.start or 0.0,
        end=math.inf if request.end is None else request.end,
        asked_at=math.inf if request.asked_at is None else request.asked_at,
        picture=None if picture is None else picture.frames,
        apart_from=None if picture is None else _around(picture.source),
        cancelled=cancelled,
    )
    videos = {row.info.video_id: row.info for row in bank.catalog.videos()}
    moments = [
        widen(moment, request.widen, videos[moment.video_id].duration)
        for moment in fuse(rankings, plan.weights)[: request.top]
    ]
    return SearchResult(
        moments,
        {moment.video_id: videos[moment.video_id] for moment in moments},
        [note for note in (limits.note, plan.note) if note],
        any(bank.text.runs(each) for each in request.videos or (None,)),
    )


def _around(source: VideoSpan | None) -> VideoSpan | None:
    """A moment of the bank with all that would count as the same hit."""
    return source and source._replace(start=source.start - NEAR_S, end=source.end + NEAR_S)
