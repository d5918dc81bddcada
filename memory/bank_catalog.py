"""What a bank stores, for reading: `bank.catalog`.

Knows the store; no retriever, no questions. Nothing here changes a bank, so no lock is needed.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.schema import Segment
from memory.pending import PendingFrames
from memory.storage.catalog import Gap, SegmentRow, Session, VideoRow, overviews
from memory.store import DiskStore

_EPS_S = 1e-3  # Matroska rounds times to milliseconds


class BankCatalog:
    """A read-only view of the videos and segments of a bank."""

    def __init__(self, root: Path, store: DiskStore, pending: PendingFrames) -> None:
        self._root, self._store, self._pending = root, store, pending
        self._rows = store.catalog
        # what a list says of all videos, in one query, by id; or of one, by its id
        self.overviews = partial(overviews, store.catalog)
        # the state of the catalog, and its videos then: a question to a library asks several times
        self._videos: tuple[tuple[int, ...], tuple[VideoRow, ...]] | None = None

    def videos(self) -> list[VideoRow]:
        """All videos, by id."""
        state, known = self._store.changes.state(), self._videos
        if known is None or known[0] != state:
            # the state is older than the rows, so that no change between them is missed
            self._videos = known = state, tuple(self._rows.videos())
        return list(known[1])

    def video(self, video_id: str) -> VideoRow | None:
        """None if the bank has no such video."""
        return self._rows.video(video_id)

    def require_video(self, video_id: str) -> VideoRow:
        """UserError if the bank has no such video."""
        video = self._rows.video(video_id)
        if video is None:
            raise UserError(
                f"video {video_id} is not in bank {self._root}; encode it first with `reelbank "
                "ingest`"
            )
        return video

    def duration(self, video: VideoRow) -> float:
        """Seconds, as the video's file says. A stream states no duration, so it counts up to its
        last segment."""
        return video.info.duration or self.next(video.info.video_id)[1]

    def segments(self, video_id: str) -> list[SegmentRow]:
        """Acknowledged segments, in time order."""
        return self._rows.segments(video_id)

    def read_segment(self, video_id: str, number: int) -> Segment:
        """A whole segment from its file. KeyError if it was never written."""
        return self._store.get(video_id, number)

    def thumbnails(self, video_id: str, seconds: Sequence[float]) -> list[bytes | None]:
        """The stored JPEG of what is shown at each second of video time, pending segments included.
        None where the bank has no segment, or a segment without thumbnails (source.keep=).
        UserError for a damaged file.
        """
        places = [self._place(video_id, at) for at in seconds]
        jpegs: dict[int, dict[int, bytes]] = {}  # by segment, by frame
        for number in {place[0] for place in places if place is not None}:
            frames = sorted({place[1] for place in places if place and place[0] == number})
            own = self._store.thumbnails(video_id, number, frames)
            jpegs[number] = {} if own is None else dict(zip(frames, own, strict=True))
        stored = [None if each is None else jpegs[each[0]].get(each[1]) for each in places]
        pending = self._pending.of(video_id)
        return [
            jpeg or _pending_thumbnail(pending, at)
            for jpeg, at in zip(stored, seconds, strict=True)
        ]

    def _place(self, video_id: str, at: float) -> tuple[int, int] | None:
        """Segment and frame within it that are shown at a second; None where nothing is stored."""
        rows = self._rows.overlapping(video_id, start=at, end=at + _EPS_S)
        if not rows:
            return None
        return rows[-1].number, _frame_at(rows[-1].times, at)

    def overlapping(
        self,
        video_id: str | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[SegmentRow]:
        """Segments that overlap both ranges, by video and then in time order. None means no bound.

        video_id: None searches all videos. start, end: seconds of video time. since, until: Unix
        seconds; a segment without a wall-clock time overlaps no such range.
        """
        return self._rows.overlapping(video_id, start=start, end=end, since=since, until=until)

    def next(self, video_id: str) -> tuple[int, float]:
        """Number of the next segment, and the end of the last one in seconds; (0, 0.0) for a new
        video."""
        return self._rows.next(video_id)

    def gaps(self, video_id: str) -> list[Gap]:
        """Ranges of damaged segments that were dropped and not yet encoded again, in time order."""
        return self._rows.gaps(video_id)

    def began(self, video_id: str, number: int) -> float | None:
        """Wall-clock start (Unix seconds) of the session that recorded segment `number`, derived
        from its neighbors. None if there are no neighbors or they have no wall-clock time."""
        return self._rows.session_start(video_id, number)

    def sessions(self, video_id: str) -> list[Session]:
        """The sessions of a video that know when they were, in time order. They last from one
        segment to the next, also where pictures came rarely; the last one of a finished video lasts
        to its end."""
        sessions = self._rows.sessions(video_id)
        video = self._rows.video(video_id)
        if video is not None and video.finished and sessions:
            last = sessions[-1]
            end = max(last.end, video.info.duration)
            sessions[-1] = Session(last.start, end, last.began)
        return sessions

    def wall_clock_ranges(self) -> dict[str, tuple[float, float]]:
        """Unix seconds of the first and the last stored moment, for every video with wall-clock
        times."""
        return self._rows.wall_spans()

    def video_time(self, video_id: str, wall: float) -> float | None:
        """Seconds of video time of the first moment at or after `wall` (Unix seconds), pending
        segments included. Infinite if the whole video came earlier; None if the video has no
        wall-clock times."""
        sessions = [(each.began, each.start, each.end) for each in self._rows.sessions(video_id)]
        pending = [
            (each.wall - each.start, each.start, each.end)
            for each in self._pending.of(video_id)
            if each.wall is not None
        ]
        for began, start, end in (*sessions, *pending):
            if wall < began + end:
                return max(wall - began, start)
        return math.inf if sessions or pending else None

    def nbytes(self) -> int:
        """Bytes of all segment files, text files, vector files, rows of further embedders, and what
        questions had encoded."""
        ids = [video.info.video_id for video in self.videos()]
        store = self._store
        parts = (store.text, store.embeddings, store.encoded)
        beside = sum(part.nbytes(each) for each in ids for part in parts)
        return self._rows.nbytes() + beside


def frame_rows(
    catalog: BankCatalog, video_id: str, start: float, end: float
) -> tuple[np.ndarray, np.ndarray]:
    """Times [T] float64 in seconds and embeddings [T, E] float32 of the stored frames from `start`
    to `end`; none where the bank's frames have no embeddings. UserError where a segment is damaged.
    """
    times, rows = [np.zeros(0)], []
    for row in catalog.overlapping(video_id, start=start, end=end):
        index = catalog._store.index(video_id, row.number, {"clip"})
        if index.clip is None or not index.has_clip:
            return np.zeros(0), np.zeros((0, 1), dtype=np.float32)
        is_inside = (index.times >= start) & (index.times < end)
        times.append(index.times[is_inside].numpy())
        rows.append(index.clip[is_inside].float().numpy())
    return np.concatenate(times), np.concatenate(rows or [np.zeros((0, 1), dtype=np.float32)])


def _frame_at(times: np.ndarray, at: float) -> int:
    """Number of the frame that is shown at a second; a picture holds until the next one."""
    return max(0, int(np.searchsorted(times, at + _EPS_S, side="right")) - 1)


def _pending_thumbnail(segments: Sequence[Segment], at: float) -> bytes | None:
    for segment in segments:
        if segment.thumbnails is not None and segment.start - _EPS_S <= at < segment.end:
            return segment.thumbnails[_frame_at(segment.times.cpu().numpy(), at)]
    return None
