"""Recall: select frames for questions within a token budget, then load them.

Knows the retriever, the pending frames and the cache; no prompts, and nothing about how frames are
written.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from encoders.compression.frame_pooling import pooled_counts
from encoders.errors import UserError
from encoders.text.lines import TextLine
from memory import frame_budget
from memory.bank_catalog import BankCatalog
from memory.cache.loader import FrameLoader
from memory.cache.tiers import FrameKey
from memory.encoded.bank_encoding import BankEncoding
from memory.frame_budget import FrameSelection
from memory.library.library import Library
from memory.library.video_view import (
    SelectedFrames,
    VideoView,
    candidates_of,
    frames_of,
    holder_places,
    likely_next,
    place_near,
    place_of,
    share_budget,
    view_of,
)
from memory.pending import PendingFrames, to_device
from memory.resolution.schema import Resolution, WordResolution
from memory.retrieval.common import hits
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.fusion import Moment, fuse_frames
from memory.retrieval.searchable import SearchableVideos
from memory.schema import (
    Evidence,
    FrameName,
    Hits,
    Question,
    Run,
    Stretch,
    VideoSpan,
    VideoTitle,
)
from memory.text.vectors import TextVectors
from memory.timeline import Span, Timeline

EmbedWords = Callable[[str], torch.Tensor]  # a text -> [n, D] in the language model's space


class Recall:
    """Answers questions with frames. Threads: many recall while one writes."""

    def __init__(
        self,
        catalog: BankCatalog,
        searchable: SearchableVideos,
        library: Library,
        pending: PendingFrames,
        frames: FrameLoader,
        vectors: TextVectors,
        encoding: BankEncoding,
        *,
        recent_frames: int,
        ram_bytes: int,
        device: torch.device | None,
        resolution: Resolution,
        counts_frames: bool = False,
        leans: bool = False,
        words: EmbedWords | None = None,
    ) -> None:
        """recent_frames: newest frames that every question sees. ram_bytes: for search rows, and
        for frames in what they leave. device: where evidence is needed; None: RAM. resolution: how
        much of each frame is read, where a question does not say. counts_frames: the budget
        `read_tokens` is a number of frames, for a reader that reads no tokens. leans: a frame with
        one token leans on the last whole one, which is read before it. words: for resolutions that
        read frames by the words of a question."""
        self._catalog, self._searchable, self._vectors = catalog, searchable, vectors
        self._library, self._encoding = library, encoding
        self._pending, self._frames = pending, frames
        self._recent_frames, self._ram_bytes, self._device = recent_frames, ram_bytes, device
        self._resolution, self._counts_frames = resolution, counts_frames
        self._leans, self._words = leans, words

    def recall_all(
        self,
        questions: Sequence[Question],
        *,
        read_tokens: int,
        kv: bool,
        lines: Sequence[Sequence[TextLine]] | None,
        near: Sequence[Sequence[VideoSpan]] | None,
        titles: Mapping[str, VideoTitle],
    ) -> list[Evidence]:
        """1 select frames for every question, 2 load their union once, 3 read ahead when the
        evidence is released."""
        for question in questions if kv else ():
            if not (question.resolution or self._resolution).is_whole:
                raise UserError(
                    "resolution= pools visual tokens, and keys and values have no mean; use "
                    "reader=tokens, or resolution=uniform resolution.ratio=1."
                )
        none: list[tuple[()]] = [()] * len(questions)
        videos = dict.fromkeys(chain.from_iterable(each.videos for each in questions))
        interval = {each: self._catalog.require_video(each).interval for each in videos}
        # pending before timelines: a segment that is written in between is then in a timeline
        pending = {video_id: self._pending.as_read(video_id) for video_id in videos}
        encoding_s = 0.0
        with self._searchable.searching(videos) as timelines:  # 1
            examined: set[tuple[str, int]] = set()  # segments whose own costs are in the timelines
            while True:
                selected = [
                    self._select(
                        question,
                        read,
                        spans,
                        {
                            each: view_of(
                                question,
                                each,
                                timelines[each],
                                pending[each],
                                interval,
                                kv,
                                self._leans,
                            )
                            for each in question.videos
                        },
                        read_tokens,
                    )
                    for question, read, spans in zip(
                        questions, lines or none, near or none, strict=True
                    )
                ]
                names, keys = frames_of(
                    (each.ordinals(each.frames.ordinals) for each in selected), timelines, kv
                )
                if self._counts_frames:  # a reader of pictures needs no tokens
                    break
                encoding_s += self._encoding.encode_for(keys)
                if not self._price(timelines, keys, examined):
                    break
        began = time.perf_counter()
        self.share_ram()
        runs, lease = self._frames.load(keys, [name.ordinal for name in names])  # 2
        run_of = dict(zip(names, runs, strict=True))
        seconds = (time.perf_counter() - began) / len(questions)
        group = [
            self._evidence(
                each, run_of, interval[each.question.videos[0]], seconds, lease.came_from, titles
            )
            for each in selected
        ]
        if encoding_s:
            for each in group:
                each.seconds["encode"] = encoding_s / len(group)
        likely = [likely_next(each, self._frames.prefetch_frames) for each in selected]
        _, ahead = frames_of(likely, timelines, kv)
        ahead = [key for key in ahead if key not in set(keys)]
        if not self._counts_frames:
            ahead = self._encoding.encoded(ahead)
        return self._frames.lend(group, lease, ahead)  # 3

    def rank_frames(
        self, question: Question, *, during: Span, most: int, part: str
    ) -> list[Moment]:
        """Frames of a question's videos, ranked by the retriever alone, best first; no frame is
        loaded."""
        intervals = {each: self._catalog.require_video(each).interval for each in question.videos}
        retriever = self._searchable.retriever
        if part and isinstance(retriever, FusedRetriever):
            retriever = retriever.parts[part]
        with self._searchable.searching(question.videos) as timelines:
            times = {each: timelines[each].times for each in question.videos}
            stretches = [
                Stretch(each, ordinals.start, ordinals.stop)
                for each, interval in intervals.items()
                for ordinals in timelines[each].ranges([during], interval, question.moment(each))
            ]
            ranked = retriever.search(question, most, stretches)
        moments = []
        for name, score in zip(ranked.names, ranked.scores.tolist(), strict=True):
            start = float(times[name.video_id][name.ordinal])
            end = start + intervals[name.video_id]
            moments.append(Moment(name.video_id, start, end, score, (), at=start))
        return moments

    def share_ram(self) -> None:
        """Search rows come first; recalled frames get the RAM that the rows leave."""
        self._frames.tiers.resize_ram(max(0, self._ram_bytes - self._index_bytes()))

    def in_memory(self) -> dict[str, int]:
        """Bytes of search rows ("index"), and of frames ("ram" and "device")."""
        return {"index": self._index_bytes()} | self._frames.tiers.nbytes()

    def _price(
        self,
        timelines: dict[str, Timeline],
        keys: Sequence[FrameKey],
        examined: set[tuple[str, int]],
    ) -> bool:
        """Where segments come without visual tokens: put what the chosen ones cost, now that they
        are encoded, in the place of what was planned. Returns whether a budget may hold more.

        Every question begins with the plan, so what it reads does not depend on what others had
        encoded. examined: segments with their own costs; those of `keys` are added.
        """
        if not self._encoding.is_on_demand:
            return False
        new = {(key.video_id, key.segment) for key in keys} - examined
        examined |= new
        is_cheaper = False
        for video_id in {video_id for video_id, _ in new}:
            numbers = sorted(number for each, number in new if each == video_id)
            costs = self._encoding.costs(video_id, numbers)
            priced = timelines[video_id].priced(costs)
            is_cheaper |= priced is not timelines[video_id]
            timelines[video_id] = priced
        return is_cheaper

    def _index_bytes(self) -> int:
        rows = self._searchable.retriever.nbytes + self._library.nbytes
        return rows + self._vectors.nbytes

    def _select(
        self,
        question: Question,
        lines: Sequence[TextLine],
        near: Sequence[VideoSpan],
        views: dict[str, VideoView],
        read_tokens: int,
    ) -> SelectedFrames:
        """Pending frames first, then the newest written ones, then the ranked ones, as many as the
        budget holds. Several videos have no newest frames in common, so only pending and ranked
        ones are read of them."""
        began = time.perf_counter()
        resolution = question.resolution or self._resolution
        recent_frames = self._recent_frames if len(views) == 1 else 0
        stretches = [
            Stretch(video_id, each.start, each.stop)
            for video_id, video in views.items()
            for each in video.ranges
        ]
        parts = [views[each.video_id].timeline.tokens[each.first : each.stop] for each in stretches]
        cost = parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, np.int64)])
        if self._counts_frames:
            cost = np.ones_like(cost)
            views = {each: video.in_frames() for each, video in views.items()}
        pending_cost = np.concatenate([video.pending.cost for video in views.values()])
        least = resolution.newest if recent_frames else resolution.coarsest
        frame_budget.refuse_too_small(
            pooled_counts(np.concatenate([cost, pending_cost]), least), recent_frames, read_tokens
        )
        views = {each: video.at_ratio(resolution.newest) for each, video in views.items()}
        if len(pending_cost):
            views = share_budget(views, read_tokens, is_all=len(cost) == 0)
        places = (place_near(each, views, stretches) for each in near)
        near_places = [place for place in places if place is not None]
        read_tokens -= sum(int(video.pending.cost.sum()) for video in views.values())
        recent_frames -= sum(len(video.pending) for video in views.values())
        newest = frame_budget.newest(
            pooled_counts(cost, resolution.newest), max(recent_frames, 0), read_tokens
        )
        ranked, frames, own = self._rank(
            question, views, stretches, cost, newest, near_places, read_tokens
        )
        per_layer, per_head = own, None
        if own is not None and ranked.per_head is not None:
            per_layer, per_head = None, own.reshape(*ranked.per_head.shape[:2], -1)
        seconds = time.perf_counter() - began
        return SelectedFrames(
            question,
            tuple(lines),
            views,
            ranked,
            frames,
            per_layer,
            per_head,
            seconds,
            resolution.newest,
        )

    def _rank(
        self,
        question: Question,
        views: Mapping[str, VideoView],
        stretches: Sequence[Stretch],
        cost: np.ndarray,
        newest: FrameSelection,
        near: Sequence[int],
        read_tokens: int,
    ) -> tuple[Hits, FrameSelection, np.ndarray | None]:
        """Written frames within the budget that pending frames leave, by their places. Frames are
        ranked even if all fit: the reader of an answer wants to know which frames the question
        matched. cost: [places] tokens of each frame. The last result is what each layer, or each
        head of each layer, reads: [L or L * Hq, n]; None: all read all.
        """
        if len(cost) == 0:
            return hits([], [], stretches), newest, None
        resolution = question.resolution or self._resolution
        least = pooled_counts(cost, resolution.coarsest)
        ranked = self._searchable.retriever.search(
            question, frame_budget.ranking_depth(least, newest), stretches
        )
        if near and ranked.per_layer is None and ranked.per_head is None:
            ranked = fuse_frames(ranked, near)
        places = (place_of(name, stretches) for name in question.keep)
        kept = [place for place in places if place is not None]
        ranking = [*kept, *ranked.places.tolist()]
        if self._leans:
            holders = holder_places(views, stretches)
            # what is shown now, if the newest frames are read; then before each frame its whole one
            now = [len(cost) - 1] if self._recent_frames and len(views) == 1 else []
            pairs = ((holders.get(each, each), each) for each in [*now, *ranking])
            ranking = list(dict.fromkeys(chain.from_iterable(pairs)))
        if not resolution.is_whole:
            recent = set(newest.recent)
            own = [place for place in dict.fromkeys(ranking) if place not in recent]
            earlier = len(set(kept) - recent)
            ratios = resolution.ratios(
                candidates_of(views, stretches, cost, own, earlier), newest.free_tokens
            )
            return ranked, frame_budget.at_ratios(newest, ratios, resolution.newest), None
        if ranked.per_head is not None and ranked.head_frames is not None:
            filled = frame_budget.fill(newest, [*ranking, *range(len(cost))], cost)
            rankings = ranked.per_head.flatten(0, 1).numpy()
            return ranked, filled, frame_budget.of_heads(filled, rankings, kept, ranked.head_frames)
        if int(cost.sum()) <= read_tokens:
            return ranked, frame_budget.fill(newest, range(len(cost)), cost), None
        if ranked.per_layer is None:
            return ranked, frame_budget.fill(newest, ranking, cost), None
        layers = ranked.per_layer.numpy()
        shares = None if ranked.layer_shares is None else ranked.layer_shares.numpy()
        return ranked, *frame_budget.fill_layers(newest, layers, ranking, cost, shares)

    def _at_ratios(
        self, question: Question, frames: Sequence[Run], ratios: Mapping[FrameName, int]
    ) -> list[Run]:
        """Loaded frames as they are read. ratios: of those that are not read whole."""
        resolution = question.resolution or self._resolution
        own = [ratios.get(FrameName(run.video_id, run.first), 1) for run in frames]
        if not isinstance(resolution, WordResolution) or max(own, default=1) == 1:
            return [run.at_ratio(ratio) for run, ratio in zip(frames, own, strict=True)]
        if self._words is None:
            raise UserError(
                "resolution=context_token needs the words of a model in this process; use another "
                "resolution= in a bank that is opened without one."
            )
        words = self._words(question.search_text)
        return [
            run
            if ratio == 1
            else replace(
                run, tokens=resolution.read(run.tokens, ratio, words), kv=None, ratio=ratio
            )
            for run, ratio in zip(frames, own, strict=True)
        ]

    def _evidence(
        self,
        selected: SelectedFrames,
        run_of: Mapping[FrameName, Run],
        interval: float,
        seconds: float,
        came_from: Mapping[str, int],
        titles: Mapping[str, VideoTitle],
    ) -> Evidence:
        """run_of: the loaded frames. seconds: this question's share of loading."""
        runs: list[Run] = []
        written: list[int] = []  # numbers of written and of pending frames in the evidence
        pending: list[int] = []
        places, ratios = selected.frames.ordinals, selected.ratios
        for video_id, ordinals in selected.ordinals(places).items():
            written += range(len(runs), len(runs) + len(ordinals))
            names = [FrameName(video_id, ordinal) for ordinal in ordinals]
            runs += self._at_ratios(selected.question, [run_of[name] for name in names], ratios)
            shown = [
                run.at_ratio(selected.newest_ratio)
                for run in to_device(selected.views[video_id].pending.runs, self._device)
            ]
            pending += range(len(runs), len(runs) + len(shown))
            runs += shown

        def numbers(chosen: np.ndarray | None) -> torch.Tensor | None:
            """Of places; every layer and head reads the pending frames, too."""
            if chosen is None:
                return None
            own = np.array(written)[np.searchsorted(places, chosen)]
            for_all = np.broadcast_to(np.array(pending, np.int64), (*own.shape[:-1], len(pending)))
            return torch.from_numpy(np.sort(np.concatenate([own, for_all], axis=-1), axis=-1))

        return Evidence(
            question=selected.question,
            runs=tuple(runs),
            hits=selected.hits,
            recent=len(selected.frames.recent) + len(pending),
            interval=interval,
            per_layer=numbers(selected.per_layer),
            per_head=numbers(selected.per_head),
            seconds={"search": selected.seconds, "load": seconds},
            came_from=dict(came_from) | ({"pending": len(pending)} if pending else {}),
            lines=selected.lines,
            titles=titles if len(selected.views) > 1 else {},
        )
