"""The lines of a bank one after another, a few minutes in memory at a time. Knows no model."""

import math
from collections.abc import Iterator

from encoders.text.lines import KINDS, TextLine
from memory.bank_text import BankText
from memory.text.bm25 import LineFilter

_STRETCH_S = 600.0  # of video time whose lines are in memory together


def stream(text: BankText, line_filter: LineFilter) -> Iterator[TextLine]:
    """Every line that the filter lets through, video by video in order of time."""
    ends: dict[str, float] = {}
    for run in text.runs(line_filter.video_id):
        ends[run.video_id] = max(run.until, ends.get(run.video_id, 0.0))
    for video_id in sorted(ends):
        _, last = line_filter.span(video_id)
        begin = 0.0  # a line that begins early may reach into the span
        while begin < min(last, ends[video_id]):
            end = begin + _STRETCH_S
            if end >= ends[video_id]:
                end = math.inf  # a line may begin behind the end of its block
            found = text.during(video_id, begin, end)
            own = [one for one in found if begin <= one.start and line_filter.passes(one)]
            yield from sorted(own, key=lambda one: (one.start, one.end, KINDS.index(one.kind)))
            begin = end
