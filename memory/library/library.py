"""Which of many videos a question is about: `bank.library`.

Knows the frame embeddings of all videos, the retriever and where lines are; loads no frame.
"""

from collections.abc import Sequence

from encoders.errors import UserError
from memory.bank_catalog import BankCatalog
from memory.library.library_index import LibraryIndex, clips_of
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.fusion import Moment, reciprocal_rank
from memory.retrieval.searchable import SearchableVideos
from memory.schema import Question, Stretch, VideoSpan
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
        ram_bytes: int,
    ) -> None:
        """ram_bytes: for the rows of all videos."""
        self._catalog, self._searchable = catalog, searchable
        clips = clips_of(searchable.retriever)
        self._indexes = {
            name: LibraryIndex(store, clip, ram_bytes // len(clips)) for name, clip in clips.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes of rows in RAM."""
        return sum(index.nbytes for index in self._indexes.values())

    def best_videos(
        self, question: Question, near: Sequence[VideoSpan], most: int
    ) -> tuple[str, ...]:
        """The videos whose frames and lines fit a question best, at most `most`, in its own order.

        near: where lines are that belong to the question, best first. UserError where there are too
        many videos for a retriever without frame embeddings.
        """
        numbers = {video_id: number for number, video_id in enumerate(question.videos)}
        weighted = [*self._by_frames(question), (1.0, [span.video_id for span in near])]
        rankings = [
            dict.fromkeys(numbers[each] for each in videos if each in numbers)
            for _, videos in weighted
        ]
        best = list(reciprocal_rank(rankings, [weight for weight, _ in weighted]))[:most]
        return tuple(question.videos[number] for number in sorted(best)) or question.videos[:most]

    def rank_frames(self, question: Question, most: int, part: str = "") -> list[Moment] | None:
        """The frames of all of a question's videos whose embeddings are nearest to it, best first,
        in one search; None for a part of the retriever that compares no embeddings."""
        index = self._indexes.get(part)
        if index is None:
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
            for one in index.search(question, intervals, most)
        ]

    def _intervals(self, question: Question) -> dict[str, float]:
        """Seconds between frames, by video."""
        asked = set(question.videos)
        return {
            row.info.video_id: row.interval
            for row in self._catalog.videos()
            if row.info.video_id in asked
        }

    def _by_frames(self, question: Question) -> list[tuple[float, list[str]]]:
        """The videos of the best frames, best first, by each part that ranks them: its weight, and
        the videos of its frames."""
        intervals, retriever = self._intervals(question), self._searchable.retriever
        weights = retriever.weights_of(question) if isinstance(retriever, FusedRetriever) else {}
        ranked = [
            (weight, index.search(question, intervals, _RANKED_FRAMES))
            for name, index in self._indexes.items()
            if (weight := weights.get(name, 1.0)) > 0
        ]
        if ranked:
            return [(weight, [one.name.video_id for one in frames]) for weight, frames in ranked]
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
            names = retriever.search(question, _RANKED_FRAMES, stretches).names
        return [(1.0, [name.video_id for name in names])]
