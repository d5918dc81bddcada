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
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.schema import Segment, VideoInfo
from encoders.text.lines import TextLine
from memory import rebuild
from memory.bank_catalog import BankCatalog
from memory.bank_check import BankCheck
from memory.bank_text import BankText
from memory.cache.loader import RecalledFrames
from memory.cache.tiers import FrameTiers
from memory.encoder_window import EncoderWindow, ResumePoint
from memory.pending import Tails
from memory.recall import Recall, Spans
from memory.retrieval.fusion import Moment
from memory.retrieval.searchable import HeldVideos
from memory.schema import Evidence, Question, Retriever
from memory.storage import crash_points
from memory.storage import retention as prune
from memory.storage.atomic import TEMPORARY
from memory.storage.catalog import VideoRow
from memory.storage.manifest import Provenance, WriterLock, open_bank_file
from memory.storage.os_errors import told
from memory.storage.retention import Cut, Piece, Rule
from memory.storage.segment_codec import AtRest
from memory.store import DiskStore


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
        self.at_rest = at_rest  # how segments are stored
        self._store = DiskStore(root, at_rest)
        self._pending = Tails()
        self.catalog = BankCatalog(root, self._store, self._pending)
        self.text = BankText(root, self._store.text, self.begin_writing)
        self.check = BankCheck(root, self._store, self.begin_writing)
        self.window = EncoderWindow(self._store)
        self._recent_frames = recent_frames
        self._frames = RecalledFrames(
            self._store, FrameTiers(ram_bytes, device_bytes, device), prefetch_frames
        )
        self._searchable = HeldVideos(
            self._store, retriever, self._index_folder, changed=self._frames.tiers.forget
        )
        self._recall = Recall(
            self.catalog,
            self._searchable,
            self._pending,
            self._frames,
            self._store.text.vectors,
            recent_frames=recent_frames,
            ram_bytes=ram_bytes,
            device=device,
        )
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
        repair: bool = False,
    ) -> "MemoryBank":
        """Open the bank at `root`, or create it. UserError when it is missing (create=False), is no bank, or was made
        with other settings. provenance None: only looking after an existing bank, whatever made it.
        recent_frames: newest frames that every question sees.
        ram_bytes: for the retriever's rows and, with what they leave, for frames that were read before (memory/cache/tiers.py).
        device, device_bytes: where evidence is wanted other than in RAM, and the budget there.
        prefetch_frames: neighbours of what a question recalled that are read ahead when its evidence is let go; 0 = none.
        repair: rebuild a damaged catalog as well; one that is gone is always rebuilt.
        How segments are stored is in the provenance, under "quantisation" (memory/storage/segment_codec.py)."""
        root = Path(root)
        with told(root):
            stored = open_bank_file(root, provenance, create=create and provenance is not None)
            at_rest = AtRest.parse(str(stored.get("quantisation") or "none"))
            if rebuild.is_due(root, repair):
                lock = WriterLock(root)
                try:
                    if rebuild.is_due(root, repair):  # nobody else has done it before we got here
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
        with self._searchable.lock, told(self.root):
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
        with self._searchable.lock:
            # a video that was resumed and not yet asked about is taken in whole at its first question, not here
            if segment.video_id in self._searchable or self.catalog.next(segment.video_id)[0] == 1:
                self._searchable.catch_up(
                    segment.video_id, fresh=self._store.at_rest.settle(segment)
                )  # 2, 3
        # after 3: some question sees each frame at every moment
        self._pending.hide(segment.video_id, until=segment.number)
        self._frames.keep_newest(segment, self._recent_frames)
        self._recall.share_ram()
        return row.nbytes

    def show(self, segment: Segment) -> None:
        """Let questions see a segment before it is written, or the beginning of one that is still open: as the newest frames,
        in memory only, until the segment of this number is written or another is shown for it (memory/pending.py)."""
        self._pending.show(segment)

    def hide(self, video_id: str) -> None:
        """Show nothing that is not written."""
        self._pending.hide(video_id)

    def discard(self, video_id: str, numbers: Iterable[int]) -> None:
        """Delete segments of a video, damaged ones as a rule. Questions go on without them; `write` takes them again."""
        self.begin_writing()
        with self._searchable.lock, told(self.root):
            self._searchable.drop_saved(video_id)
            self._store.discard(video_id, numbers)
            self._frames.tiers.forget(video_id)

    def drop(self, video_id: str) -> None:
        """Delete a video from the bank."""
        self.catalog.require_video(video_id)
        self.begin_writing()
        with self._searchable.lock, told(self.root):
            self._searchable.forget(video_id)
            self._pending.hide(video_id)
            self._frames.tiers.forget(video_id)
            self._searchable.drop_saved(video_id)
            self._store.drop(video_id)

    def prune(self, rule: Rule, dry_run: bool = False) -> list[Cut]:
        """Delete what a rule names: of each video a beginning, or all. Returns what went, or with dry_run what would, which
        changes nothing. What went is not missing: it is neither reported nor encoded again. UserError when the rule's video is
        not there, or when another process writes."""
        if rule.video_id is not None:
            self.catalog.require_video(rule.video_id)
        if not dry_run:
            self.begin_writing()  # before looking: what is planned is what is there
        cuts = self._cuts(rule)
        with self._searchable.lock, told(self.root):
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

    # ---- read path

    def recall(
        self,
        question: Question,
        *,
        read_tokens: int,
        kv: bool = True,
        lines: Sequence[TextLine] = (),
        near: Spans = (),
    ) -> Evidence:
        """What a reader needs for a question, from frames at or before its moment.

        The newest frames are always there, the rest are the retriever's best, as many as `read_tokens` holds; each
        frame counts its visual tokens. If all fits, all is recalled. Frames that are
        not written yet (`show`) are among the newest; beside others they take half of the tokens at most, the newest first.
        kv=False: without keys and values, for a reader that works from tokens.
        lines: words that are read with the frames. near: stretches of video time (seconds, best first) that words point to:
        their frames are ranked together with the retriever's.
        """
        return self.recall_all(
            [question],
            read_tokens=read_tokens,
            kv=kv,
            lines=[lines],
            near=[near],
        )[0]

    def recall_all(
        self,
        questions: Sequence[Question],
        *,
        read_tokens: int,
        kv: bool = True,
        lines: Sequence[Sequence[TextLine]] | None = None,
        near: Sequence[Spans] | None = None,
    ) -> list[Evidence]:
        """The same for several questions about one video; a frame that several of them recall is loaded once. `seconds` of
        each: of its own search, and its share of loading. lines, near: of each question."""
        return self._recall.recall_all(
            questions, read_tokens=read_tokens, kv=kv, lines=lines, near=near
        )

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
        return self._recall.rank_frames(
            text, video_id, during=during, asked_at=asked_at, most=most, part=part
        )

    def resume_point(self, video_id: str, number: int, window_frames: int) -> ResumePoint:
        """What an encoder needs in order to encode segment `number`: the next one of a video, or one that is missing.
        window_frames: how many earlier frames its attention window holds."""
        return self.window.resume_point(video_id, number, window_frames)

    def in_memory(self) -> dict[str, int]:
        """Bytes in memory: "index" (the retriever's rows and lines' vectors), "ram" and "device" (frames)."""
        return self._recall.in_memory()

    def close(self) -> None:
        """Save the indexes and let others write."""
        self._frames.close()
        with self._searchable.lock:
            self._searchable.close()
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
        self._searchable.drop_saved(video_id)
        crash_points.passed("index")

    def _cuts(self, rule: Rule) -> list[Cut]:
        store, frames = self._store, prune.window_frames(self.provenance)
        videos: dict[str, list[Piece]] = {}
        kept: dict[str, int] = {}
        for video in self.catalog.videos():
            video_id = video.info.video_id
            rows = self.catalog.segments(video_id)
            videos[video_id] = [
                Piece(row.number, row.start, row.end, row.nbytes, store.moment(row)) for row in rows
            ]
            newest = [] if video.finished else store.catalog.newest(video_id, frames)
            if newest:
                kept[video_id] = newest[0].number
        return prune.plan(
            rule, videos, kept, {video_id: self.text.nbytes(video_id) for video_id in videos}
        )
