"""Which lines of text a question may see. Knows no search and no frame."""

import math
from collections.abc import Mapping

from memory.schema import Question
from memory.text.bm25 import LineFilter, RankedLine
from pipeline.query.time_limits import video_spans
from pipeline.query.time_phrases import VideoTime

_SEARCHED_APART = 64  # videos; of more, one search covers the bank


def lines_seen(question: Question, when: VideoTime, durations: Mapping[str, float]) -> LineFilter:
    """The lines that a question may see, of those at a time. durations: seconds of each video."""
    spans = {}
    for video_id, (low, high) in video_spans(when, None, durations).items():
        start, end = question.hull(video_id)
        spans[video_id] = max(low, start), min(high, end)
    if len(question.videos) == 1:
        start, end = spans[question.video_id]
        moment = question.moment(question.video_id)
        return LineFilter(question.video_id, start=start, end=end, asked_at=moment)
    moments = {each: question.moment(each) for each in question.videos}
    is_limited = set(spans.values()) != {(0.0, math.inf)} or min(moments.values()) < math.inf
    if not is_limited and len(spans) > _SEARCHED_APART:
        return LineFilter()
    return LineFilter(within=spans, moments=moments if min(moments.values()) < math.inf else {})


def is_asked(one: RankedLine, question: Question) -> bool:
    """Whether a line is in the videos and the stretches of a question."""
    line = one.line
    return line.video_id in question.videos and any(
        line.start < end and line.end > start for start, end in question.spans_of(line.video_id)
    )
