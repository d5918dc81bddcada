"""Recall: select frames for questions within a token budget, then load them.

Knows the retriever, the pending frames and the cache; no prompts, and nothing about how frames are
written.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from encoders.schema import Segment
from encoders.text.lines import TextLine
from memory import frame_budget
from memory.bank_catalog import BankCatalog
from memory.cache.loader import FrameLoader, frame_keys
from memory.frame_budget import FrameSelection
from memory.pending import PendingFrames, PendingRuns, to_device, visible_runs
from memory.retrieval.common import hits
from memory.retrieval.fused import FusedRetriever, fuse_frames
from memory.retrieval.fusion import Moment
from memory.retrieval.searchable import SearchableVideos
from memory.schema import Evidence, Hits, Question, Run
from memory.text.vectors import TextVectors
from memory.timeline import Timeline

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class SelectedFrames:
    """The frames selected for one question, before they are loaded."""

    question: Question
    lines: tuple[TextLine, ...]  # text that is read with the frames
    pending: PendingRuns
    hits: Hits
    frames: FrameSelection
    per_layer: np.ndarray | None  # [L, n] int64 rising ordinals, pending frames included
    seconds: float  # of the search


class Recall:
    """Answers questions with frames. Threads: many recall while one writes."""

    def __init__(
        self,
        catalog: BankCatalog,
        searchable: SearchableVideos,
        pending: PendingFrames,
        frames: FrameLoader,
        vectors: TextVectors,
        *,
        recent_frames: int,
        ram_bytes: int,
        device: torch.device | None,
        counts_frames: bool = False,
    ) -> None:
        """recent_frames: newest frames that every question sees. ram_bytes: for search rows, and
        for frames in what they leave. device: where evidence is needed; None: RAM. counts_frames:
        the budget `read_tokens` is a number of frames, for a reader that reads no tokens."""
        self._catalog, self._searchable, self._vectors = catalog, searchable, vectors
        self._pending, self._frames = pending, frames
        self._recent_frames, self._ram_bytes, self._device = recent_frames, ram_bytes, device
        self._counts_frames = counts_frames

    def recall_all(
        self,
        questions: Sequence[Question],
        *,
        read_tokens: int,
        kv: bool,
        lines: Sequence[Sequence[TextLine]] | None,
        near: Sequence[Spans] | None,
    ) -> list[Evidence]:
        """1 select frames for every question, 2 load their union once, 3 read ahead when the
        evidence is released."""
        none: list[tuple[()]] = [()] * len(questions)
        video_id = questions[0].video_id
        if any(question.video_id != video_id for question in questions):
            raise ValueError("questions about several videos cannot share what they recall")
        interval = self._catalog.require_video(video_id).interval
        # pending before timeline: a segment that is written in between is then in the timeline
        pending = self._pending.of(video_id)
        with self._searchable.searching(video_id) as timeline:  # 1
            selected = [
                self._select(question, read, spans, timeline, pending, read_tokens, kv)
                for question, read, spans in zip(
                    questions, lines or none, near or none, strict=True
                )
            ]
        began = time.perf_counter()
        self.share_ram()
        union = sorted(set().union(*(each.frames.ordinals for each in selected)))
        runs, lease = self._frames.load(frame_keys(video_id, union, timeline, kv), union)  # 2
        run_of = dict(zip(union, runs, strict=True))
        seconds = (time.perf_counter() - began) / len(questions)
        group = [
            self._evidence(each, run_of, interval, seconds, lease.came_from) for each in selected
        ]
        likely = [
            frame_budget.neighbors(each.frames, len(timeline), self._frames.prefetch_frames)
            for each in selected
        ]
        ahead = sorted(set().union(*likely).difference(union))
        return self._frames.lend(group, lease, frame_keys(video_id, ahead, timeline, kv))  # 3

    def rank_frames(
        self,
        text: str,
        video_id: str,
        *,
        during: tuple[float, float],
        asked_at: float,
        most: int,
        part: str,
    ) -> list[Moment]:
        """Frames ranked by the retriever alone, best first; no frame is loaded."""
        video = self._catalog.require_video(video_id)
        retriever = self._searchable.retriever
        if part and isinstance(retriever, FusedRetriever):
            retriever = retriever.parts[part]
        with self._searchable.searching(video_id) as timeline:
            count = timeline.visible(asked_at)
            if count == 0:
                return []
            is_bounded = during != (0.0, math.inf)
            ranked = retriever.search(
                Question(text, video_id, asked_at), count if is_bounded else most, count
            )
            moments = []
            for ordinal, score in zip(ranked.frames.tolist(), ranked.scores.tolist(), strict=True):
                start = float(timeline.times[ordinal])
                if start < during[1] and start + video.interval > during[0]:
                    moments.append(
                        Moment(video_id, start, start + video.interval, score, (), at=start)
                    )
            return moments[:most]

    def share_ram(self) -> None:
        """Search rows come first; recalled frames get the RAM that the rows leave."""
        self._frames.tiers.resize_ram(max(0, self._ram_bytes - self._index_bytes()))

    def in_memory(self) -> dict[str, int]:
        """Bytes of search rows ("index"), and of frames ("ram" and "device")."""
        return {"index": self._index_bytes()} | self._frames.tiers.nbytes()

    def _index_bytes(self) -> int:
        return self._searchable.retriever.nbytes + self._vectors.nbytes

    def _select(
        self,
        question: Question,
        lines: Sequence[TextLine],
        near: Spans,
        timeline: Timeline,
        segments: Sequence[Segment],
        read_tokens: int,
        kv: bool,
    ) -> SelectedFrames:
        """Pending frames first, then the newest written ones, then the ranked ones, as many as the
        budget holds. segments: the pending ones."""
        began = time.perf_counter()
        first, stop = timeline.first(question.since), timeline.visible(question.asked_at)
        cost = timeline.tokens[first:stop]
        pending = visible_runs(
            segments, question, number=timeline.next_number, first=len(timeline), kv=kv
        )
        if self._counts_frames:
            cost, pending = np.ones_like(cost), replace(pending, cost=np.ones_like(pending.cost))
        frame_budget.refuse_too_small(
            np.concatenate([cost, pending.cost]), self._recent_frames, read_tokens
        )
        if len(pending):
            half = max(read_tokens // 2, int(pending.cost[-1]))
            pending = pending.newest(half if len(cost) else read_tokens)
        frames_of = (timeline.frame_of(start, end, stop) for start, end in near)
        near_frames = [frame for frame in frames_of if frame is not None and frame >= first]
        ranked, frames, per_layer = self._rank(
            question, first, cost, pending, near_frames, read_tokens
        )
        seconds = time.perf_counter() - began
        return SelectedFrames(question, tuple(lines), pending, ranked, frames, per_layer, seconds)

    def _rank(
        self,
        question: Question,
        first: int,
        cost: np.ndarray,
        pending: PendingRuns,
        near: Sequence[int],
        read_tokens: int,
    ) -> tuple[Hits, FrameSelection, np.ndarray | None]:
        """Written frames within the budget that pending frames leave. Frames are ranked even if all
        fit: the reader of an answer wants to know which frames the question matched. cost:
        [visible] tokens of each frame from ordinal `first` on.
        """
        read_tokens -= int(pending.cost.sum())
        newest = frame_budget.newest(cost, max(self._recent_frames - len(pending), 0), read_tokens)
        if len(cost) == 0:
            return hits([], []), newest, None
        ranked = self._searchable.retriever.search(
            question, frame_budget.ranking_depth(cost, newest), first + len(cost), first
        )
        if near and ranked.per_layer is None:
            ranked = fuse_frames(ranked, near)
        ranking = [
            *(i - first for i in question.keep if 0 <= i - first < len(cost)),
            *(ranked.frames - first).tolist(),
        ]
        if int(cost.sum()) <= read_tokens:
            return ranked, frame_budget.fill(newest, range(len(cost)), cost).shifted(first), None
        if ranked.per_layer is None:
            return ranked, frame_budget.fill(newest, ranking, cost).shifted(first), None
        chosen, layers = frame_budget.fill_layers(
            newest, (ranked.per_layer - first).numpy(), ranking, cost
        )
        pending_ordinals = np.array([run.first for run in pending.runs], np.int64)
        layers = np.concatenate(  # every layer reads the pending frames
            [first + layers, np.tile(pending_ordinals, (len(layers), 1))], axis=1
        )
        return ranked, chosen.shifted(first), layers

    def _evidence(
        self,
        selected: SelectedFrames,
        run_of: Mapping[int, Run],
        interval: float,
        seconds: float,
        came_from: Mapping[str, int],
    ) -> Evidence:
        """run_of: the loaded frames by ordinal. seconds: this question's share of loading."""
        pending, per_layer = selected.pending, selected.per_layer
        return Evidence(
            question=selected.question,
            runs=(
                *(run_of[ordinal] for ordinal in selected.frames.ordinals),
                *to_device(pending.runs, self._device),
            ),
            hits=selected.hits,
            recent=len(selected.frames.recent) + len(pending),
            interval=interval,
            per_layer=None if per_layer is None else torch.from_numpy(per_layer),
            seconds={"search": selected.seconds, "load": seconds},
            came_from=dict(came_from) | ({"pending": len(pending)} if len(pending) else {}),
            lines=selected.lines,
        )
