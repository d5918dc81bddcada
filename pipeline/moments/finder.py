"""Moments of one video or of a whole bank for a question: every channel ranks, the ranks are fused.

Knows the bank, the planner and the clock; no configuration, no output. Channels: the kinds of text lines; `picture`, the
nearness of frames to the words (clip); `kv`, the frames whose keys answer the question's queries in the language model. For the
last two the bank's retriever is fused and has parts of these names. With a sentence encoder lines are also ranked by their
vectors (`dense`) and by their tokens (`late`). Ranks are fused (memory/retrieval/fusion.py) with the planner's weights.
"""

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from encoders.text.lines import KINDS, SentenceEncoder
from memory.bank import MemoryBank
from memory.retrieval.fusion import Moment, fuse
from memory.text.bm25 import LineFilter, RankedLine
from memory.text.maxsim import maxsim
from pipeline.query import plan as planner
from pipeline.query import wall_clock
from pipeline.query.batched import BatchedQueries
from pipeline.query.plan import DENSE, FRAMES, LATE, Planner, QueryPlan
from pipeline.query.time_phrases import Span
from pipeline.query.wall_clock import NOWHERE, VideoLimits

DEPTH = 50  # moments of each channel that are fused
# videos with stretches of their own that are searched each for itself; of more, what is found elsewhere is left out
OWN = 64


@dataclass(frozen=True)
class Finder:
    """Searches a bank."""

    bank: MemoryBank
    channels: tuple[str, ...] = planner.CHANNELS
    sentences: SentenceEncoder | None = (
        None  # encoders/text/mean_pooled_encoder.py; None: lines are ranked by their words alone
    )
    late_lines: int = 0  # the best so many by words and by vectors that are compared token by token
    planner: Planner = planner.plan
    # what the bank's retrievers need of a text: computed once, not for every video
    queries: tuple[BatchedQueries, ...] = ()

    def find(
        self,
        question: str,
        video_id: str | None = None,
        *,
        start: float = 0.0,
        end: float = math.inf,
        asked_at: float = math.inf,
        top: int = 10,
    ) -> list[Moment]:
        """At most `top` moments, best first, fused from all channels."""
        plan, limits = self.plan(question, video_id)
        return fuse(
            self.rankings(plan, video_id, limits, start=start, end=end, asked_at=asked_at),
            plan.weights,
        )[:top]

    def plan(self, question: str, video_id: str | None = None) -> tuple[QueryPlan, VideoLimits]:
        """How a question is looked for, and what it says by the clock on the wall."""
        ids = [video_id] if video_id else [row.info.video_id for row in self.bank.catalog.videos()]
        limits = wall_clock.resolve(question, self.bank, ids, time.time())
        return self.planner(limits.text), limits

    def rankings(
        self,
        plan: QueryPlan,
        video_id: str | None = None,
        limits: VideoLimits | None = None,
        *,
        start: float = 0.0,
        end: float = math.inf,
        asked_at: float = math.inf,
    ) -> dict[str, list[Moment]]:
        """The moments of each channel, best first."""
        everywhere = {}
        for row in self.bank.catalog.videos():
            if video_id in (None, row.info.video_id):
                low, high = plan.time.span(self.bank.catalog.duration(row))
                if limits is not None:
                    low, high = limits.within(row.info.video_id, (low, high))
                everywhere[row.info.video_id] = max(start, low), min(end, high)
        spans = {each: span for each, span in everywhere.items() if span[0] < span[1]}
        alike = len(set(everywhere.values())) == 1  # as a rule
        low, high = next(iter(everywhere.values())) if alike else (start, end)
        own = {} if alike or len(spans) > OWN else spans
        found: dict[str, list[Moment]] = {}
        kinds = tuple(channel for channel in self.channels if channel in KINDS)
        if kinds:
            wanted = LineFilter(
                video_id, kinds if set(kinds) != set(KINDS) else (), low, high, asked_at, own
            )
            for one in (
                self.bank.text.search(plan.query, wanted, DEPTH * len(kinds)) if spans else ()
            ):
                if one.line.kind in kinds and _overlaps(one, spans):
                    found.setdefault(one.line.kind, []).append(_moment(one))
            found |= self._by_meaning(plan, wanted, kinds, spans)
        with ExitStack() as stack:
            for queries in self.queries:
                stack.enter_context(queries.prepared([plan.text]))
            for channel in (channel for channel in FRAMES if channel in self.channels):
                shown = [
                    moment
                    for each, span in spans.items()
                    for moment in self.bank.rank_frames(
                        plan.text, each, during=span, asked_at=asked_at, most=DEPTH, part=channel
                    )
                ]
                shown.sort(key=lambda moment: (-moment.score, moment.video_id, moment.start))
                found[channel] = shown[:DEPTH]
        return found

    def _by_meaning(
        self, plan: QueryPlan, wanted: LineFilter, kinds: tuple[str, ...], spans: Mapping[str, Span]
    ) -> dict[str, list[Moment]]:
        """Lines by their vectors, and the best lines by their tokens. Quoted words have to be there: then only words count."""
        if self.sentences is None or plan.query.phrases or not spans:
            return {}
        near = self.bank.text.nearest(self.sentences.embed([plan.text])[0].numpy(), wanted, DEPTH)
        near = [one for one in near if _overlaps(one, spans)]
        found = {DENSE: [_moment(one) for one in near]}
        if self.late_lines:
            named = self.bank.text.search(plan.query, wanted, self.late_lines)
            both = {
                one.line: one for one in (*named, *near[: self.late_lines]) if _overlaps(one, spans)
            }
            question, *lines = self.sentences.tokens([plan.text, *(line.text for line in both)])
            scored = [
                (maxsim(question, tokens), one)
                for tokens, one in zip(lines, both.values(), strict=True)
            ]
            scored.sort(key=lambda pair: (-pair[0], pair[1].line.video_id, pair[1].line.start))
            found[LATE] = [
                _moment(replace(one, score=score, coverage=score)) for score, one in scored
            ]
        return found


def _overlaps(found: RankedLine, spans: Mapping[str, Span]) -> bool:
    low, high = spans.get(found.line.video_id, NOWHERE)
    return found.line.start < high and found.line.end > low


def _moment(found: RankedLine) -> Moment:
    line = found.line
    at = (line.start + min(line.end, line.start + 2.0)) / 2  # early in what may stay for minutes
    return Moment(
        line.video_id,
        found.start,
        found.end,
        found.score,
        (line.kind,),
        (line,),
        at,
        found.coverage,
    )
