"""Encodes stored segments of a bank that encodes on demand, once a question reads them.

Frames come from the same source, in the same size, through the same tower, compressor and prefill
as when a bank encodes at once. A segment's prefill attends to the frames before it, so these are
encoded as well, from an empty window on. Where it begins is up to the bank:
  - `visual_tokens=on_demand`: `prefill.window_frames` before each segment, 32 by default;
  - `on_demand_blocks`: at the begin of its block of four segments. The segments of the block before
    it are then as they stay, and are stored as well.
What is stored is therefore that of an encoding bank, byte for byte,
  - without prefill, for every segment;
  - with it, for every segment whose window begins with the film;
  - for later ones, that of a film which begins where the segment's window does.
It depends on the film and the settings alone, not on what was encoded before.

Segments whose windows begin together are one pass of the prefill. Visual tokens of a segment that
is stored already are read from the bank, where it stores them as the tower gives them.

Each segment is durable before the next one, so an interrupted question goes on where it stopped.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.prefill import key_means
from encoders.schema import (
    Compressor,
    Frames,
    FrameSource,
    Prefill,
    ResumableSource,
    VideoPart,
    VisualTokens,
)
from encoders.sources.identity import why_not_file
from memory.bank import MemoryBank
from memory.encoded.bank_encoding import BeforeSegment
from memory.storage.catalog import SegmentRow, VideoRow
from pipeline.ingest.planned_model import PlannedModel
from pipeline.ingest.stored_frames import frames_of, neighbors, patch_ends
from pipeline.runtime.torch_threads import divided_threads

# (path, first second, second behind the last or None, seconds of each stretch that is wanted of it)
# -> the frames of a film, as they were sampled
OpenFilm = Callable[[str, float, float | None, float], FrameSource]
BLOCK = 4  # segments


@dataclass(frozen=True)
class OnDemandEncoder:
    """`encoder(video_id, numbers)` encodes these segments of a bank. Threads: one encodes, others
    wait."""

    bank: MemoryBank
    backbone: Backbone
    compressor: Compressor
    new_prefill: Callable[[], Prefill]
    open_film: OpenFilm
    in_blocks: bool = False  # whether a window begins with a block of segments
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def planned(self) -> PlannedModel:
        """What films are added with."""
        return PlannedModel(self.backbone)

    def __call__(
        self,
        video_id: str,
        numbers: Collection[int],
        before_each: BeforeSegment = lambda done, of: None,
    ) -> None:
        """UserError where the film is gone or gives other frames, or another process writes.

        before_each: called before a segment is encoded, and behind the last one; what it raises
        ends the encoding, and what is stored stays.
        """
        with self._lock:
            missing = self.bank.encoding.missing(video_id, numbers)  # another thread may have it
            if not missing:
                return
            prefill = self.new_prefill()
            run = _Run(self._windows(video_id, missing, prefill.window_frames), prefill)
            stored = self._stored(video_id, run)
            rows = [row for number, row in run.rows.items() if number not in stored]
            source = self._source(self.bank.catalog.require_video(video_id), missing[0], rows)
            with (
                self.bank.encoding.writing(),
                divided_threads(2 if self.backbone.is_narrow else 1),
            ):
                self._encode(source, rows, run, before_each)

    def _windows(
        self, video_id: str, missing: Sequence[int], frames: int
    ) -> dict[int, list[SegmentRow]]:
        """Number of each segment that is to be encoded -> its window, and itself; rising. frames:
        of the prefill's window; without any, nothing lies before a segment."""
        window = self.bank.window
        if not (self.in_blocks and frames):
            return {number: window.rows(video_id, number, frames) for number in missing}
        windows: dict[int, list[SegmentRow]] = {}
        for number in missing:  # of two in a block, the later one has the window of the other
            rows = window.rows_from(video_id, number - number % BLOCK, number)
            own = self.bank.encoding.missing(video_id, [row.number for row in rows])
            windows |= {each: [row for row in rows if row.number <= each] for each in own}
        return windows

    def _stored(self, video_id: str, run: "_Run") -> set[int]:
        """The windows' segments whose visual tokens the bank has as the tower gave them."""
        others = [number for number in run.rows if number not in run.windows]
        if not others or self.bank.storage_format.tokens is not None:
            return set()
        return set(others) - set(self.bank.encoding.missing(video_id, others))

    def _source(self, video: VideoRow, number: int, rows: Sequence[SegmentRow]) -> FrameSource:
        """The film of a video. number: of the first segment that is to be encoded. rows: whose
        frames are needed."""
        video_id, path = video.info.video_id, video.info.path
        obstacle = why_not_file(video_id, path)
        if obstacle:
            row = next(row for row in rows if row.number == number)
            raise UserError(
                f"{row.start:.1f}-{row.end:.1f} s of video {video_id} are still to be encoded for "
                f"this question, and {obstacle}; bring the film back, or search it with "
                "`reelbank find`, which needs no film"
            )
        part = VideoPart.parse(video_id)
        seconds = sum(row.end - row.start for row in rows) / len(list(neighbors(rows)))
        source = self.open_film(path, part.start, part.end, seconds)
        if isinstance(source, ResumableSource):
            source.resume(video.info)
        return source

    def _encode(
        self,
        source: FrameSource,
        rows: Sequence[SegmentRow],
        run: "_Run",
        before_each: BeforeSegment,
    ) -> None:
        """rows: of the segments whose frames are needed."""
        done = 0
        for neighboring in neighbors(rows):
            for row, frames in frames_of(source, neighboring):
                before_each(done, len(run.windows))
                run.tokens[row.number] = self._tokens(row, frames)
                if row.number in run.windows:
                    self._store(row, run)
                    done += 1
                run.forget_until(row.number)
        lost = self.bank.encoding.missing(rows[0].video_id, run.windows)
        if lost:
            raise _other_frames(run.rows[lost[0]])
        before_each(done, len(run.windows))

    def _tokens(self, row: SegmentRow, frames: Frames) -> VisualTokens:
        if not np.array_equal(patch_ends(frames.times, self.backbone.temporal_patch), row.times):
            raise _other_frames(row)
        return self.compressor(self.backbone.encode_frames(frames))

    def _store(self, row: SegmentRow, run: "_Run") -> None:
        """Prefill a segment behind its window, and store it."""
        for each in run.next_rows(row.number):
            known = run.tokens.get(each.number)
            own = self.bank.window.tokens(each) if known is None else known
            block = run.prefill(own)
        sources = own.representatives
        stored = self.bank.catalog.read_segment(row.video_id, row.number)
        self.bank.encoding.write(
            replace(
                stored,
                tokens=own,
                clip=stored.clip[sources],
                kv=block,
                key_means=None if block is None else key_means(block)[sources],
            )
        )


class _Run:
    """One call: its windows, and where the prefill stands."""

    def __init__(self, windows: dict[int, list[SegmentRow]], prefill: Prefill) -> None:
        """windows: number of each segment that is to be encoded -> its window, and itself."""
        self.windows, self.prefill = windows, prefill
        every = {row.number: row for window in windows.values() for row in window}
        self.rows = {number: every[number] for number in sorted(every)}
        self.tokens: dict[int, VisualTokens] = {}  # of the segments that a later window needs
        self._first, self._last = -1, -1  # segments that the prefill has seen

    def next_rows(self, number: int) -> list[SegmentRow]:
        """What the prefill still has to see for a segment, with itself; never empty."""
        window = self.windows[number]
        if window[0].number != self._first:
            self.prefill.restore(())
            self._first, self._last = window[0].number, -1
        rows = [row for row in window if row.number > self._last]
        self._last = number
        return rows

    def forget_until(self, number: int) -> None:
        """Free the visual tokens that no segment behind this one needs."""
        later = [own[0].number for each, own in self.windows.items() if each > number]
        first = min(later, default=number + 1)
        self.tokens = {each: own for each, own in self.tokens.items() if each >= first}


def _other_frames(row: SegmentRow) -> UserError:
    return UserError(
        f"the film gives other frames from {row.start:.1f} s on than the bank has of video "
        f"{row.video_id}, so they cannot be encoded for this question; add the film to another "
        "bank=DIR"
    )
