"""Moments of a video for one row of a batch, by search alone (action=retrieve).

Knows the bank's search; no language model is asked and no frame is loaded. A query is a text, and a
picture or a clip beside it. Where the row names candidates, such as MomentSeeker's clips, these are
ranked, each by its best frame. Elsewhere the ranking of frames becomes moments, which are fused
with those of lines by rank.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from encoders.text.lines import KINDS
from memory.retrieval.fusion import Moment, fuse
from pipeline.batch.schema import Job
from pipeline.moments.finder import DEPTH, Finder
from pipeline.moments.picture_query import query_frames
from pipeline.qa import VideoQA
from pipeline.query.plan import PICTURE

TOP = 10  # moments that are kept of a ranking without candidates

Ranked = tuple[float, float, float]  # start and end in seconds, score


class MomentRetrieval:
    """Searches one bank."""

    def __init__(self, qa: VideoQA) -> None:
        self.qa = qa
        self._finder = Finder(qa.bank, KINDS, qa.ingester.text.sentence_encoder)

    def __call__(self, job: Job, video_id: str) -> list[Ranked]:
        """The moments of a video, best first. UserError where the query cannot be read."""
        frames = self._frames(job, video_id)
        if job.candidates:
            return rank_candidates(frames, job.candidates)
        plan, limits = self._finder.plan(job.query or job.question, video_id)
        asked_at = math.inf if job.asked_at is None else job.asked_at
        rankings = self._finder.rankings(plan, video_id, limits, asked_at=asked_at)
        interval = self.qa.bank.catalog.require_video(video_id).interval
        rankings[PICTURE] = join_frames(frames[:DEPTH], 2 * interval)
        moments = fuse(rankings, plan.weights)[:TOP]
        return [(one.start, one.end, one.score) for one in moments]

    def _frames(self, job: Job, video_id: str) -> list[Moment]:
        """All frames of the video that the row may see, best first."""
        catalog = self.qa.bank.catalog
        return self.qa.bank.rank_frames(
            job.query or job.question,
            video_id,
            asked_at=math.inf if job.asked_at is None else job.asked_at,
            most=sum(segment.frames for segment in catalog.segments(video_id)),
            picture=query_frames(Path(job.picture)) if job.picture else None,
        )


def rank_candidates(
    frames: Sequence[Moment], candidates: Sequence[tuple[float, float]]
) -> list[Ranked]:
    """Stretches of a video by the score of the best frame that is shown in them, best first; equal
    ones in time order, and those without a frame last."""
    ranked = []
    for start, end in candidates:
        scores = (one.score for one in frames if one.start < end and one.end > start)
        ranked.append((start, end, max(scores, default=-math.inf)))
    ranked.sort(key=lambda one: (-one[2], one[0]))
    return ranked


def join_frames(frames: Sequence[Moment], gap_s: float) -> list[Moment]:
    """Moments of frames that are at most so far apart, each with the score of its best frame; best
    first."""
    joined: list[Moment] = []
    for frame in sorted(frames, key=lambda one: one.start):
        last = joined[-1] if joined else None
        if last is None or frame.start - last.end > gap_s:
            joined.append(frame)
            continue
        best = max(last, frame, key=lambda one: one.score)
        joined[-1] = Moment(
            frame.video_id,
            last.start,
            max(last.end, frame.end),
            best.score,
            (),
            at=best.at,
        )
    return sorted(joined, key=lambda one: (-one.score, one.start))
