"""Moments of one video or of a whole bank for a question: channels rank, then ranks are fused.

Knows the bank, the planner and the clock; no configuration, no output. Channels:
- the kinds of text lines: subtitle, speech, ocr, detection, object, label, caption;
- `picture`: frames near to the words (clip); with several frame embedders one channel for each,
  such as `picture:conse`;
- `kv`: frames whose keys answer the question's queries in the language model.
For these the bank's retriever is a fused one with parts of these names. A sentence encoder
also ranks lines by their vectors (`dense`) and by their tokens (`late`), and a scan of all lines
by the attention that a question pays to them (`attention`). The planner's weights enter the fusion
(memory/retrieval/fusion.py).
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from encoders.schema import Frames
from encoders.text.lines import KINDS, SentenceEncoder
from memory.bank import MemoryBank
from memory.retrieval.fusion import Moment, fuse
from memory.schema import Question, VideoSpan
from memory.text.bm25 import LineFilter, RankedLine
from memory.text.maxsim import maxsim
from pipeline.answer.line_scan.line_stream import stream
from pipeline.answer.line_scan.schema import LineScan
from pipeline.query import wall_clock
from pipeline.query.batched import BatchedQueries
from pipeline.query.picture_weights import picture_weights
from pipeline.query.plan import (
    ATTENTION,
    CHANNELS,
    DENSE,
    LATE,
    PICTURE,
    Planner,
    QueryPlan,
    looks_at_frames,
    picture_of,
)
from pipeline.query.plan import plan as plan_by_rules
from pipeline.query.time_limits import video_spans
from pipeline.query.time_phrases import Span
from pipeline.query.wall_clock import NOWHERE, VideoLimits
from pipeline.runtime.cancel import raise_if_cancelled

DEPTH = 50  # moments of each channel that are fused
# Up to this many videos with different spans, each is searched on its own. Of more, one search
# covers all, and moments outside of their video's span are dropped.
MAX_OWN_SPANS = 64


@dataclass(frozen=True)
class Finder:
    """Searches a bank."""

    bank: MemoryBank
    channels: tuple[str, ...] = CHANNELS
    # encoders/text/mean_pooled_encoder.py; None: lines are ranked by their words alone
    sentence_encoder: SentenceEncoder | None = None
    late_lines: int = 0  # best lines by words and by vectors to compare token by token
    line_scan: LineScan | None = None  # reads every line; None: no
    planner: Planner = plan_by_rules
    # what the bank's retrievers need of a text, computed once for all videos
    queries: tuple[BatchedQueries, ...] = ()
    # frame embedders with a channel each, where there are several
    picture_names: tuple[str, ...] = ()

    def find(
        self,
        question: str,
        videos: str | Sequence[str] | None = None,
        *,
        start: float = 0.0,
        end: float = math.inf,
        asked_at: float = math.inf,
        top: int = 10,
    ) -> list[Moment]:
        """At most `top` moments, best first, fused from all channels.

        videos: an id or several; None: all. start, end: seconds of video time. asked_at: second of
        each of these videos after which nothing counts.
        """
        plan, limits = self.plan(question, videos)
        rankings = self.rankings(plan, videos, limits, start=start, end=end, asked_at=asked_at)
        return fuse(rankings, plan.weights)[:top]

    def plan(
        self, question: str, videos: str | Sequence[str] | None = None
    ) -> tuple[QueryPlan, VideoLimits]:
        """How to search for a question, and its limits by the clock on the wall. videos: as in
        `find`."""
        ids = _ids(videos) or [row.info.video_id for row in self.bank.catalog.videos()]
        limits = wall_clock.resolve(question, self.bank, ids, time.time())
        plan = self.planner(limits.text)
        weights = {
            picture_of(name): share * plan.weights.get(PICTURE, 1.0)
            for name, share in picture_weights(plan.text, self.picture_names).items()
        }
        return replace(plan, weights=plan.weights | weights), limits

    def rankings(
        self,
        plan: QueryPlan,
        videos: str | Sequence[str] | None = None,
        limits: VideoLimits | None = None,
        *,
        start: float = 0.0,
        end: float = math.inf,
        asked_at: float = math.inf,
        picture: Frames | None = None,
        apart_from: VideoSpan | None = None,
        cancelled: threading.Event | None = None,
    ) -> dict[str, list[Moment]]:
        """The moments of each channel, best first. videos: as in `find`.

        picture: a picture or the frames of a clip to search for, with the words if there are any;
        only channels with a frame embedder take part. apart_from: a stretch that is no result.
        cancelled: once it is set, Cancelled is raised between two channels or videos.
        """
        raise_if_cancelled(cancelled)
        ids = _ids(videos)
        everywhere = self._spans(plan, ids, limits, (start, end))
        spans = {each: span for each, span in everywhere.items() if span[0] < span[1]}
        is_same = len(set(everywhere.values())) == 1  # the usual case
        low, high = next(iter(everywhere.values())) if is_same else (start, end)
        is_one = is_same and len(ids) < 2  # one search covers all
        own = {} if is_one or (not ids and len(spans) > MAX_OWN_SPANS) else spans
        # of several videos, words are counted in these alone, up to the moment
        moments = dict.fromkeys(own, asked_at) if len(ids) > 1 else {}
        if picture is not None:
            limits_of = _apart(spans, apart_from)
            seen = tuple(each for each, stretches in limits_of.items() if stretches)
            question = seen and Question(
                plan.text, seen, asked_at, spans=limits_of, picture=picture
            )
            return self._by_picture(question) if question else {}
        rankings: dict[str, list[Moment]] = {}
        kinds = tuple(channel for channel in self.channels if channel in KINDS)
        if kinds and spans:
            all_or_some = kinds if set(kinds) != set(KINDS) else ()
            video_id = ids[0] if len(ids) == 1 else None
            line_filter = LineFilter(video_id, all_or_some, low, high, asked_at, own, moments)
            rankings |= self._by_words(plan, line_filter, kinds, spans)
            raise_if_cancelled(cancelled)
            rankings |= self._by_meaning(plan, line_filter, spans)
            rankings |= self._by_attention(plan, line_filter, spans)
        return rankings | self._by_frames(plan, spans, asked_at, cancelled)

    def _spans(
        self, plan: QueryPlan, ids: Sequence[str], limits: VideoLimits | None, within: Span
    ) -> dict[str, Span]:
        """The seconds of each video to search, some of them empty."""
        durations = {
            row.info.video_id: self.bank.catalog.duration(row)
            for row in self.bank.catalog.videos()
            if not ids or row.info.video_id in ids
        }
        return {
            each: (max(within[0], low), min(within[1], high))
            for each, (low, high) in video_spans(plan.time, limits, durations).items()
        }

    def _by_words(
        self,
        plan: QueryPlan,
        line_filter: LineFilter,
        kinds: tuple[str, ...],
        spans: Mapping[str, Span],
    ) -> dict[str, list[Moment]]:
        """Lines by their words, a ranking for each kind."""
        rankings: dict[str, list[Moment]] = {}
        for one in self.bank.text.search(plan.query, line_filter, DEPTH * len(kinds)):
            if one.line.kind in kinds and _overlaps(one, spans):
                rankings.setdefault(one.line.kind, []).append(_moment(one))
        return rankings

    def _by_frames(
        self,
        plan: QueryPlan,
        spans: Mapping[str, Span],
        asked_at: float,
        cancelled: threading.Event | None,
    ) -> dict[str, list[Moment]]:
        """Frames, by each channel that looks at them."""
        rankings: dict[str, list[Moment]] = {}
        with ExitStack() as stack:
            for queries in self.queries:
                stack.enter_context(queries.prepared([plan.text]))
            for channel in filter(looks_at_frames, self.channels):
                if plan.weights.get(channel) == 0:
                    continue  # another frame embedder is for this question
                raise_if_cancelled(cancelled)
                moments = self._in_one_search(channel, plan, spans, asked_at)
                if moments is None:
                    moments = []
                    for each, span in spans.items():
                        raise_if_cancelled(cancelled)
                        moments += self.bank.rank_frames(
                            plan.text,
                            each,
                            during=span,
                            asked_at=asked_at,
                            most=DEPTH,
                            part=channel,
                        )
                moments.sort(key=lambda moment: (-moment.score, moment.video_id, moment.start))
                rankings[channel] = moments[:DEPTH]
        return rankings

    def _by_picture(self, question: Question) -> dict[str, list[Moment]]:
        """Frames that look like a picture, by each frame embedder."""
        ranked = {
            channel: self.bank.library.rank_frames(question, DEPTH, channel)
            for channel in self.channels
            if looks_at_frames(channel)
        }
        return {channel: moments for channel, moments in ranked.items() if moments is not None}

    def _in_one_search(
        self, channel: str, plan: QueryPlan, spans: Mapping[str, Span], asked_at: float
    ) -> list[Moment] | None:
        """Frames of many videos by one search; None where each video is searched on its own."""
        if len(spans) < 2:
            return None
        limits = {video_id: (span,) for video_id, span in spans.items()}
        question = Question(plan.text, tuple(spans), asked_at, spans=limits)
        return self.bank.library.rank_frames(question, DEPTH, channel)

    def _by_meaning(
        self, plan: QueryPlan, line_filter: LineFilter, spans: Mapping[str, Span]
    ) -> dict[str, list[Moment]]:
        """Lines by their vectors, and the best lines by their tokens.

        Nothing for a question with quoted words: they have to be in a line, so only words count.
        """
        if self.sentence_encoder is None or plan.query.phrases:
            return {}
        (vector,) = self.sentence_encoder.embed([plan.text])
        near = self.bank.text.nearest(vector.numpy(), line_filter, DEPTH)
        near = [one for one in near if _overlaps(one, spans)]
        rankings = {DENSE: [_moment(one) for one in near]}
        if self.late_lines:
            matching = self.bank.text.search(plan.query, line_filter, self.late_lines)
            matching = [one for one in matching if _overlaps(one, spans)]
            lines = {one.line: one for one in (*matching, *near[: self.late_lines])}
            texts = [plan.text, *(line.text for line in lines)]
            question, *tokens = self.sentence_encoder.tokens(texts)
            scored = [
                (maxsim(question, each), one)
                for each, one in zip(tokens, lines.values(), strict=True)
            ]
            scored.sort(key=lambda pair: (-pair[0], pair[1].line.video_id, pair[1].line.start))
            rankings[LATE] = [
                _moment(replace(one, score=score, coverage=score)) for score, one in scored
            ]
        return rankings

    def _by_attention(
        self, plan: QueryPlan, line_filter: LineFilter, spans: Mapping[str, Span]
    ) -> dict[str, list[Moment]]:
        """Lines by a scan of all of them; nothing for quoted words, as by meaning."""
        if self.line_scan is None or plan.query.phrases:
            return {}
        every = stream(self.bank.text, line_filter)
        ranked = self.line_scan.rank(plan.text, every, DEPTH)
        # attention cannot tell how much of the question a line covers
        return {
            ATTENTION: [replace(_moment(one), share=1.0) for one in ranked if _overlaps(one, spans)]
        }


def _ids(videos: str | Sequence[str] | None) -> tuple[str, ...]:
    """The ids of one video or of several; none: all videos."""
    return (videos,) if isinstance(videos, str) and videos else tuple(videos or ())


def _apart(spans: Mapping[str, Span], source: VideoSpan | None) -> dict[str, tuple[Span, ...]]:
    """The stretches of each video, without one that is left out."""
    stretches: dict[str, tuple[Span, ...]] = {each: (span,) for each, span in spans.items()}
    if source is not None and source.video_id in stretches:
        ((low, high),) = stretches[source.video_id]
        parts = ((low, min(high, source.start)), (max(low, source.end), high))
        stretches[source.video_id] = tuple(part for part in parts if part[0] < part[1])
    return stretches


def _overlaps(ranked: RankedLine, spans: Mapping[str, Span]) -> bool:
    low, high = spans.get(ranked.line.video_id, NOWHERE)
    return ranked.line.start < high and ranked.line.end > low


def _moment(ranked: RankedLine) -> Moment:
    line = ranked.line
    at = (line.start + min(line.end, line.start + 2.0)) / 2  # early in what may stay for minutes
    return Moment(
        line.video_id,
        ranked.start,
        ranked.end,
        ranked.score,
        (line.kind,),
        (line,),
        at,
        ranked.coverage,
    )
