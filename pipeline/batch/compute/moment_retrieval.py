"""Moments of the videos of one row of a batch, by search alone (action=retrieve).

Knows the bank's search; no language model is asked and no frame is loaded. A query is a text, and a
picture or a clip beside it. Where the row names candidates, such as MomentSeeker's clips, these are
ranked, each by its best frame. Elsewhere the ranking of frames becomes moments, which are fused
with those of lines by rank. Several videos are ranked together, and so is a whole bank.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.text.lines import KINDS
from memory.retrieval.fusion import Moment, fuse
from memory.schema import Question, VideoSpan
from pipeline.batch.schema import Job
from pipeline.moments.finder import DEPTH, Finder
from pipeline.moments.picture_query import query_frames
from pipeline.qa import VideoQA
from pipeline.query.plan import PICTURE

TOP = 10  # moments that are kept of a ranking without candidates
MOST_VIDEOS = 64  # whose frames are ranked together; of more, those that fit the query best


class MomentRetrieval:
    """Searches one bank."""

    def __init__(self, qa: VideoQA) -> None:
        self.qa = qa
        self._finder = Finder(qa.bank, KINDS, qa.ingester.text.sentence_encoder)

    def __call__(self, job: Job, ids: Sequence[str]) -> list[Moment]:
        """The moments of videos, best first. UserError where the query cannot be read."""
        if job.candidates:
            (video_id,) = ids
            segments = self.qa.bank.catalog.segments(video_id)
            frames = self._frames(job, ids, sum(segment.frames for segment in segments))
            return rank_candidates(video_id, frames, job.candidates)
        plan, limits = self._finder.plan(job.query or job.question, ids)
        rankings = self._finder.rankings(plan, ids, limits, asked_at=_moment(job))
        if len(ids) > MOST_VIDEOS:
            near = [
                VideoSpan(one.video_id, one.start, one.end)
                for ranking in rankings.values()
                for one in ranking
            ]
            question = Question(job.query or job.question, ids, _moment(job))
            ids = self.qa.bank.library.best_videos(question, near, MOST_VIDEOS)
        gaps = {each: 2 * self.qa.bank.catalog.require_video(each).interval for each in ids}
        rankings[PICTURE] = join_frames(self._frames(job, ids, DEPTH), gaps)
        return fuse(rankings, plan.weights)[:TOP]

    def _frames(self, job: Job, ids: Sequence[str], most: int) -> list[Moment]:
        """Frames of the videos that the row may see, best first."""
        return self.qa.bank.rank_frames(
            job.query or job.question,
            ids,
            asked_at=_moment(job),
            most=most,
            picture=query_frames(Path(job.picture)) if job.picture else None,
        )


def _moment(job: Job) -> float:
    """Seconds of video time after which the row sees nothing."""
    return math.inf if job.asked_at is None else job.asked_at


def rank_candidates(
    video_id: str, frames: Sequence[Moment], candidates: Sequence[tuple[float, float]]
) -> list[Moment]:
    """Stretches of a video by the score of the best frame that is shown in them, best first; equal
    ones in time order, and those without a frame last."""
    ranked = []
    for start, end in candidates:
        scores = (one.score for one in frames if one.start < end and one.end > start)
        ranked.append(Moment(video_id, start, end, max(scores, default=-math.inf), ()))
    ranked.sort(key=lambda one: (-one.score, one.start))
    return ranked


def join_frames(frames: Sequence[Moment], gaps: Mapping[str, float]) -> list[Moment]:
    """Moments of frames that are near each other in their video, each with the score of its best
    frame; best first.

    gaps: seconds that frames of a moment may be apart, by video.
    """
    joined: list[Moment] = []
    for frame in sorted(frames, key=lambda one: (one.video_id, one.start)):
        last = joined[-1] if joined and joined[-1].video_id == frame.video_id else None
        if last is None or frame.start - last.end > gaps[frame.video_id]:
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
    return sorted(joined, key=lambda one: (-one.score, one.video_id, one.start))
