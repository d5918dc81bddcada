"""The catalogs of several banks as one, for reading. Knows rows; no tensors and no files."""

from collections.abc import Iterator, Sequence

from memory.storage.catalog import (
    Catalog,
    CatalogChanges,
    Gap,
    SegmentRow,
    Session,
    VideoOverview,
    VideoRow,
    overviews,
)
from memory.union.video_places import VideoPlaces


class CatalogUnion(Catalog):
    """Rows of all videos, each from the store that has it."""

    def __init__(self, catalogs: Sequence[Catalog], places: VideoPlaces) -> None:
        self._catalogs, self._places = tuple(catalogs), places

    # ---- videos

    def videos(self) -> list[VideoRow]:
        rows = [
            row
            for hidden, catalog in self._with_hidden()
            for row in catalog.videos()
            if row.info.video_id not in hidden
        ]
        return sorted(rows, key=lambda row: row.info.video_id)

    def video(self, video_id: str) -> VideoRow | None:
        return self._of(video_id).video(video_id)

    def _overviews(self, video_id: str | None = None) -> dict[str, VideoOverview]:
        if video_id is not None:
            return overviews(self._of(video_id), video_id)
        return {
            video_id: overview
            for hidden, catalog in self._with_hidden()
            for video_id, overview in overviews(catalog).items()
            if video_id not in hidden
        }

    def wall_spans(self) -> dict[str, tuple[float, float]]:
        return {
            video_id: span
            for hidden, catalog in self._with_hidden()
            for video_id, span in catalog.wall_spans().items()
            if video_id not in hidden
        }

    # ---- segments

    def segment(self, video_id: str, number: int) -> SegmentRow | None:
        return self._of(video_id).segment(video_id, number)

    def segments(self, video_id: str, since: int = 0) -> list[SegmentRow]:
        return self._of(video_id).segments(video_id, since)

    def segments_since(self, video_id: str, since: int = 0) -> tuple[int, list[SegmentRow]]:
        return self._of(video_id).segments_since(video_id, since)

    def all_segments(self) -> Iterator[SegmentRow]:
        for video in self.videos():
            yield from self.segments(video.info.video_id)

    def overlapping(
        self,
        video_id: str | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[SegmentRow]:
        if video_id is not None:
            own = self._of(video_id)
            return own.overlapping(video_id, start=start, end=end, since=since, until=until)
        rows = [
            row
            for hidden, catalog in self._with_hidden()
            for row in catalog.overlapping(start=start, end=end, since=since, until=until)
            if row.video_id not in hidden
        ]
        return sorted(rows, key=lambda row: (row.video_id, row.number))

    def newest(self, video_id: str, frames: int, before: int | None = None) -> list[SegmentRow]:
        return self._of(video_id).newest(video_id, frames, before)

    def next(self, video_id: str) -> tuple[int, float]:
        return self._of(video_id).next(video_id)

    def numbers(self, video_id: str) -> list[int]:
        return self._of(video_id).numbers(video_id)

    def gaps(self, video_id: str) -> list[Gap]:
        return self._of(video_id).gaps(video_id)

    def session_start(self, video_id: str, number: int) -> float | None:
        return self._of(video_id).session_start(video_id, number)

    def sessions(self, video_id: str) -> list[Session]:
        return self._of(video_id).sessions(video_id)

    def nbytes(self) -> int:
        return sum(catalog.nbytes() for catalog in self._catalogs)

    def _with_hidden(self) -> Iterator[tuple[frozenset[str], Catalog]]:
        """Each catalog, and its videos that another one gives."""
        for place, catalog in enumerate(self._catalogs):
            yield self._places.hidden(place), catalog

    def _of(self, video_id: str) -> Catalog:
        return self._catalogs[self._places.of(video_id)]


class ChangesUnion(CatalogChanges):
    """What has changed in any of the stores."""

    def __init__(self, changes: Sequence[CatalogChanges], places: VideoPlaces) -> None:
        self._changes, self._places = tuple(changes), places

    def state(self) -> tuple[int, ...]:
        return tuple(part for each in self._changes for part in each.state())

    def revision(self, video_id: str) -> int:
        return self._changes[self._places.of(video_id)].revision(video_id)

    def revisions(self) -> tuple[int, ...]:
        return tuple(part for each in self._changes for part in each.revisions())

    def video_ids(self) -> list[str]:
        return sorted({video_id for each in self._changes for video_id in each.video_ids()})

    def newest_numbers(self) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for place, each in enumerate(self._changes):
            hidden = self._places.hidden(place)
            own = each.newest_numbers().items()
            numbers |= {video_id: number for video_id, number in own if video_id not in hidden}
        return dict(sorted(numbers.items()))
