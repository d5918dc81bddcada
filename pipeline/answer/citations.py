"""From attention to citation: which recalled frames an answer rests on, as time spans. Knows no
model."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from memory.schema import Evidence, FrameName, VideoSpan
from memory.storage.catalog import Session
from pipeline.schema import CitedFrame, CitedVideo
from pipeline.scorers.spans import Span, union


def cite(
    evidence: Evidence, weights: dict[FrameName, float], share: float
) -> tuple[CitedFrame, ...]:
    """Frames whose weight is at least `share` of the heaviest one's and above an even spread,
    heaviest first."""
    if not weights:
        return ()
    scores = dict(zip(evidence.hits.names, evidence.hits.scores.tolist(), strict=True))
    least = max(share * max(weights.values()), 1.0 / len(weights))
    segments = [run.segment for run in evidence.runs for _ in run.ordinals]
    cited = [
        CitedFrame(*name, segment, start, end, weights[name], scores.get(name))
        for name, segment, (start, end) in zip(
            evidence.names, segments, frame_spans(evidence), strict=True
        )
        if weights.get(name, 0.0) >= least
    ]
    return tuple(sorted(cited, key=lambda frame: (-frame.weight, frame.time)))


def cited_spans(cited: Sequence[CitedFrame], interval: float) -> tuple[Span, ...]:
    """Unions of the cited frames' spans, in time order; spans less than half an interval apart
    become one."""
    return _joined([(frame.time, frame.end) for frame in cited], interval)


def recalled_spans(evidence: Evidence, video_id: str) -> tuple[Span, ...]:
    """The same of all frames of a video that were read."""
    spans = zip(evidence.names, frame_spans(evidence), strict=True)
    return _joined([span for name, span in spans if name.video_id == video_id], evidence.interval)


def main_video(evidence: Evidence, cited: Sequence[CitedFrame]) -> str:
    """The video that an answer rests on most; without citations, that of the best frame."""
    weights: dict[str, float] = {}
    for frame in cited:
        weights[frame.video_id] = weights.get(frame.video_id, 0.0) + frame.weight
    if weights:
        return max(weights, key=lambda video_id: weights[video_id])
    ranked = evidence.hits.names[:1]
    return ranked[0].video_id if ranked else evidence.question.videos[0]


def cited_videos(
    evidence: Evidence, cited: Sequence[CitedFrame], paths: Mapping[str, str]
) -> tuple[CitedVideo, ...]:
    """What is cited and what was read of each video. paths: by id."""
    return tuple(
        CitedVideo(
            video_id,
            paths.get(video_id, ""),
            cited_spans([one for one in cited if one.video_id == video_id], evidence.interval),
            recalled_spans(evidence, video_id),
        )
        for video_id in evidence.videos
    )


def on_wall_clock(
    spans: Sequence[Span], sessions: Sequence[Session]
) -> tuple[tuple[float, float], ...]:
    """Unix seconds of each span; () where one is in no session."""
    found = []
    for start, end in spans:
        began = [each.began for each in sessions if each.start <= start < each.end]
        found += [(start + each, end + each) for each in began[-1:]]
    return tuple(found) if len(found) == len(spans) else ()


def union_by_video(spans: Iterable[VideoSpan], gap: float = 0.0) -> tuple[VideoSpan, ...]:
    """The union of the spans of each video; videos in the order in which they come first."""
    by_video: dict[str, list[Span]] = {}
    for video_id, start, end in spans:
        by_video.setdefault(video_id, []).append((start, end))
    return tuple(
        VideoSpan(video_id, *span) for video_id, own in by_video.items() for span in union(own, gap)
    )


def _joined(spans: Iterable[Span], interval: float) -> tuple[Span, ...]:
    return tuple((round(a, 3), round(b, 3)) for a, b in union(spans, 0.5 * interval))


def frame_spans(evidence: Evidence) -> list[Span]:
    """The stretch of video that each frame stands for, in time order."""
    if not evidence.runs:
        return []
    starts = torch.cat([run.tokens.starts for run in evidence.runs]).tolist()
    times = torch.cat([run.tokens.times for run in evidence.runs]).tolist()
    return [(start, time + evidence.interval) for start, time in zip(starts, times, strict=True)]
