"""The memory bank: segments of many videos go in, evidence for a question comes out.

Knows neither pixels nor prompts. Layout of <bank>/:
    bank.json, writer.lock             format, provenance, lock  memory/storage/manifest.py
    kv.codebook                        centroids, if it has any  storage/segments/codebook.py
    catalog.sqlite                     the videos and segments   memory/storage/catalog.py
    segments/<video>/*.safetensors     tokens, keys and values   memory/store.py
    window/<video>/*.safetensors       the encoder's exact keys  storage/segments/recent_window.py
    text/<video>/<extractor>/*.jsonl   lines of text             memory/text/store.py
    vectors/<video>/<extractor>/*.vec  vectors of these lines    memory/text/vectors.py
    embeddings/<video>/<embedder>/*    rows of more embedders    memory/embeddings/store.py
    encoded/<video>/<settings>/*       encoded for a question    memory/encoded/encoded_store.py
    index/<video>/*/                   a cache of search rows    memory/retrieval/row_cache.py
    findings/<video>/*/*.jsonl         a cache of findings       memory/text/findings.py

A missing catalog is rebuilt when the bank is opened (memory/rebuild.py). If the operating system
refuses a write, the caller gets one sentence, and all acknowledged data stays.
Threads: many write, one at a time, and many ask. Processes: one writes (a lock file ensures it),
many ask.
"""

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Required, TypedDict, Unpack

import torch

from encoders.errors import UserError
from encoders.schema import Frames, Segment, VideoInfo
from encoders.text.lines import TextLine
from memory import rebuild
from memory.bank_catalog import BankCatalog
from memory.bank_check import BankCheck
from memory.bank_text import BankText
from memory.cache.loader import FrameLoader
from memory.cache.tiers import FrameTiers
from memory.compaction.compaction import Compaction
from memory.embeddings.bank_embeddings import BankEmbeddings
from memory.encoded.bank_encoding import BankEncoding
from memory.encoded.encoded_store import settings_key
from memory.encoder_window import EncoderWindow
from memory.library.library import Library
from memory.pending import PendingFrames
from memory.recall import EmbedWords, Recall
from memory.resolution.schema import Resolution
from memory.resolution.uniform_resolution import UniformResolution
from memory.retrieval.fusion import Moment
from memory.retrieval.searchable import SearchableVideos
from memory.schema import Evidence, Question, Retriever, VideoSpan, VideoTitle
from memory.storage import crash_points
from memory.storage import retention as prune
from memory.storage.atomic import TEMPORARY, remove_file
from memory.storage.catalog import VideoRow
from memory.storage.manifest import Provenance, Values, WriterLock, keep_copy, open_manifest
from memory.storage.os_errors import as_user_errors
from memory.storage.retention import Cut, Piece, Rule
from memory.storage.segments.codebook import NAME as CODEBOOK
from memory.storage.segments.codebook import Codebook
from memory.storage.segments.segment_codec import StorageFormat, codebook_digest
from memory.store import INDEX, DiskStore, segment_end_time
from memory.text import findings
from memory.text.findings import FindingStore


class BankOptions(TypedDict, total=False):
    """How a bank answers questions."""

    recent_frames: Required[int]  # newest frames that every question sees
    # for the retriever's rows, and for recalled frames in what the rows leave
    # (memory/cache/tiers.py)
    ram_bytes: int
    device_bytes: int  # the budget on `device`
    device: torch.device | None  # where evidence is needed; None: in RAM
    # neighbors of recalled frames to read ahead once their evidence is released; 0: none
    prefetch_frames: int
    counts_frames: bool  # the budget of a recall is a number of frames, not of visual tokens
    # how much of each frame is read, where a question does not say; None: all
    resolution: Resolution | None
    words: EmbedWords | None  # for a resolution that reads frames by the words of a question


class MemoryBank:
    """Writes segments and recalls frames.

    Parts: `catalog` (what is stored), `text` (lines and vectors), `embeddings` (rows of further
    frame embedders), `findings` (a cache of what a model said of each segment), `check` (damage
    and repair), `compaction` (old segments in fewer bits), `window` (where an encoder resumes).
    """

    def __init__(
        self,
        store: DiskStore,
        provenance: dict[str, str | int | float | None],
        retriever: Retriever,
        *,
        recent_frames: int,
        ram_bytes: int = 1 << 30,
        device_bytes: int = 1 << 30,
        device: torch.device | None = None,
        prefetch_frames: int = 0,
        counts_frames: bool = False,
        resolution: Resolution | None = None,
        words: EmbedWords | None = None,
    ) -> None:
        """Only for `open`, which makes sure that the store is of a bank with this provenance."""
        self.root = root = store.root
        self.name = str(root)  # what messages call the bank
        self.provenance = provenance
        self.storage_format = store.storage_format  # how segments are stored
        self._store = store
        self._pending = PendingFrames(store.storage_format.as_read)
        self.catalog = BankCatalog(root, self._store, self._pending)
        self.text = BankText(root, self._store.text, self.begin_writing)
        self.findings = FindingStore(root)
        self.embeddings = BankEmbeddings(self._store, self.begin_writing)
        self._store.encoded.use(settings_key(provenance))
        self.encoding = BankEncoding(self._store, self._while_writing)  # of what questions read
        self.check = BankCheck(self._store, self.begin_writing)
        self.window = EncoderWindow(self._store)
        self._recent_frames = recent_frames
        # how much of each frame is read, where a question does not say
        self.resolution = resolution or UniformResolution()
        self._frames = FrameLoader(
            self._store, FrameTiers(ram_bytes, device_bytes, device), prefetch_frames
        )
        self._searchable = SearchableVideos(
            self._store, retriever, changed=self._frames.tiers.forget
        )
        self.library = Library(self.catalog, self._searchable, self._store, ram_bytes)
        self._recall = Recall(
            self.catalog,
            self._searchable,
            self.library,
            self._pending,
            self._frames,
            self._store.text.vectors,
            self.encoding,
            recent_frames=recent_frames,
            ram_bytes=ram_bytes,
            device=device,
            counts_frames=counts_frames,
            resolution=self.resolution,
            leans=prune.carries_frames(provenance),
            words=words,
        )
        self._writer: WriterLock | None = None
        # one thread writes at a time: several streams share a bank. Taken before any other lock.
        self._writing = threading.RLock()
        self.compaction = Compaction(self._store, self._cuts, self.begin_writing, self._writing)

    @classmethod
    def open(
        cls,
        root: str | Path,
        provenance: Provenance | None,
        retriever: Retriever,
        *,
        create: bool = True,
        repair: bool = False,
        codebook: Codebook | None = None,
        **options: Unpack[BankOptions],
    ) -> "MemoryBank":
        """Open the bank at `root`, or create it. UserError if it is missing (create=False), is no
        bank, or was made with other settings.

        provenance: None opens any existing bank, for maintenance. Its key "quantisation" says how
        segments are stored (memory/storage/segments/segment_codec.py).
        repair: also rebuild a damaged catalog; a missing one is always rebuilt.
        codebook: of a new bank's keys and values, where "quantisation" names it; the bank keeps it.
        """
        root = Path(root)
        with as_user_errors(root):
            stored, store = open_store(
                root, provenance, create=create, repair=repair, codebook=codebook
            )
            return cls(store, stored, retriever, **options)

    # ---- write path

    def begin_writing(self) -> None:
        """Become the only writer, and clean up after one that was killed. UserError if another
        process writes.

        Every writing method calls it. Call it yourself before you look up what is missing, so that
        no other process adds it in between.
        """
        with self._searchable.lock, as_user_errors(self.root):
            if self._writer is None:
                lock = WriterLock(self.root)
                if self._store.database.is_replaced:
                    lock.release()
                    raise UserError(
                        f"the catalog of bank {self.root} was rebuilt or deleted meanwhile; open "
                        "the bank again"
                    )
                try:
                    keep_copy(self.root, self.provenance, self._store.database)
                    self._store.sweep()
                except BaseException:
                    lock.release()
                    raise
                self._writer = lock
                leftovers = f"*{TEMPORARY}*"  # * behind: SQLite adds its own suffixes
                caches = (self.root / INDEX, self.root / findings.FOLDER)
                leftover = (path for folder in caches for path in folder.rglob(leftovers))
                for path in (*self.root.glob(leftovers), *leftover):
                    remove_file(path)

    def end_writing(self) -> None:
        """Let another process write. The next writing method takes the right back."""
        with self._writing, self._searchable.lock:
            if self._writer is not None:
                self._writer.release()
                self._writer = None

    def record_video(self, info: VideoInfo, interval: float, finished: bool) -> None:
        """Record a video before its first segment, and again when it is finished.

        interval: seconds between sampled frames. UserError if the bank has segments with another
        interval.
        """
        with self._writing:
            self._record_video(info, interval, finished)

    def _record_video(self, info: VideoInfo, interval: float, finished: bool) -> None:
        self.begin_writing()
        before = self._store.catalog.video(info.video_id)
        if (
            before is not None
            and not math.isclose(before.interval, interval)
            and self._store.catalog.next(info.video_id)[0] > 0
        ):
            raise UserError(
                f"bank {self.root} has video {info.video_id} with a frame every "
                f"{before.interval} s, not {interval} s; "
                "use the same frame rate or another bank=DIR"
            )
        with as_user_errors(self.root):
            self._store.record(VideoRow(info, interval, finished))

    def write(self, segment: Segment) -> int:
        """Store the next segment of a recorded video, or one that is missing. On return it survives
        a crash and can be recalled. Returns the bytes of its file. UserError if the disk refuses;
        then the segment does not exist.

        Order: 1 store, 2 retriever, 3 publish the frames. No frame is found before it can be read.
        """
        if self._store.catalog.video(segment.video_id) is None:
            raise ValueError(
                f"video {segment.video_id} is not recorded; call record_video before the first "
                "segment"
            )
        with self._writing:
            return self._write(segment)

    def _write(self, segment: Segment) -> int:
        self.begin_writing()
        with as_user_errors(self.root):
            row = self._store.put(segment)  # 1
        with self._searchable.lock:
            # a resumed video that no question was about yet is loaded whole at its first question,
            # not here
            if segment.video_id in self._searchable or self.catalog.next(segment.video_id)[0] == 1:
                fresh = self._store.storage_format.as_stored(segment)
                self._searchable.sync(segment.video_id, fresh)  # 2, 3
        # after 3: at every moment a question finds each frame, pending or written
        self._pending.hide(segment.video_id, until=segment.number)
        self._frames.cache_newest(segment, self._recent_frames)
        self._recall.share_ram()
        return row.nbytes

    def show(self, segment: Segment) -> None:
        """Let questions see a segment before it is written, or the first part of an open one
        (memory/pending.py). Its frames are the newest ones, in memory only, until the segment with
        this number is written or shown again."""
        self._pending.show(segment)

    def hide(self, video_id: str) -> None:
        """Hide all segments of a video that are not written."""
        self._pending.hide(video_id)

    def discard(self, video_id: str, numbers: Iterable[int]) -> None:
        """Delete segments of a video, usually damaged ones. Questions go on without them; `write`
        accepts them again."""
        with self._writing, self._searchable.lock, as_user_errors(self.root):
            self.begin_writing()
            self._searchable.drop_saved(video_id)
            self._store.discard(video_id, numbers)
            self._frames.tiers.forget(video_id)

    def drop(self, video_id: str) -> None:
        """Delete a video from the bank. UserError if it is not there."""
        self.catalog.require_video(video_id)
        with self._writing, self._searchable.lock, as_user_errors(self.root):
            self.begin_writing()
            self._searchable.forget(video_id)
            self._pending.hide(video_id)
            self._frames.tiers.forget(video_id)
            self._searchable.drop_saved(video_id)
            self._store.drop(video_id)
            self.findings.forget(video_id)

    def prune(self, rule: Rule, dry_run: bool = False) -> list[Cut]:
        """Delete what a rule selects: the beginning of each video, or all of it. Pruned segments do
        not count as missing, so they are neither reported nor encoded again.

        Returns the cuts; dry_run returns them without any change. UserError if the rule's video is
        not there, or if another process writes.
        """
        if rule.video_id is not None:
            self.catalog.require_video(rule.video_id)
        with self._writing:
            if not dry_run:
                # before planning, so that no other process changes the bank in between
                self.begin_writing()
            return self._prune(rule, dry_run)

    def _prune(self, rule: Rule, dry_run: bool) -> list[Cut]:
        cuts = self._cuts(rule)
        with self._searchable.lock, as_user_errors(self.root):
            for cut in () if dry_run else cuts:
                # Delete the index before and after pruning: a stale index with a matching frame
                # count must never be loaded, and a reader may save one in between.
                self._forget_index(cut.video_id)
                if cut.first is None:
                    self.drop(cut.video_id)
                else:
                    self._store.prune(cut.video_id, cut.first)
                    self._frames.tiers.forget(cut.video_id)
                self._forget_index(cut.video_id)
                self.findings.forget(cut.video_id)
        return cuts

    # ---- read path

    def recall(
        self,
        question: Question,
        *,
        read_tokens: int,
        kv: bool = True,
        lines: Sequence[TextLine] = (),
        near: Sequence[VideoSpan] = (),
        titles: Mapping[str, VideoTitle] | None = None,
    ) -> Evidence:
        """The frames that answer a question, none later than its moment; of several videos side by
        side, ranked together.

        The newest frames are always included; the others are the retriever's best, as many as fit.
        If all frames fit, all are recalled. Pending frames (`show`) count as the newest. If there
        are written ones too, pending frames take at most half of the budget, the newest first.

        read_tokens: the budget, in visual tokens.
        kv: with keys and values; False for a reader that works from tokens.
        lines: text that is read with the frames.
        near: stretches that text points to, best first. Their frames are ranked together with the
        retriever's.
        titles: video id -> what names it in the prompt, for a question about several.
        """
        return self.recall_all(
            [question],
            read_tokens=read_tokens,
            kv=kv,
            lines=[lines],
            near=[near],
            titles=titles,
        )[0]

    def recall_all(
        self,
        questions: Sequence[Question],
        *,
        read_tokens: int,
        kv: bool = True,
        lines: Sequence[Sequence[TextLine]] | None = None,
        near: Sequence[Sequence[VideoSpan]] | None = None,
        titles: Mapping[str, VideoTitle] | None = None,
    ) -> list[Evidence]:
        """`recall` for several questions. A frame that several of them share is loaded once.

        lines, near: one entry per question. `seconds` of each evidence: its own search, and its
        share of loading.
        """
        return self._recall.recall_all(
            questions,
            read_tokens=read_tokens,
            kv=kv,
            lines=lines,
            near=near,
            titles=titles or {},
        )

    def rank_frames(
        self,
        text: str,
        videos: str | Sequence[str],
        *,
        during: tuple[float, float] = (0.0, math.inf),
        asked_at: float = math.inf,
        most: int = 50,
        part: str = "",
        picture: Frames | None = None,
    ) -> list[Moment]:
        """Frames ranked for a text by the retriever alone, best first, as moments with its scores.
        No frame is loaded.

        videos: an id, or several that are ranked together. during: start and end in seconds of
        video time. asked_at: no later frames. most: how many.
        part: the name of one part of a fused retriever, to use its ranking alone. picture: what is
        searched for beside the text, a picture or the frames of a clip.
        """
        question = Question(text, videos, asked_at, picture=picture)
        return self._recall.rank_frames(question, during=during, most=most, part=part)

    def in_memory(self) -> dict[str, int]:
        """Bytes in memory: "index" (search rows of frames and lines), "ram" and "device" (cached
        frames)."""
        return self._recall.in_memory()

    def close(self) -> None:
        """Save the indexes and release the writer lock."""
        self._frames.close()
        with self._writing, self._searchable.lock:
            self._searchable.close()
            self._store.close()
            self.end_writing()

    def __enter__(self) -> "MemoryBank":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    @contextmanager
    def _while_writing(self) -> Iterator[None]:
        """The right to write; whoever had it before keeps it. UserError if another process writes.
        Another thread that ends writing meanwhile takes it away; each write then takes it back."""
        had_it = self._writer is not None
        self.begin_writing()
        try:
            yield
        finally:
            if not had_it:
                self.end_writing()

    def _forget_index(self, video_id: str) -> None:
        """Delete the saved rows of a video; they are a cache."""
        self._searchable.drop_saved(video_id)
        crash_points.reached("index")

    def _cuts(self, rule: Rule) -> list[Cut]:
        store, frames = self._store, prune.window_frames(self.provenance)
        videos: dict[str, list[Piece]] = {}
        first_needed: dict[str, int] = {}  # an unfinished video keeps its encoder's window
        for video in self.catalog.videos():
            video_id = video.info.video_id
            rows = self.catalog.segments(video_id)
            sides = [each.nbytes(video_id) for each in (store.embeddings.rows, store.encoded.rows)]
            videos[video_id] = [
                Piece(
                    row.number,
                    row.start,
                    row.end,
                    row.nbytes + sum(side.get(row.number, 0) for side in sides),
                    segment_end_time(store, row),
                )
                for row in rows
            ]
            newest = [] if video.finished else store.catalog.newest(video_id, frames)
            if newest:
                first_needed[video_id] = newest[0].number
        return prune.plan(
            rule,
            videos,
            first_needed,
            {video_id: self.text.nbytes(video_id) for video_id in videos},
        )


def open_store(
    root: Path,
    provenance: Provenance | None,
    *,
    create: bool,
    repair: bool = False,
    codebook: Codebook | None = None,
) -> tuple[Values, DiskStore]:
    """What the bank at `root` records, and its store. Arguments and errors as `MemoryBank.open`."""
    stored = open_manifest(
        root,
        provenance,
        create=create and provenance is not None,
        older=None if provenance is None else of_before(provenance),
        beside=None if codebook is None else {CODEBOOK: codebook.data},
    )
    if rebuild.is_due(root, repair):
        lock = WriterLock(root)
        try:
            # again: another process may have done it before this one got the lock
            if rebuild.is_due(root, repair):
                rebuild.mend(root)
        finally:
            lock.release()
    text = str(stored.get("quantisation") or "none")
    digest = codebook_digest(text)
    own = None if digest is None else Codebook.of_bank(root, digest, codebook)
    return stored, DiskStore(root, StorageFormat.parse(text, own))


def of_before(provenance: Provenance) -> Provenance:
    """What a version recorded that quantized keys in groups of frames."""
    text = provenance.get("quantisation")
    if not isinstance(text, str) or codebook_digest(text) is not None:
        return provenance
    return {**provenance, "quantisation": str(replace(StorageFormat.parse(text), causal=False))}
