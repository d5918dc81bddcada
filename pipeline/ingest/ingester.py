"""The write path: frames of a video become segments in the bank. Knows no question and no reader.

Decoding runs ahead by one batch in a thread. Where the processor has cores to share, the vision
tower and the frame embedder run ahead by one segment in another. The decoder runs in time order,
because each segment is encoded behind the window of the segments before it.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from encoders.compressors import NoCompression
from encoders.detail import ask_for_detail
from encoders.encoder import Carry, Encoder, FrameFeatures
from encoders.errors import UserError
from encoders.models.backbone import VideoModel
from encoders.prefill import NoPrefill
from encoders.schema import (
    Compressor,
    FrameEmbedder,
    Frames,
    FrameSource,
    LiveSource,
    Prefill,
    ResumableSource,
    Segment,
    Segmenter,
    StatefulCompressor,
    embedder_name,
)
from memory.bank import MemoryBank
from pipeline.ingest.embeddings import FrameEmbedding
from pipeline.ingest.on_demand_encoder import OnDemandEncoder
from pipeline.ingest.open_segment import OpenSegment
from pipeline.ingest.text import BackgroundTextExtraction, TextExtraction
from pipeline.runtime.background_writer import BackgroundWriter
from pipeline.runtime.run_ahead import RunAhead
from pipeline.runtime.stage_timer import StageTimer
from pipeline.runtime.torch_threads import divided_threads, has_threads_to_share, single_worker
from pipeline.schema import IngestReport, source_warning

T = TypeVar("T")
# seconds of video encoded so far, bytes of segment files written so far
Progress = Callable[[float, int], None]

_NO_THUMBNAILS = (
    "The new segments have no thumbnails, as those before have; source.keep=jpeg makes them."
)


@dataclass(frozen=True, slots=True)
class _Live:
    """What `follow` adds to `ingest`."""

    source: LiveSource
    show: Callable[[Segment], None]  # lets questions see a segment before it is written


@dataclass(slots=True)
class _Pass:
    """One call of `ingest`: its parts and its counters."""

    source: FrameSource
    live: _Live | None
    progress: Progress
    timer: StageTimer
    writer: BackgroundWriter
    executor: Executor | None  # embeds frames while the tower runs; None: in the same thread
    threads: int  # of torch, for each thread that computes
    new: int = 0  # segments encoded
    new_seconds: float = 0.0  # of video time, encoded
    thumbnail_bytes: int = 0
    lacks_thumbnails: bool = False  # which the segments before have
    inexact: list[int] = field(default_factory=list)  # numbers; see `_Start.exact`


@dataclass(frozen=True, slots=True)
class _Start:
    """An encoder that is ready to encode a segment, and the frames to encode."""

    encoder: Encoder
    batches: Generator[Frames]
    after: float  # seconds; the segmenter uses earlier frames only to find the cut
    exact: bool  # False: the window can differ from that of an uninterrupted run
    has_thumbnails: bool  # whether the frame before has one in the bank


@dataclass(frozen=True)
class Ingester:
    """Encodes videos into one bank."""

    bank: MemoryBank
    backbone: VideoModel
    segmenter: Segmenter
    compressor: Compressor
    new_prefill: Callable[[], Prefill]  # a fresh window for each video
    clip: FrameEmbedder
    text: TextExtraction
    further: FrameEmbedding  # beside `clip`
    interval: float  # seconds between sampled frames
    # Unix seconds of second 0 of the video, where the user gave them
    began: float | None = None
    # why this run must not encode, as an error says it; "": it may
    read_only: str = ""
    # encodes what questions read; None: segments are encoded before they are written
    on_demand: OnDemandEncoder | None = None

    @property
    def overlaps_compute(self) -> bool:
        """Whether tower and frame embedder work on a segment while the decoder works on the one
        before it."""
        return self.backbone.device.type != "cpu" or has_threads_to_share()

    @property
    def _computes_beside(self) -> bool:
        """Whether a tower computes beside the frame embedder, so that each gets some threads."""
        return self.backbone.is_narrow and self.on_demand is None

    def lacks_pictures(self, video_id: str) -> bool:
        """Whether a video that is encoded lacks rows of frame embedders that were asked for."""
        return bool(self.further.of_encoded().missing(video_id))

    def follow(
        self,
        source: LiveSource,
        progress: Progress = lambda seconds, nbytes: None,
        on_shown: Callable[[Segment], None] = lambda segment: None,
    ) -> IngestReport:
        """`ingest` for frames that still arrive. While the encoder is idle, questions also see the
        frames of the open segment. A source that cannot be replayed stays unfinished: the next call
        continues behind the last segment.

        on_shown: gets each segment as questions now see it, an open one with the frames so far.
        """

        if self.on_demand is not None:
            raise UserError(
                f"bank {self.bank.root} encodes on demand, which needs a film that can be decoded "
                f"again, and {source.info.path} is a stream; use another bank=DIR for it"
            )

        def show(segment: Segment) -> None:
            self.bank.show(segment)
            on_shown(segment)

        try:
            return self._ingest(source, progress, None, _Live(source, show))
        finally:
            self.bank.hide(source.info.video_id)

    def ingest(
        self,
        source: FrameSource,
        progress: Progress = lambda seconds, nbytes: None,
        until: int | None = None,
    ) -> IngestReport:
        """Encode what the bank lacks of this video: segments that were dropped as damaged, then
        those behind the last one. After an interruption the bytes are those of an uninterrupted
        run, or the report says that they can differ. When this returns, every segment is durable.

        until: stop after the segment of this number and leave the video unfinished.
        Raises UserError when the source yields no frame.
        """
        return self._ingest(source, progress, until, None)

    def _ingest(
        self, source: FrameSource, progress: Progress, until: int | None, live: _Live | None
    ) -> IngestReport:
        timer, info = StageTimer(), source.info
        overlaps_compute = self.overlaps_compute  # before the cores are shared
        is_replayable = live is None or live.source.is_replayable
        video = self.bank.catalog.video(info.video_id)
        if video is not None and video.finished:
            self.further.of_encoded().add(source, self.backbone.temporal_patch, timer, progress)
            text = self.text.of_encoded()
            with text.extracting(info) as words:
                pass
            text.describe(info)
            report = self._report(info.video_id, timer, 0, 0, source_warning(video.info))
            return _with_words(report, text, words)
        if self.read_only:
            raise UserError(self.read_only)
        if video is not None and isinstance(source, ResumableSource):
            source.resume(video.info)
            info = source.info
        ask_for_detail(source, [self.clip, *self.further.embedders.values()])
        # before looking at what is missing: another writer must not add it in between
        self.bank.begin_writing()
        self.bank.record_video(info, self.interval, finished=False)
        with (
            self._without_empty(info.video_id) if video is None else nullcontext(),
            self.text.extracting(info) as words,
            BackgroundWriter(self.bank.write) as writer,
            divided_threads(2 if self._computes_beside else 1) as threads,
            single_worker(threads) if overlaps_compute else nullcontext() as executor,
        ):
            run = _Pass(source, live, progress, timer, writer, executor, threads)
            for first, stop in self._missing(info.video_id, until, is_replayable):
                self._encode(run, first, stop)
        if until is None and is_replayable:
            self.bank.record_video(source.info, self.interval, finished=True)
            self.further.add(source, self.backbone.temporal_patch, timer, progress)
            self.text.describe(source.info)
        notes = [source_warning(source.info), _inexact(run.inexact)]
        notes += [_NO_THUMBNAILS] if run.lacks_thumbnails else []
        warning = " ".join(filter(None, notes))
        report = self._report(info.video_id, timer, run.new, writer.nbytes, warning)
        report = replace(report, thumbnail_bytes=run.thumbnail_bytes, new_seconds=run.new_seconds)
        return _with_words(report, self.text, words)

    @contextmanager
    def _without_empty(self, video_id: str) -> Iterator[None]:
        """A video of which no frame can be had leaves no record behind."""
        try:
            yield
        except UserError:
            if self.bank.catalog.next(video_id)[0] == 0:
                self.bank.drop(video_id)
            raise

    def _missing(
        self, video_id: str, until: int | None, is_replayable: bool
    ) -> list[tuple[int, int | None]]:
        """Numbers of missing segments, each as (first, number after the last; None = to the end of
        the video). Only a replayable source can fill gaps."""
        number, _ = self.bank.catalog.next(video_id)
        if not is_replayable:
            return [(number, None)]
        gaps: list[tuple[int, int | None]] = [
            (gap.first, gap.stop) for gap in self.bank.catalog.gaps(video_id)
        ]
        if until is None:
            return [*gaps, (number, None)]
        return [*gaps, (number, until + 1)] if number <= until else gaps

    def _encode(self, run: _Pass, first: int, stop: int | None) -> None:
        """Encode the segments of these numbers and hand them to the writer. Raises UserError when
        the video ends first."""
        run.writer.flush()  # the window, and when the video began, are read from the bank
        start = self._start(run, first)
        number = first
        all_features: AbstractContextManager[Iterator[FrameFeatures]]
        if run.live is None:
            all_features = self._features_ahead(run, start, None if stop is None else stop - first)
        else:
            all_features = closing(self._features_live(run, start, run.live, first))
        with all_features as features_in_order:
            for features in features_in_order:
                segment = start.encoder.to_segment(features, number, run.timer)
                if run.live is not None:
                    run.live.show(segment)  # questions see it while it is written
                with run.timer("write"):
                    run.writer.put(segment)
                run.inexact += [] if start.exact else [number]
                run.new_seconds += segment.end - segment.start
                run.thumbnail_bytes += sum(map(len, segment.distinct_thumbnails))
                run.lacks_thumbnails |= start.has_thumbnails and segment.thumbnails is None
                run.new, number = run.new + 1, number + 1
                run.progress(segment.end, run.writer.nbytes)
        if stop is not None and number < stop:
            raise UserError(
                f"{run.source.info.path} ends before segment {number}, which was made of it; is "
                "the file whole?"
            )

    def _start(self, run: _Pass, number: int) -> _Start:
        """Rebuild the encoder's window as it was at this segment, and open the source there.

        The window is inexact where a quantized bank no longer has it as the encoder made it, where
        it was pruned, or where it holds segments that are inexact themselves. So is what a
        compressor carries on from the segment before.
        """
        live, later = run.live, self.on_demand
        model: VideoModel = self.backbone if later is None else later.planned
        compressor = self.compressor if later is None else NoCompression()
        prefill: Prefill
        if later is None:
            prefill = self.new_prefill()
        else:
            prefill = NoPrefill(later.backbone)
        point = self.bank.window.resume_point(
            run.source.info.video_id, number, prefill.window_frames
        )
        prefill.restore(part.kv for part in point.window if part.kv is not None)
        exact = point.is_exact and not any(part.segment in run.inexact for part in point.window)
        carry = Carry()
        if isinstance(compressor, StatefulCompressor) and number > 0:
            carry.frame = self.bank.window.carried(run.source.info.video_id, number)
            exact &= carry.frame is not None and number - 1 not in run.inexact
        begin = point.start
        if self.segmenter.look_back and (live is None or live.source.is_replayable):
            before = point.times[: -self.segmenter.look_back]
            # right behind a frame, so that temporal patches come out as in the first pass
            begin = math.nextafter(float(before[-1]), math.inf) if len(before) else 0.0
        began = None if live is None else live.source.start_clock(begin)
        if began is None:
            # new segments belong to the current session; one that is encoded again keeps its own
            began = self.began if point.is_next and self.began is not None else point.began
        encoder = Encoder(
            model,
            compressor,
            prefill,
            self.clip,
            self.interval,
            began,
            self.further.embedders,
            carry,
        )
        batches = _timed(run.source.frames(begin), run.timer, "decode")
        return _Start(encoder, batches, point.start, exact, self._has_thumbnail(run, point.times))

    def _has_thumbnail(self, run: _Pass, times: np.ndarray) -> bool:
        """Whether the last of these frames has a thumbnail in the bank."""
        video_id = run.source.info.video_id
        with suppress(UserError):  # a damaged segment is not what this pass is about
            return len(times) > 0 and None not in self.bank.catalog.thumbnails(
                video_id, [float(times[-1])]
            )
        return False

    @contextmanager
    def _features_ahead(
        self, run: _Pass, start: _Start, count: int | None
    ) -> Iterator[Iterator[FrameFeatures]]:
        """The next `count` segments (None: all) behind tower and compressor. Decoding runs ahead by
        one batch in a thread, the tower by one segment in another; without an executor the tower
        runs in the calling thread."""
        with RunAhead(start.batches, depth=1) as decoded:
            cuts = islice(self.segmenter.segments(decoded, after=start.after), count)
            if run.executor is None:
                yield (
                    start.encoder.extract_features(frames, run.timer)
                    for frames in _timed(cuts, run.timer, "wait")
                )
                return
            with RunAhead(
                (
                    start.encoder.extract_features(frames, run.timer, run.executor)
                    for frames in cuts
                ),
                depth=1,
                threads=run.threads,
            ) as features:
                yield _timed(features, run.timer, "wait")

    def _features_live(
        self, run: _Pass, start: _Start, live: _Live, first: int
    ) -> Generator[FrameFeatures]:
        """Each segment of a stream behind tower and compressor, as soon as it is cut. Frames that
        are in no segment yet are shown to questions. first: number of the next segment."""

        def show(frames: Frames) -> None:
            live.show(
                start.encoder.encode(
                    frames, first + opened.cuts, StageTimer(), run.executor, still_open=True
                )
            )

        opened = OpenSegment(
            start.batches,
            show,
            has_time=lambda: live.source.is_idle,
            after=start.after,
            patch=self.backbone.temporal_patch,
        )
        # closed also where encoding fails: the source may hold the turn at an encoder that others
        # wait for, and the traceback of the failure would keep it from being collected
        with closing(start.batches):
            cuts = self.segmenter.segments(iter(opened), after=start.after)
            for frames in _timed(cuts, run.timer, "wait"):
                yield start.encoder.extract_features(frames, run.timer, run.executor)
                opened.cut(frames)

    def _report(
        self, video_id: str, timer: StageTimer, new: int, nbytes: int, warning: str
    ) -> IngestReport:
        rows = self.bank.catalog.segments(video_id)
        return IngestReport(
            video_id=video_id,
            video_seconds=rows[-1].end if rows else 0.0,
            segments=len(rows),
            frames=sum(row.frames for row in rows),
            new_segments=new,
            nbytes=nbytes,
            seconds=timer.seconds | {"total": timer.total()},
            warning=warning,
            pictures={
                embedder_name(each.embedder): each.frames
                for each in self.bank.embeddings.counts(video_id)
            },
        )


def _with_words(
    report: IngestReport, text: TextExtraction, words: BackgroundTextExtraction
) -> IngestReport:
    """The report with the lines of the video, and what the user must know of them."""
    notes = [*(f"{note}." for note in words.notes), text.notes(report.video_id)]
    return replace(
        report,
        warning=" ".join(filter(None, [report.warning, *notes])),
        text_lines=text.line_counts(report.video_id),
        text_seconds=words.seconds,
    )


def _inexact(numbers: list[int]) -> str:
    """The warning about segments that were encoded behind quantized frames, or behind fewer."""
    if not numbers:
        return ""
    which = (
        f"Segment {numbers[0]} was"
        if len(numbers) == 1
        else f"{len(numbers)} segments from number {numbers[0]} on were"
    )
    return (
        f"{which} encoded behind what the bank still has of the frames before, as their keys and "
        "values as they were made are "
        "gone (quantised, or pruned); the bytes can differ from those of an uninterrupted run."
    )


def _timed(items: Iterable[T], timer: StageTimer, stage: str) -> Generator[T]:
    """The same items; the seconds that each one takes to arrive are added to `stage`."""
    iterator = iter(items)
    try:
        while True:
            with timer(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
