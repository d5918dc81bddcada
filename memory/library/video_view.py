"""What a question sees of each video, and which of these frames are selected for it.

Knows timelines, pending frames and places; no retriever, no cache tiers, no prompts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.compression.frame_pooling import pooled_counts
from encoders.schema import Segment
from encoders.text.lines import TextLine
from memory import frame_budget
from memory.cache.loader import frame_keys
from memory.cache.tiers import FrameKey
from memory.frame_budget import FrameSelection
from memory.pending import PendingRuns, visible_runs
from memory.resolution.schema import Candidates
from memory.retrieval.common import hits
from memory.schema import FrameName, Hits, Question, Stretch, VideoSpan
from memory.timeline import Timeline


@dataclass(frozen=True, slots=True)
class VideoView:
    """What a question sees of one video."""

    timeline: Timeline
    ranges: list[range]  # ordinals of written frames, rising
    pending: PendingRuns

    def in_frames(self) -> "VideoView":
        """The same where every frame costs 1."""
        pending = replace(self.pending, cost=np.ones_like(self.pending.cost))
        return replace(self, pending=pending)

    def at_ratio(self, ratio: int) -> "VideoView":
        """The same where pending frames cost a `ratio`-th of their tokens."""
        cost = pooled_counts(self.pending.cost, ratio)
        return self if ratio == 1 else replace(self, pending=replace(self.pending, cost=cost))


@dataclass(frozen=True, slots=True)
class SelectedFrames:
    """The frames selected for one question, before they are loaded."""

    question: Question
    lines: tuple[TextLine, ...]  # text that is read with the frames
    views: dict[str, VideoView]  # by id, in the question's order
    hits: Hits
    frames: FrameSelection  # places in the stretches of `hits`
    per_layer: np.ndarray | None  # [L, n] int64 rising places, without pending frames
    per_head: np.ndarray | None  # [L, Hq, n], as per_layer
    seconds: float  # of the search
    newest_ratio: int = 1  # of pending frames

    def ordinals(self, places: Iterable[int]) -> dict[str, list[int]]:
        """Ordinals of written frames by video. places: rising, or best first."""
        chosen = hits(places, [], self.hits.stretches).names
        by_video: dict[str, list[int]] = {video_id: [] for video_id in self.views}
        for name in chosen:
            by_video[name.video_id].append(name.ordinal)
        return by_video

    @property
    def ratios(self) -> dict[FrameName, int]:
        """The ratio of each written frame that is not read whole."""
        places = list(self.frames.ratios)
        names = hits(places, [], self.hits.stretches).names
        return dict(zip(names, self.frames.ratios.values(), strict=True))


def view_of(
    question: Question,
    video_id: str,
    timeline: Timeline,
    segments: Sequence[Segment],
    intervals: Mapping[str, float],
    kv: bool,
    leans: bool = False,
) -> VideoView:
    """segments: the pending ones. leans: frames may lean on whole ones before them, which a stretch
    of seconds then begins with: a picture is shown until it changes."""
    interval = intervals[video_id]
    ranges = timeline.ranges(question.spans_of(video_id), interval, question.moment(video_id))
    ranges = timeline.with_holders(ranges) if leans else ranges
    pending = visible_runs(
        segments,
        question,
        number=timeline.next_number,
        first=len(timeline),
        interval=interval,
        kv=kv,
    )
    return VideoView(timeline, ranges, pending)


def share_budget(
    views: Mapping[str, VideoView], read_tokens: int, *, is_all: bool
) -> dict[str, VideoView]:
    """The videos with as many pending frames as may be read, the newest ones. is_all: there are no
    written frames; otherwise pending frames take at most half of the budget."""
    showing = [video for video in views.values() if len(video.pending)]
    budget = read_tokens
    if not is_all:
        budget //= 2
        if len(showing) == 1:
            budget = max(budget, int(showing[0].pending.cost[-1]))
    share = budget // len(showing)
    return {
        video_id: replace(video, pending=video.pending.newest(share))
        for video_id, video in views.items()
    }


def candidates_of(
    views: Mapping[str, VideoView],
    stretches: Sequence[Stretch],
    cost: np.ndarray,
    ranking: Sequence[int],
    kept: int,
) -> Candidates:
    """The written frames that a question sees. cost: [places] tokens. ranking: places, best first;
    `kept` of them are of earlier rounds."""
    firsts = np.cumsum([0, *(len(video.timeline.numbers) for video in views.values())])
    first_of = dict(zip(views, firsts.tolist(), strict=False))
    segments, ages = [], []
    for video_id, first, stop in stretches:
        timeline, ranges = views[video_id].timeline, views[video_id].ranges
        within = np.searchsorted(timeline.edges, np.arange(first, stop), side="right") - 1
        segments.append(first_of[video_id] + within)
        ages.append(timeline.times[ranges[-1].stop - 1] - timeline.times[first:stop])
    return Candidates(cost, ranking, np.concatenate(segments), np.concatenate(ages), kept)


def holder_places(
    views: Mapping[str, VideoView], stretches: Sequence[Stretch]
) -> Mapping[int, int]:
    """Place of each frame that leans on a whole one -> the place of that one."""
    places: dict[int, int] = {}
    begin = 0
    for video_id, first, stop in stretches:
        holders = views[video_id].timeline.holders(stop)
        for ordinal in (first + np.flatnonzero(holders[first:] < np.arange(first, stop))).tolist():
            place = place_of(FrameName(video_id, int(holders[ordinal])), stretches)
            if place is not None:
                places[begin + ordinal - first] = place
        begin += stop - first
    return places


def place_near(
    near: VideoSpan, views: Mapping[str, VideoView], stretches: Sequence[Stretch]
) -> int | None:
    """The place of the frame in the middle of a stretch of seconds; None if it is not seen."""
    video = views.get(near.video_id)
    if video is None or not video.ranges:
        return None
    ordinal = video.timeline.frame_of(near.start, near.end, video.ranges[-1].stop)
    return None if ordinal is None else place_of(FrameName(near.video_id, ordinal), stretches)


def place_of(name: FrameName, stretches: Sequence[Stretch]) -> int | None:
    begin = 0
    for video_id, first, stop in stretches:
        if video_id == name.video_id and first <= name.ordinal < stop:
            return begin + name.ordinal - first
        begin += stop - first
    return None


def frames_of(
    groups: Iterable[Mapping[str, Iterable[int]]], timelines: Mapping[str, Timeline], kv: bool
) -> tuple[list[FrameName], list[FrameKey]]:
    """The union of frames, by video and in time order, and their keys in the cache. groups: video
    -> ordinals."""
    union: dict[str, set[int]] = {video_id: set() for video_id in timelines}
    for group in groups:
        for video_id, ordinals in group.items():
            union[video_id].update(ordinals)
    names, keys = list[FrameName](), list[FrameKey]()
    for video_id, chosen in union.items():
        ordinals = sorted(chosen)
        names += [FrameName(video_id, ordinal) for ordinal in ordinals]
        keys += frame_keys(video_id, ordinals, timelines[video_id], kv)
    return names, keys


def likely_next(selected: SelectedFrames, most: int) -> dict[str, list[int]]:
    """Ordinals of written frames that a follow-up question is likely to need, by video."""
    recent, ranked = map(selected.ordinals, (selected.frames.recent, selected.frames.ranked))
    return {
        video_id: frame_budget.neighbors(
            FrameSelection(recent[video_id], ranked[video_id], 0),
            len(video.timeline),
            most // len(selected.views),
        )
        for video_id, video in selected.views.items()
        if most
    }
