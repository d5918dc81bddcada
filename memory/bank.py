"""The memory bank: segments of many videos go in, evidence for a question comes out. Where the two paths meet.

Knows neither pixels nor prompts. Layout of <bank>/:
    bank.json writer.lock                       format, provenance; held while writing    memory/storage/manifest.py
    catalog.sqlite segments/<video>/*.safetensors   what exists                           memory/store.py, restore.py
    window/<video>/*.safetensors                in a quantised bank, of unfinished videos memory/storage/recent_window.py
    text/<video>/<extractor>/*.jsonl            words of videos                           memory/text/store.py
    vectors/<video>/<extractor>/*.vec           vectors of these lines, where wanted      memory/text/vectors.py
    index/<video>/*/                            rows, a cache: rebuilt when it does not fit memory/retrieval/row_cache.py
A catalog that is gone is rebuilt when the bank is opened. What the operating system refuses to write is told as one
sentence, and what was acknowledged stays.
Threads: one writes, many ask. Processes: one writes (a lock file sees to it), many ask.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from encoders.errors import UserError
from encoders.schema import Segment, VideoInfo
from encoders.text.lines import TextBlock, TextLine
from memory import frame_budget, rebuild
from memory.cache.loader import RecalledFrames, keys_of
from memory.cache.tiers import FrameTiers
from memory.encoder_window import EncoderWindow, ResumePoint
from memory.frame_budget import Choice
from memory.pending import TailFrames, Tails, moved, visible
from memory.retrieval.common import hits
from memory.retrieval.fused import FusedRetriever, with_frames
from memory.retrieval.fusion import Moment
from memory.retrieval.searchable import HeldVideos
from memory.schema import Evidence, Hits, Question, Retriever, Run
from memory.storage import crash_points
from memory.storage import retention as prune
from memory.storage.atomic import TEMPORARY
from memory.storage.catalog import Gap, SegmentRow, VideoRow
from memory.storage.manifest import Provenance, WriterLock, open_bank_file
from memory.storage.os_errors import told
from memory.storage.retention import Cut, Piece, Rule
from memory.storage.segment_codec import AtRest
from memory.store import DiskStore, Problem
from memory.text import bm25, nearest
from memory.text.bm25 import Found, Wanted
from memory.text.rows import BlockRow, RunRow
from memory.text.store import TextGap
from memory.text.tokenizer import Query


class MemoryBank:
    """Write segments, recall frames."""

    def __init__(
        self,
        root: Path,
        provenance: dict[str, str | int | float | None],
        retriever: Retriever,
        *,
        at_rest: AtRest,
        recent_frames: int,
        ram_bytes: int,
        device_bytes: int,
        device: torch.device | None,
        prefetch_frames: int,
    ) -> None:
        """For `open` only: it makes sure that there is a bank at `root` and that it fits."""
        self.root = root
        self.provenance = provenance
        self._store = DiskStore(root, at_rest)
        self.window = EncoderWindow(self._store)
        self._recent_frames = recent_frames
        self._ram_bytes = ram_bytes
        self._frames = RecalledFrames(
            self._store, FrameTiers(ram_bytes, device_bytes, device), prefetch_frames
        )
        self._held = HeldVideos(
            self._store, retriever, self._index_folder, changed=self._frames.tiers.forget
        )
        self._tails = Tails()
        self._device = device
        self._writer: WriterLock | None = None

    @classmethod
    def open(
        cls,
        root: str | Path,
        provenance: Provenance | None,
        retriever: Retriever,
        *,
        recent_frames: int,
        create: bool = True,
        ram_bytes: int = 1 << 30,
        device_bytes: int = 1 << 30,
        device: torch.device | None = None,
        prefetch_frames: int = 0,
        mend: bool = False,
    ) -> "MemoryBank":
        """Open the bank at `root`, or create it. UserError when it is missing (create=False), is no bank, or was made
        with other settings. provenance None: only looking after an existing bank, whatever made it.
        recent_frames: newest frames that every question sees.
        ram_bytes: for the retriever's rows and, with what they leave, for frames that were read before (memory/cache/tiers.py).
        device, device_bytes: where evidence is wanted other than in RAM, and the budget there.
        prefetch_frames: neighbours of what a question recalled that are read ahead when its evidence is let go; 0 = none.
        mend: rebuild a damaged catalog as well; one that is gone is always rebuilt.
        How segments are stored is in the provenance, under "quantisation" (memory/storage/segment_codec.py)."""
        root = Path(root)
        with told(root):
            stored = open_bank_file(root, provenance, create=create and provenance is not None)
            at_rest = AtRest.parse(str(stored.get("quantisation") or "none"))
            if rebuild.is_due(root, mend):
                lock = WriterLock(root)
                try:
                    if rebuild.is_due(root, mend):  # nobody else has done it before we got here
                        rebuild.rebuild(root)
                finally:
                    lock.release()
            return cls(
                root,
                stored,
                retriever,
                at_rest=at_rest,
                recent_frames=recent_frames,
                ram_bytes=ram_bytes,
                device_bytes=device_bytes,
                device=device,
                prefetch_frames=prefetch_frames,
            )

    # ---- write path

    def begin_writing(self) -> None:
        """Become the one writer, and clean up after one that was killed. UserError when another process writes. Writing
        begins with it anyway; call it before looking up what is missing, so that nobody else adds it meanwhile."""
        with self._held.lock, told(self.root):
            if self._writer is None:
                lock = WriterLock(self.root)
                if self._store.catalog.replaced:
                    lock.release()
                    raise UserError(
                        f"the catalog of bank {self.root} was rebuilt or deleted meanwhile; open the bank again"
                    )
                self._writer = lock
                self._store.sweep()
                leftovers = f"*{TEMPORARY}*"  # * behind: SQLite adds its own suffixes
                for path in (*self.root.glob(leftovers), *self._index_folder.rglob(leftovers)):
                    path.unlink(missing_ok=True)

    def record_video(self, info: VideoInfo, interval: float, finished: bool) -> None:
        """Say what is known of a video: before its first segment, and again when it is finished.
        interval: seconds between sampled frames."""
        self.begin_writing()
        before = self._store.catalog.video(info.video_id)
        if (
            before is not None
            and not math.isclose(before.interval, interval)
            and self._store.catalog.last(info.video_id) is not None
        ):
            raise UserError(
                f"bank {self.root} has video {info.video_id} with a frame every {before.interval} s, not {interval} s; "
                "use the same frame rate or another bank=DIR"
            )
        with told(self.root):
            self._store.record(VideoRow(info, interval, finished))

    def write(self, segment: Segment) -> int:
        """Keep the next segment of a recorded video, or one that is missing. When this returns it survives a crash and can
        be recalled. Returns the bytes of its file. UserError when the disk does not take it: then it is not there.

        1 store, 2 retriever, 3 publish the frames: nothing is found before it can be read.
        """
        if self._store.catalog.video(segment.video_id) is None:
            raise ValueError(
                f"video {segment.video_id} is not recorded; call record_video before the first segment"
            )
        self.begin_writing()
        with told(self.root):
            row = self._store.put(segment)  # 1
        with self._held.lock:
            # a video that was resumed and not yet asked about is taken in whole at its first question, not here
            if segment.video_id in self._held or self.next(segment.video_id)[0] == 1:
                self._held.catch_up(segment.video_id, fresh=self.at_rest.settle(segment))  # 2, 3
        # after 3: some question sees each frame at every moment
        self._tails.hide(segment.video_id, until=segment.number)
        self._frames.keep_newest(segment, self._recent_frames)
        self._share_ram()
        return row.nbytes

    def show(self, segment: Segment) -> None:
        """Let questions see a segment before it is written, or the beginning of one that is still open: as the newest frames,
        in memory only, until the segment of this number is written or another is shown for it (memory/pending.py)."""
        self._tails.show(segment)

    def hide(self, video_id: str) -> None:
        """Show nothing that is not written."""
        self._tails.hide(video_id)

    def discard(self, video_id: str, numbers: Iterable[int]) -> None:
        """Delete segments of a video, damaged ones as a rule. Questions go on without them; `write` takes them again."""
        self.begin_writing()
        with self._held.lock, told(self.root):
            self._held.drop_saved(video_id)
            self._store.discard(video_id, numbers)
            self._frames.tiers.forget(video_id)

    def drop(self, video_id: str) -> None:
        """Delete a video from the bank."""
        self._known_video(video_id)
        self.begin_writing()
        with self._held.lock, told(self.root):
            self._held.forget(video_id)
            self._tails.hide(video_id)
            self._frames.tiers.forget(video_id)
            self._held.drop_saved(video_id)
            self._store.drop(video_id)

    def prune(self, rule: Rule, dry_run: bool = False) -> list[Cut]:
        """Delete what a rule names: of each video a beginning, or all. Returns what went, or with dry_run what would, which
        changes nothing. What went is not missing: it is neither reported nor encoded again. UserError when the rule's video is
        not there, or when another process writes."""
        if rule.video_id is not None:
            self._known_video(rule.video_id)
        if not dry_run:
            self.begin_writing()  # before looking: what is planned is what is there
        cuts = self._cuts(rule)
        with self._held.lock, told(self.root):
            for cut in () if dry_run else cuts:
                # a stale index must never meet as many frames again: it goes first, and what a reader saved meanwhile after
                self._forget_index(cut.video_id)
                if cut.first is None:
                    self.drop(cut.video_id)
                else:
                    self._store.prune(cut.video_id, cut.first)
                    self._frames.tiers.forget(cut.video_id)
                self._forget_index(cut.video_id)
        return cuts

    # ---- text

    def write_text(self, block: TextBlock) -> None:
        """Keep the next lines that an extractor found of a recorded video, or some that are missing. When this returns they
        survive a crash and can be found. UserError when the disk does not take them."""
        self.begin_writing()
        with told(self.root):
            self._store.text.put(block)

    def drop_text(self, video_id: str, extractor: str) -> None:
        """Forget all that an extractor found of a video."""
        self.begin_writing()
        run = self._store.text.rows.run(video_id, extractor)
        if run is not None:
            with told(self.root):
                self._store.text.drop_run(run)

    def missing_text(self, video_id: str, extractor: str) -> list[TextGap]:
        """What an extractor has not found yet of a video; empty when it is through."""
        return self._store.text.missing(video_id, extractor)

    def texts(self, video_id: str | None = None) -> list[RunRow]:
        """What extractors have found, of one video or of all."""
        return self._store.text.rows.runs(video_id)

    def find_text(self, query: Query, wanted: Wanted, most: int = 50) -> list[Found]:
        """Lines for a question, best first."""
        return bm25.search(self._store.text.rows, query, wanted, most)

    def missing_vectors(self, video_id: str) -> Iterator[tuple[RunRow, BlockRow]]:
        """Stretches of text of a video whose lines have no vectors yet."""
        return self._store.text.vectors.missing(video_id)

    def lines_of(self, run: RunRow, row: BlockRow) -> tuple[TextLine, ...]:
        """The lines of a stretch."""
        return self._store.text.rows.block(run, row).stretch.lines

    def write_vectors(
        self, run: RunRow, row: BlockRow, vectors: np.ndarray, made_with: str
    ) -> None:
        """Keep the vectors of a stretch's lines: [lines, E], unit. When this returns they survive a crash and can be searched.
        UserError when the bank has those of another model, or the disk does not take them."""
        self.begin_writing()
        with told(self.root):
            self._store.text.vectors.put(run, row, vectors, made_with)

    @property
    def vectors_made_with(self) -> str | None:
        """What the vectors of lines were made with; None where there are none."""
        return self._store.text.vectors.made_with

    def refuse_other_vectors(self, made_with: str) -> None:
        """UserError when the bank's lines have vectors of another model."""
        self._store.text.vectors.refuse_other(made_with)

    def count_vectors(self) -> tuple[int, int]:
        """Lines that have a vector, and all lines."""
        rows = self._store.text.rows
        return self._store.text.vectors.counted(), rows.count() if rows.there else 0

    def find_near(self, query: np.ndarray, wanted: Wanted, most: int = 50) -> list[Found]:
        """Lines whose vectors are nearest to a question's, best first; `score` and `coverage` are the cosine. query: [E]."""
        return nearest.search(self._store.text.rows, self._store.text.vectors, query, wanted, most)

    def mend_text(self) -> list[Problem]:
        """Write damaged files of text again; those that were damaged."""
        self.begin_writing()
        with told(self.root):
            return self._store.mend_text()

    # ---- read path

    def recall(
        self,
        question: Question,
        *,
        read_tokens: int,
        token_overhead: int = 0,
        kv: bool = True,
        lines: Sequence[TextLine] = (),
        near: Sequence[tuple[float, float]] = (),
    ) -> Evidence:
        """What a reader needs for a question, from frames at or before its moment.

        The newest frames are always there, the rest are the retriever's best, as many as `read_tokens` holds; each
        frame counts its visual tokens and `token_overhead` (its time tag). If all fits, all is recalled. Frames that are
        not written yet (`show`) are among the newest; beside others they take half of the tokens at most, the newest first.
        kv=False: without keys and values, for a reader that works from tokens.
        lines: words that are read with the frames. near: stretches of video time (seconds, best first) that words point to:
        their frames are ranked together with the retriever's.
        """
        return self.recall_all(
            [question],
            read_tokens=read_tokens,
            token_overhead=token_overhead,
            kv=kv,
            lines=[lines],
            near=[near],
        )[0]

    def recall_all(
        self,
        questions: Sequence[Question],
        *,
        read_tokens: int,
        token_overhead: int = 0,
        kv: bool = True,
        lines: Sequence[Sequence[TextLine]] | None = None,
        near: Sequence[Sequence[tuple[float, float]]] | None = None,
    ) -> list[Evidence]:
        """The same for several questions about one video; a frame that several of them recall is loaded once. `seconds` of
        each: of its own search, and its share of loading. lines, near: of each question."""
        none: list[tuple[()]] = [()] * len(questions)
        video_id = questions[0].video_id
        if any(question.video_id != video_id for question in questions):
            raise ValueError("questions about several videos cannot share what they recall")
        video = self._known_video(video_id)
        chosen = []
        # before the timeline: what is written meanwhile is in that
        shown = self._tails.of(video_id)
        with self._held.searching(video_id) as timeline:
            for question, read, spans in zip(questions, lines or none, near or none, strict=True):
                begun = time.perf_counter()
                first, stop = timeline.first(question.since), timeline.visible(question.asked_at)
                cost = timeline.tokens[first:stop] + token_overhead
                tail = visible(
                    shown,
                    question,
                    number=timeline.next,
                    first=len(timeline),
                    overhead=token_overhead,
                    kv=kv,
                )
                frame_budget.refuse_too_small(
                    np.concatenate([cost, tail.cost]), self._recent_frames, read_tokens
                )
                if len(tail):
                    tail = tail.newest(
                        max(read_tokens // 2, int(tail.cost[-1])) if len(cost) else read_tokens
                    )
                places = [timeline.frame_of(start, end, stop) for start, end in spans]
                named = [at for at in places if at is not None and at >= first]
                made = self._choose(
                    question, first, cost, tail, read_tokens - int(tail.cost.sum()), named
                )
                chosen.append((question, tuple(read), tail, made, time.perf_counter() - begun))
        begun = time.perf_counter()
        self._share_ram()
        union = sorted(set().union(*(choice.frames for _, _, _, (_, choice, _), _ in chosen)))
        runs, lease = self._frames.load(keys_of(video_id, union, timeline, kv), union)
        run_of = dict(zip(union, runs, strict=True))
        loading = (time.perf_counter() - begun) / len(questions)
        group = [
            Evidence(
                question=question,
                runs=(
                    *(run_of[ordinal] for ordinal in choice.frames),
                    *moved(tail.runs, self._device),
                ),
                hits=found,
                recent=len(choice.recent) + len(tail),
                interval=video.interval,
                per_layer=None if per_layer is None else torch.from_numpy(per_layer),
                seconds={"search": searching, "load": loading},
                came_from=dict(lease.came_from) | ({"tail": len(tail)} if len(tail) else {}),
                lines=read,
            )
            for question, read, tail, (found, choice, per_layer), searching in chosen
        ]
        likely = [
            frame_budget.neighbours(choice, len(timeline), self._frames.prefetch_frames)
            for _, _, _, (_, choice, _), _ in chosen
        ]
        ahead = sorted(set().union(*likely).difference(union))
        return self._frames.hand_out(group, lease, keys_of(video_id, ahead, timeline, kv))

    def rank_frames(
        self,
        text: str,
        video_id: str,
        *,
        during: tuple[float, float] = (0.0, math.inf),
        asked_at: float = math.inf,
        most: int = 50,
        part: str = "",
    ) -> list[Moment]:
        """Frames for a text by the retriever alone, best first, as moments with its scores; none outside of `during` (seconds)
        or after `asked_at`. Nothing of the frames is read. part: of a fused retriever, the ranking of the part of this name."""
        video = self._known_video(video_id)
        retriever = self._held.retriever
        if part and isinstance(retriever, FusedRetriever):
            retriever = retriever.parts[part]
        with self._held.searching(video_id) as timeline:
            visible = timeline.visible(asked_at)
            if visible == 0:
                return []
            bounded = during != (0.0, math.inf)
            found = retriever.search(
                Question(text, video_id, asked_at), visible if bounded else most, visible
            )
            moments = []
            for ordinal, score in zip(found.frames.tolist(), found.scores.tolist(), strict=True):
                start = float(timeline.times[ordinal])
                if start < during[1] and start + video.interval > during[0]:
                    moments.append(
                        Moment(video_id, start, start + video.interval, score, (), at=start)
                    )
            return moments[:most]

    def resume_point(self, video_id: str, number: int, window_frames: int) -> ResumePoint:
        """What an encoder needs in order to encode segment `number`: the next one of a video, or one that is missing.
        window_frames: how many earlier frames its attention window holds."""
        return self.window.resume_point(video_id, number, window_frames)

    def tail(self, video_id: str, frames: int, before: int | None = None) -> list[Run]:
        return self.window.segments(
            video_id, frames, before
        )  # until VideoQA resumes by `resume_point`

    def tail_is_made(self, video_id: str, frames: int, before: int | None = None) -> bool:
        return self.window.is_exact(video_id, frames, before)

    # ---- what is there

    def videos(self) -> list[VideoRow]:
        return self._store.catalog.videos()

    def video(self, video_id: str) -> VideoRow | None:
        """None when the bank does not have it."""
        return self._store.catalog.video(video_id)

    def length(self, video: VideoRow) -> float:
        """Seconds of a video: as its file says; of a stream, which says nothing, up to the last segment."""
        return video.info.duration or self.next(video.info.video_id)[1]

    def segments(self, video_id: str) -> list[SegmentRow]:
        """Acknowledged segments, in time order."""
        return self._store.catalog.segments(video_id)

    def segment(self, video_id: str, number: int) -> Segment:
        """A whole segment; KeyError when it was never put."""
        return self._store.get(video_id, number)

    def overlapping(
        self,
        video_id: str | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[SegmentRow]:
        """Segments of a video, or of all, that share time with start..end (seconds of video time) and with since..until (Unix
        seconds; only those whose wall-clock time is known). None: no bound. By video, then in time order."""
        return self._store.catalog.overlapping(
            video_id, start=start, end=end, since=since, until=until
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the files of all segments, and of all words with their vectors."""
        return self._store.catalog.nbytes() + sum(
            self.text_bytes(video.info.video_id) for video in self.videos()
        )

    def text_bytes(self, video_id: str) -> int:
        """Bytes of the files of a video's words, vectors included."""
        return self._store.text.nbytes(video_id)

    def began(self, video_id: str, number: int) -> float | None:
        """Unix seconds of second 0 of the session that segment `number` is or was of, as its neighbours tell; None where they
        do not know, or where there is none."""
        return self._store.catalog.began(video_id, number)

    def walls(self) -> dict[str, tuple[float, float]]:
        """Unix seconds of the first and the last moment of every video that knows when it was; of written segments alone."""
        return self._store.catalog.walls()

    def video_time(self, video_id: str, wall: float) -> float | None:
        """Seconds of video time of the first moment that is not before these Unix seconds; infinite where all came before,
        None where nobody knows when the video was."""
        known = False
        last = self._store.catalog.last(video_id)
        found = self._store.catalog.overlapping(video_id, since=wall)[:1]
        pieces: list[SegmentRow | Segment] = [
            *(found or ([last] if last else [])),
            *self._tails.of(video_id),
        ]
        for piece in pieces:
            if piece.wall is not None:
                known = True
                if wall < piece.wall + piece.end - piece.start:
                    return piece.start + max(wall - piece.wall, 0.0)
        return math.inf if known else None

    def next(self, video_id: str) -> tuple[int, float]:
        """Number of the next segment, and the second from which encoding resumes. (0, 0.0) for a new video."""
        return self._store.catalog.next(video_id)

    def gaps(self, video_id: str) -> list[Gap]:
        """Where damaged segments were dropped and not yet written again, in time order."""
        return self._store.catalog.gaps(video_id)

    def in_memory(self) -> dict[str, int]:
        """Bytes in memory: "index" (the retriever's rows and lines' vectors), "ram" and "device" (frames)."""
        return {"index": self._index_bytes()} | self._frames.tiers.nbytes()

    def verify(self) -> list[Problem]:
        """Read everything and say what is damaged."""
        return self._store.verify()

    def verify_videos(self) -> list[Problem]:
        """The part of it that concerns no segment: what is kept of videos beside their segments."""
        return self._store.verify_videos()

    @property
    def at_rest(self) -> AtRest:
        """How segments are stored."""
        return self._store.at_rest

    def clear_window(self) -> list[Problem]:
        """Delete the damaged blocks of recent windows; what was wrong with windows before."""
        self.begin_writing()
        with told(self.root):
            return self._store.clear_window()

    def refill_window(self) -> list[Problem]:
        """Put what the segments store in the place of blocks of recent windows that are missing; those that were."""
        self.begin_writing()
        with told(self.root):
            return self._store.refill_window()

    def close(self) -> None:
        """Save the indexes and let others write."""
        self._frames.close()
        with self._held.lock:
            self._held.close()
            self._store.close()
            if self._writer is not None:
                self._writer.release()
                self._writer = None

    def __enter__(self) -> "MemoryBank":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    @property
    def _index_folder(self) -> Path:
        return self.root / "index"

    def _forget_index(self, video_id: str) -> None:
        """Delete all that retrievers have saved of a video; it is a cache."""
        self._held.drop_saved(video_id)
        crash_points.passed("index")

    def _cuts(self, rule: Rule) -> list[Cut]:
        store, frames = self._store, prune.window_frames(self.provenance)
        videos: dict[str, list[Piece]] = {}
        kept: dict[str, int] = {}
        for video in self.videos():
            video_id = video.info.video_id
            rows = self.segments(video_id)
            videos[video_id] = [
                Piece(row.number, row.start, row.end, row.nbytes, store.moment(row)) for row in rows
            ]
            newest = [] if video.finished else store.catalog.newest(video_id, frames)
            if newest:
                kept[video_id] = newest[0].number
        return prune.plan(
            rule, videos, kept, {video_id: self.text_bytes(video_id) for video_id in videos}
        )

    def _known_video(self, video_id: str) -> VideoRow:
        video = self._store.catalog.video(video_id)
        if video is None:
            raise UserError(
                f"video {video_id} is not in bank {self.root}; encode it first with `reelbank ingest`"
            )
        return video

    def _share_ram(self) -> None:
        """Search rows come first; recalled frames get what they leave."""
        self._frames.tiers.resize_ram(max(0, self._ram_bytes - self._index_bytes()))

    def _index_bytes(self) -> int:
        return self._held.retriever.nbytes + self._store.text.vectors.nbytes

    def _choose(
        self,
        question: Question,
        first: int,
        cost: np.ndarray,
        tail: TailFrames,
        read_tokens: int,
        near: Sequence[int],
    ) -> tuple[Hits, Choice, np.ndarray | None]:
        """Frames within the budget, which the tail does not take from; cost: [visible] tokens of each frame from ordinal
        `first` on. Ranks them even where all fit: who reads the answer wants to know which frames the question pointed at."""
        choice = frame_budget.newest(cost, max(self._recent_frames - len(tail), 0), read_tokens)
        if len(cost) == 0:
            return hits([], []), choice, None
        found = self._held.retriever.search(
            question, frame_budget.how_many(cost, choice), first + len(cost), first
        )
        found = with_frames(found, near) if near and found.per_layer is None else found
        ranking = [
            *(i - first for i in question.keep if 0 <= i - first < len(cost)),
            *(found.frames - first).tolist(),
        ]
        if int(cost.sum()) <= read_tokens:
            return found, frame_budget.fill(choice, range(len(cost)), cost).later(first), None
        if found.per_layer is None:
            return found, frame_budget.fill(choice, ranking, cost).later(first), None
        choice, layers = frame_budget.fill_layers(
            choice, (found.per_layer - first).numpy(), ranking, cost
        )
        newest = np.array([run.first for run in tail.runs], np.int64)  # every layer reads them
        layers = np.concatenate([first + layers, np.tile(newest, (len(layers), 1))], axis=1)
        return found, choice.later(first), layers
