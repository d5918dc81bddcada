"""What a summary is about: a film, a stretch of it, all that ran at a time, or what a search found.

Knows a bank, the words of time, and the clock on the wall; no sentence, no page.
"""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.retrieval.fusion import Moment
from memory.storage.catalog import VideoRow
from pipeline.config.units import format_time
from pipeline.query import wall_clock
from pipeline.query.time_phrases import parse_video_time
from pipeline.summary.schema import Span
from pipeline.summary.summarizer import Excerpt

_ASKED = "summary"  # words of time need something that they belong to
_NEAR_S = 2.0  # moments of a search that are closer are one chapter


@dataclass(frozen=True)
class Scope:
    """Excerptes of the videos of one bank."""

    bank: MemoryBank
    start: float = 0.0  # seconds of video time; of every film
    end: float | None = None
    when: str = ""  # words of time, such as "in the first half" or "yesterday"

    def of_films(self, rows: Sequence[VideoRow]) -> tuple[list[Excerpt], list[str]]:
        """The excerpts of some videos, in the order in which they were, and what the user must
        know. UserError where nothing is left of any of them.
        """
        spans, notes = self._when(rows)
        excerpts = []
        for row in rows:
            own = self._within(row, spans.get(row.info.video_id, (0.0, math.inf)))
            if own is not None:
                excerpts.append(Excerpt(row, *own))
        if not excerpts:
            raise UserError(self._nothing(rows))
        return sorted(excerpts, key=self._moment), notes

    def of_moments(self, moments: Sequence[Moment]) -> list[Excerpt]:
        """The excerpts around the moments of a search; each moment is a chapter."""
        by_video: defaultdict[str, list[Span]] = defaultdict(list)
        for moment in sorted(moments, key=lambda each: (each.video_id, each.start)):
            chapters = by_video[moment.video_id]
            if chapters and moment.start <= chapters[-1][1] + _NEAR_S:
                chapters[-1] = chapters[-1][0], max(chapters[-1][1], moment.end)
            else:
                chapters.append((moment.start, moment.end))
        excerpts = [
            Excerpt(
                self.bank.catalog.require_video(video_id),
                chapters[0][0],
                chapters[-1][1],
                tuple(chapters),
                frozenset(line for moment in moments for line in moment.lines),
            )
            for video_id, chapters in by_video.items()
        ]
        return sorted(excerpts, key=self._moment)

    def _when(self, rows: Sequence[VideoRow]) -> tuple[dict[str, Span], list[str]]:
        """The seconds that the words of time leave of each video. UserError on words that name no
        time."""
        if not self.when.strip():
            return {}, []
        question = f"{_ASKED} {self.when.strip()}"
        ids = [row.info.video_id for row in rows]
        limits = wall_clock.resolve(question, self.bank, ids, time.time())
        phrase = parse_video_time(limits.text)
        if phrase is None and not limits.spans:
            if limits.note:  # a time on the wall, and no video knows when it was
                raise UserError(f"{limits.note}; give start= and end= in seconds of the film")
            raise UserError(
                f'when="{self.when}" names no time; say it as in "in the first half", "after '
                '12:30", "yesterday between 10:00 and 11:00"'
            )
        spans = {}
        for row in rows:
            duration = self.bank.catalog.duration(row)
            own = (0.0, math.inf) if phrase is None else phrase.time.span(duration)
            spans[row.info.video_id] = limits.within(row.info.video_id, own)
        return spans, [limits.note] if limits.note else []

    def _within(self, row: VideoRow, span: Span) -> Span | None:
        """The part of a video that is asked for; None where it has no such part."""
        stored = self.bank.catalog.segments(row.info.video_id)
        if not stored:
            return None
        end = min(self.bank.catalog.duration(row), stored[-1].end)
        low = max(self.start, span[0], stored[0].start)
        high = min(end, span[1], math.inf if self.end is None else self.end)
        return (low, high) if low < high else None

    def _nothing(self, rows: Sequence[VideoRow]) -> str:
        """Why nothing is left."""
        if self.when.strip():
            return f'No video has anything of "{self.when}"; name another time'
        (row,) = rows[:1]
        end = self.bank.catalog.duration(row)
        return (
            f"start={self.start:g} is outside of {row.info.path or row.info.video_id}, which ends "
            f"at {end:.1f} s ({format_time(end)}); give an earlier stretch"
        )

    def _moment(self, excerpt: Excerpt) -> tuple[float, str, float]:
        """When it was, then its name."""
        info = excerpt.video.info
        began = next((each.began for each in self.bank.catalog.sessions(info.video_id)), math.inf)
        return began + excerpt.start, info.path or info.video_id, excerpt.start
