"""Which lines of text a question may see. Knows no search and no frame."""

from memory.schema import Question
from memory.text.bm25 import LineFilter
from memory.timeline import Span


def lines_seen(question: Question, within: Span) -> LineFilter:
    """The lines that a question about one video may see, of those in a stretch of it."""
    video_id = question.video_id
    start, end = question.hull(video_id)
    return LineFilter(
        video_id,
        start=max(within[0], start),
        end=min(within[1], end),
        asked_at=question.moment(video_id),
    )
