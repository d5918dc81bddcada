"""Which of many videos a question is about: `bank.library`.

Knows the frame embeddings of all videos, the retriever and where lines are; loads no frame.
"""

from collections.abc import Sequence
from pathlib import Path

from encoders.errors import UserError
from memory.bank_catalog import BankCatalog
from memory.library.library_index import LibraryIndex, clip_of
from memory.retrieval.fusion import Moment, reciprocal_rank
from memory.retrieval.searchable import SearchableVideos
from memory.schema import FrameName, Question, Stretch, VideoSpan
from memory.store import DiskStore

_RANKED_FRAMES = 64  # that say which videos fit a question best
_WITHOUT_CLIP = 64  # videos that a retriever without frame embeddings ranks at a time


class Library:
    """Ranks the videos of one bank. Threads: many ask."""

    def __init__(
        self,
        catalog: BankCatalog,
        searchable: SearchableVideos,
        store: DiskStore,
        folder: Path,
        ram_bytes: int,
    ) -> None:
        """folder: of saved rows. ram_bytes: for the rows of all videos."""
        self._catalog, self._searchable = catalog, searchable
        clip = clip_of(searchable.retriever)
        self._index = None if clip is None else LibraryIndex(store, clip, folder, ram_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of rows in RAM."""
        return 0 if self._index is None else self._index.nbytes

    def best_videos(
        self, question: Question, near: Sequence[VideoSpan], most: int
    ) -> tuple[str, ...]:
        """The videos whose frames and lines fit a question best, at most `most`, in its own order.

        near: where lines are that belong to the question, best first. UserError where there are too
        many videos for a retriever without frame embeddings.
        """
        by_frames = [name.video_id for name in self._best_names(question, _RANKED_FRAMES)]
        numbers = {video_id: number for number, video_id in enumerate(question.videos)}
        rankings = [
            dict.fromkeys(numbers[each] for each in videos if each in numbers)
            for videos in (by_frames, [span.video_id for span in near])
        ]
        best = list(reciprocal_rank(rankings))[:most]
        return tuple(question.videos[number] for number in sorted(best)) or question.videos[:most]

    def rank_frames(self, question: Question, most: int) -> list[Moment] | None:
        """The frames of all of a question's videos whose embeddings are nearest to it, best first,
        in one search; None for a retriever that compares no embeddings."""
        if self._index is None:
            return None
        intervals = self._intervals(question)
        return [
            Moment(
                one.name.video_id,
                one.time,
                one.time + intervals[one.name.video_id],
                one.score,
                (),
                at=one.time,
            )
            for one in self._index.search(question, intervals, most)
        ]

    def _intervals(self, question: Question) -> dict[str, float]:
        """Seconds between frames, by video."""
        asked = set(question.videos)
        return {
            row.info.video_id: row.interval
            for row in self._catalog.videos()
            if row.info.video_id in asked
        }

    def _best_names(self, question: Question, most: int) -> list[FrameName]:
        """Frames of any of the question's videos, best first."""
        intervals = self._intervals(question)
        if self._index is not None:
            return [one.name for one in self._index.search(question, intervals, most)]
        if len(intervals) > _WITHOUT_CLIP:
            raise UserError(
                f"This retriever searches at most {_WITHOUT_CLIP} videos at a time, and these are "
                f"{len(intervals)}; use retriever=fused or retriever=clip, or name fewer videos."
            )
        with self._searchable.searching(question.videos) as timelines:
            stretches = [
                Stretch(each, part.start, part.stop)
                for each in question.videos
                for part in timelines[each].ranges(
                    question.spans_of(each), intervals[each], question.moment(each)
                )
            ]
            return self._searchable.retriever.search(question, most, stretches).names
