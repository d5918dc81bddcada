"""The catalog of a bank: which videos and segments exist, by rows of its SQLite file.

Knows no tensors and no segment files. A segment exists when its row is committed, and only then.
`Catalog` reads; memory/storage/catalog_writer.py writes. Any number of threads and processes may
read while one writes.

Segments are numbered 0, 1, 2, ... within a video. A number is missing after a damaged segment was
dropped; frame ordinals have no gaps. So every change except an addition at the end moves ordinals:
it raises `revision`, and a reader that sees a new revision reads the catalog again from the start.
Revision: SQLite's user_version, one for all videos.

A video may have lost its beginning on purpose (`prune`): segments below `Pruned.first` neither
exist nor count as missing.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoders.schema import VideoInfo
from memory.storage.database import Database, row_sum

VIDEO_COLUMNS = (
    "id, path, duration, decoder, broke_at, note, interval, finished, sum, "
    "pruned_first, pruned_start, finished_sum"
)
SEGMENT_COLUMNS = (
    'video_id, number, start, "end", frames, first_ordinal, bytes, checksum, times, tokens, '
    "sum, wall, window"
)
_SLACK_S = 1e-3  # a Unix time in float64 is exact to 2e-7 s


@dataclass(frozen=True, slots=True)
class Pruned:
    """The beginning of a video that was deleted on purpose."""

    first: int  # number of the first remaining segment
    start: float  # seconds: where it begins


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One video of a bank."""

    info: VideoInfo
    interval: float  # seconds between sampled frames
    finished: bool  # encoded to the end, or up to the requested end
    pruned: Pruned | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing segments between two others, or before the first segment that was not pruned."""

    first: int  # number
    stop: int  # number after the last
    start: float  # seconds: where the segment before ends
    end: float  # seconds: where the next one begins

    @property
    def text(self) -> str:
        which = (
            f"segment {self.first} is"
            if self.stop == self.first + 1
            else f"segments {self.first} to {self.stop - 1} are"
        )
        return f"{which} missing: nothing is known of {self.start:.1f} s to {self.end:.1f} s"


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRow:
    """One acknowledged segment."""

    video_id: str
    number: int
    start: float  # seconds
    end: float  # seconds
    frames: int
    first: int  # ordinal of the first frame
    nbytes: int  # size of the file
    # seal of the file's header, which holds the checksums (memory/storage/segments/segment_file.py)
    checksum: str
    times: np.ndarray  # [frames] float64 seconds
    tokens: np.ndarray  # [frames] int32: visual tokens of each frame
    wall: float | None = None  # Unix seconds of `start`, if recorded
    # seal of its block in the recent window, if it was given one (segments/recent_window.py)
    window: str | None = None

    @property
    def stop(self) -> int:
        """Ordinal after the last frame."""
        return self.first + self.frames


@dataclass(frozen=True, slots=True)
class Session:
    """A stretch of a video that was recorded without a break in its clock."""

    start: float  # seconds of video time
    end: float
    began: float  # Unix seconds of second 0 of the video


@dataclass(frozen=True, slots=True)
class VideoOverview:
    """What a list says of a video, without its segments."""

    row: VideoRow
    end: float  # seconds: where its last segment ends; 0 where there is none
    is_complete: bool  # finished, and no segment is missing
    began: float | None  # Unix seconds of second 0 of its first session that knows when it was

    @property
    def duration(self) -> float:
        """Seconds, as the video's file says. A stream states no duration, so it counts up to its
        last segment."""
        return self.row.info.duration or self.end


class Catalog:
    """Reads the rows of videos and segments.

    Every query raises CatalogDamagedError for a row that does not match its checksum.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- videos

    def videos(self) -> list[VideoRow]:
        """All videos, by id."""
        rows = self._database.rows(f"SELECT {VIDEO_COLUMNS} FROM videos ORDER BY id")
        return [self._video(row) for row in rows]

    def video(self, video_id: str) -> VideoRow | None:
        rows = self._database.rows(f"SELECT {VIDEO_COLUMNS} FROM videos WHERE id = ?", video_id)
        return self._video(rows[0]) if rows else None

    def wall_spans(self) -> dict[str, tuple[float, float]]:
        """Unix seconds of the first and the last moment of every video with a wall-clock time."""
        sql = (
            'SELECT video_id, min(wall), max(wall + "end" - start) FROM segments '
            "WHERE wall IS NOT NULL GROUP BY video_id"
        )
        return {video_id: (first, last) for video_id, first, last in self._database.rows(sql)}

    # ---- segments

    def segment(self, video_id: str, number: int) -> SegmentRow | None:
        rows = self._segments("WHERE video_id = ? AND number = ?", video_id, number)
        return rows[0] if rows else None

    def segments(self, video_id: str, since: int = 0) -> list[SegmentRow]:
        """Segments of a video from number `since` on, in time order."""
        where = "WHERE video_id = ? AND number >= ? ORDER BY number"
        return self._segments(where, video_id, since)

    def segments_since(self, video_id: str, since: int = 0) -> tuple[int, list[SegmentRow]]:
        """The revision, and the segments from number `since` on, both from one snapshot."""
        with self._database.snapshot():
            return self._database.revision(), self.segments(video_id, since)

    def all_segments(self) -> Iterator[SegmentRow]:
        """Every segment of every video, one video in memory at a time."""
        for (video_id,) in self._database.rows(
            "SELECT DISTINCT video_id FROM segments ORDER BY video_id"
        ):
            yield from self.segments(video_id)

    def overlapping(
        self,
        video_id: str | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[SegmentRow]:
        """Segments of a video, or of all, that overlap start..end (seconds of video time) and
        since..until (Unix seconds), by video and then in time order. None: no bound.

        Segments without a wall-clock time match no wall-clock range. The indexes keep the query
        from reading other segments.
        """
        return [
            self._segment(row)
            for row in self._database.rows(*self._overlapping(video_id, start, end, since, until))
        ]

    def newest(self, video_id: str, frames: int, before: int | None = None) -> list[SegmentRow]:
        """The last segments, in time order, that together hold at least `frames` frames, or all
        there are; at least one if there is any. before: only segments below this number."""
        below = (1 << 62) if before is None else before
        where = "WHERE video_id = ? AND number < ? ORDER BY number DESC LIMIT 1"
        rows = self._segments(where, video_id, below)
        if not rows:
            return []
        last = rows[0]
        where = (
            "WHERE video_id = ? AND number < ? AND (first_ordinal + frames > ? OR number = ?) "
            "ORDER BY number"
        )
        return self._segments(where, video_id, below, last.stop - frames, last.number)

    def _last(self, video_id: str) -> SegmentRow | None:
        """The newest segment of a video."""
        rows = self._segments("WHERE video_id = ? ORDER BY number DESC LIMIT 1", video_id)
        return rows[0] if rows else None

    def next(self, video_id: str) -> tuple[int, float]:
        """Number of the segment after the last one, and the second at which that one ended."""
        last = self._last(video_id)
        return self._begin(video_id) if last is None else (last.number + 1, last.end)

    def numbers(self, video_id: str) -> list[int]:
        """Numbers of the segments of a video, ascending."""
        sql = "SELECT number FROM segments WHERE video_id = ? ORDER BY number"
        return [number for (number,) in self._database.rows(sql, video_id)]

    def gaps(self, video_id: str) -> list[Gap]:
        """Where segments are missing before the last one."""
        due, at = self._begin(video_id)
        ((count, last),) = self._database.rows(
            "SELECT count(*), max(number) FROM segments WHERE video_id = ?", video_id
        )
        if count == 0 or last == due + count - 1:
            return []
        gaps = []
        rows = self._database.rows(
            'SELECT number, start, "end" FROM segments WHERE video_id = ? ORDER BY number', video_id
        )
        for number, start, end in rows:
            if number > due:
                gaps.append(Gap(due, number, at, start))
            due, at = number + 1, end
        return gaps

    def session_start(self, video_id: str, number: int) -> float | None:
        """Unix seconds of second 0 of the session that recorded segment `number`.

        Taken from the segment before it, else from the segment itself or the next one. None if
        there is no such segment, or if it has no wall-clock time.
        """
        for where in ("number < ? ORDER BY number DESC", "number >= ? ORDER BY number"):
            rows = self._segments(f"WHERE video_id = ? AND {where} LIMIT 1", video_id, number)
            if rows:
                row = rows[0]
                # a session's start is given in milliseconds: rounding restores it bit by bit
                return None if row.wall is None else round(row.wall - row.start, 3)
        return None

    def sessions(self, video_id: str) -> list[Session]:
        """The sessions of a video that know when they were, in time order."""
        rows = self._database.rows(
            # as in `session_start`
            'SELECT round(wall - start, 3) AS began, min(start), max("end") FROM segments '
            "WHERE video_id = ? AND wall IS NOT NULL GROUP BY began ORDER BY min(start)",
            video_id,
        )
        return [Session(start, end, began) for began, start, end in rows]

    def nbytes(self) -> int:
        """Bytes of all segment files."""
        return int(self._database.rows("SELECT total(bytes) FROM segments")[0][0])

    # ---- inside

    def _overviews(self, video_id: str | None = None) -> dict[str, VideoOverview]:
        of_video = "FROM segments WHERE video_id = videos.id"
        known = f"{of_video} AND wall IS NOT NULL"
        rows = self._database.rows(
            f"SELECT {VIDEO_COLUMNS}, (SELECT count(*) {of_video}), "
            f"(SELECT max(number) {of_video}), "
            f'(SELECT "end" {of_video} ORDER BY number DESC LIMIT 1), '
            # as in `session_start`; without the first condition, films would be read to their ends
            f"CASE WHEN EXISTS (SELECT 1 {known}) THEN "
            f"(SELECT round(wall - start, 3) {known} ORDER BY start LIMIT 1) END "
            f"FROM videos {'' if video_id is None else 'WHERE id = ?'} ORDER BY id",
            *(() if video_id is None else (video_id,)),
        )
        overviews = {}
        for *columns, count, last, end, began in rows:
            row = self._video(tuple(columns))
            first, start = (0, 0.0) if row.pruned is None else (row.pruned.first, row.pruned.start)
            is_whole = not count or last == first + count - 1
            overviews[row.info.video_id] = VideoOverview(
                row, end if count else start, row.finished and is_whole, began
            )
        return overviews

    def _segments(self, where: str, *values: str | float) -> list[SegmentRow]:
        rows = self._database.rows(f"SELECT {SEGMENT_COLUMNS} FROM segments {where}", *values)
        return [self._segment(row) for row in rows]

    def _video(self, row: tuple) -> VideoRow:
        video_id, path, duration, decoder, broke_at, note, interval, finished, checksum = row[:9]
        *pruned, finished_sum = row[9:]
        self._compare(checksum, *row[:7], *not_none(*pruned))
        # a video that counts as unfinished is looked at again: no harm
        if finished and finished_sum is not None:
            self._compare(finished_sum, video_id, 1)
        info = VideoInfo(video_id, os.fsdecode(path), duration, decoder, broke_at, note)
        return VideoRow(
            info, interval, bool(finished), None if pruned[0] is None else Pruned(*pruned)
        )

    def _segment(self, row: tuple) -> SegmentRow:
        video, number, start, end, frames, first, nbytes, seal, times, tokens = row[:10]
        checksum, wall, window = row[10:]
        self._compare(checksum, *row[:5], *row[6:10], *not_none(wall))
        arrays = np.frombuffer(times, "<f8"), np.frombuffer(tokens, "<i4")
        return SegmentRow(
            video, number, start, end, frames, first, nbytes, seal, *arrays, wall, window
        )

    def _compare(self, checksum: str, *values: str | float | bytes | None) -> None:
        if row_sum(*values) != checksum:
            raise self._database.row_error()

    def _overlapping(
        self,
        video_id: str | None,
        start: float | None,
        end: float | None,
        since: float | None,
        until: float | None,
    ) -> tuple[Any, ...]:
        """The query, and its values."""
        # always by video id: both indexes begin with it
        where, values = ["video_id IN (SELECT id FROM videos)"], list[str | float]()
        if video_id is not None:
            where, values = ["video_id = ?"], [video_id]
        for column, low, high in (("start", start, end), ("wall", since, until)):
            if low is not None:
                where += [f"{column} > ?", f'{column} + ("end" - start) > ?']
                values += [low - self._longest() - _SLACK_S, low]
            if high is not None:
                where.append(f"{column} < ?")
                values.append(high)
        return (
            f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE {' AND '.join(where)} "
            "ORDER BY video_id, number",
            *values,
        )

    def _longest(self) -> float:
        """Seconds of the longest segment."""
        rows = self._database.rows(
            'SELECT "end" - start FROM segments ORDER BY "end" - start DESC LIMIT 1'
        )
        return float(rows[0][0]) if rows else 0.0

    def _begin(self, video_id: str) -> tuple[int, float]:
        """Number of the first segment that a video should have, and the second where it begins."""
        video = self.video(video_id)
        if video is None or video.pruned is None:
            return 0, 0.0
        return video.pruned.first, video.pruned.start


def overviews(catalog: Catalog, video_id: str | None = None) -> dict[str, VideoOverview]:
    """What a list says of all videos, in one query, by id; or of one, where the bank has it. The
    indexes keep the query from reading segments."""
    return catalog._overviews(video_id)


class CatalogChanges:
    """What has changed since somebody looked, without the rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> tuple[int, ...]:
        """Differs after every change, by this process or another."""
        return self._database.state()

    def revision(self, video_id: str) -> int:
        """Differs after every change of this video that is not an addition at its end, and perhaps
        after one of another video."""
        return self._database.revision()

    def revisions(self) -> tuple[int, ...]:
        """Differs after every change that is not an addition at the end of a video."""
        return (self._database.revision(),)

    def video_ids(self) -> list[str]:
        """The ids of all videos, rising."""
        return [each for (each,) in self._database.rows("SELECT id FROM videos ORDER BY id")]

    def newest_numbers(self) -> dict[str, int]:
        """The number of the last segment of every video that has any, by id."""
        sql = "SELECT video_id, max(number) FROM segments GROUP BY video_id ORDER BY video_id"
        return dict(self._database.rows(sql))


def row_problems(catalog: Catalog) -> list[str]:
    """Errors in the numbering of frames. CatalogDamagedError for a row that does not match its
    checksum."""
    catalog.videos()
    problems = []
    ordinals: dict[str, int] = {}
    for row in catalog.all_segments():
        if row.first != ordinals.get(row.video_id, 0):
            problems.append(
                f"segment {row.number} of video {row.video_id} does not count its frames from "
                "where it should"
            )
        ordinals[row.video_id] = row.stop
    return problems


def not_none(*values: float | None) -> tuple[float, ...]:
    """The values without None. A row's checksum covers columns that older catalogs lack only where
    they have a value, so old rows keep their checksums."""
    return tuple(value for value in values if value is not None)
