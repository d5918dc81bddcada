"""A question -> what is read for it: its videos, the stretches that its words name, its lines.

Order: the videos of the bank, the words of time, the lines of text, and of many videos the few that
fit best. Knows the bank's searches; no model that answers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from encoders.errors import UserError
from encoders.text.lines import SentenceEncoder, TextLine
from memory.bank import MemoryBank
from memory.schema import Question, VideoSpan, VideoTitle
from memory.storage.catalog import VideoRow
from memory.text.bm25 import RankedLine
from pipeline.answer import text_evidence
from pipeline.answer.line_scan.schema import LineScan
from pipeline.answer.requests.video_titles import video_titles
from pipeline.query.time_limits import read_times
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import check_question, source_warning

MOST_READ = 4  # videos whose frames lie side by side in one prompt; of more, the best are read
MOST_SEARCHED = 10_000  # videos of one question


@dataclass(frozen=True, slots=True)
class Request:
    """A question, with the words of its videos that belong to it."""

    text: str  # of the question, as it was asked
    question: Question  # about the videos that are read, limited to the stretches that it names
    videos: Mapping[str, VideoRow]  # those that are read, by id
    durations: Mapping[str, float]  # seconds of each
    matches: tuple[RankedLine, ...] = ()  # lines for the citations, best first
    lines: tuple[TextLine, ...] = ()  # those of them that the model reads, in time order
    note: str = ""  # what the user must know about its time and its videos

    @property
    def near(self) -> list[VideoSpan]:
        """Where the lines are, best first."""
        return text_evidence.line_spans(self.matches)

    @property
    def warning(self) -> str:
        """What the user must know about the files."""
        told = {each: source_warning(row.info) for each, row in self.videos.items()}
        if len(self.videos) == 1:
            return next(iter(told.values()))
        return " ".join(
            f"{Path(self.videos[each].info.path).name}: {text}"
            for each, text in told.items()
            if text
        )


@dataclass(frozen=True)
class RequestBuilder:
    """Makes requests to one bank."""

    bank: MemoryBank
    sentence_encoder: SentenceEncoder | None  # None: only the words of lines are searched
    line_scan: LineScan | None  # None: no search reads every line
    count_tokens: Callable[[str], int]  # of a text in the model's prompt
    read_text_tokens: int  # of lines in the prompt
    only_cards: bool  # the model knows no words of time
    # videos that lie side by side in one prompt; None: MOST_READ
    most_read: int | None = None

    def build(self, question: Question, timer: StageTimer) -> Request:
        """Raises UserError on an empty question, on a video that is not in the bank, and where no
        video has the time that the question names."""
        check_question(question.text)
        text, videos = question.text, self.videos(question)
        timed = read_times(question, self.bank, videos)
        question, notes = timed.question, [timed.note]
        if self.only_cards:
            question = replace(question, text=question.search_text)
        durations = {each: self.bank.catalog.duration(row) for each, row in videos.items()}
        matches: tuple[RankedLine, ...] = ()
        if self._has_text(question):
            with timer("search_text"):
                matches = text_evidence.find(
                    self.bank, question, durations, self.sentence_encoder, self.line_scan
                )
            if not timed.note and len(videos) == 1:
                (duration,) = durations.values()
                notes.append(text_evidence.time_note(question.search_text, duration))
        most = MOST_READ if self.most_read is None else self.most_read
        if len(videos) > most:
            with timer("search"):
                near = text_evidence.line_spans(matches)
                chosen = self.bank.library.best_videos(question, near, most)
            notes.append(f"{len(videos)} videos were searched and the best {len(chosen)} read.")
            question = replace(question, videos=chosen)
            matches = tuple(one for one in matches if one.line.video_id in chosen)
        read = {each: videos[each] for each in question.videos}
        lines = text_evidence.select_lines(
            matches,
            self.count_tokens,
            self.read_text_tokens,
            video_titles(self.bank.catalog, read, question.names) if matches else {},
        )
        return Request(
            text,
            question,
            read,
            durations,
            matches,
            lines,
            " ".join(filter(None, notes)),
        )

    def titles(self, requests: list[Request]) -> dict[str, VideoTitle]:
        """What names each video, for prompts with frames of several."""
        several = [request for request in requests if len(request.videos) > 1]
        rows = {each: row for request in several for each, row in request.videos.items()}
        names = {each: name for one in several for each, name in one.question.names.items()}
        return video_titles(self.bank.catalog, rows, names)

    def videos(self, question: Question) -> dict[str, VideoRow]:
        """The bank's rows of the question's videos. UserError as `build`."""
        if len(question.videos) > MOST_SEARCHED:
            raise UserError(
                f"A question about {len(question.videos)} videos is too much; ask about "
                f"{MOST_SEARCHED} or fewer."
            )
        catalog = self.bank.catalog
        if len(question.videos) == 1:
            row = catalog.video(question.video_id)
            rows = {} if row is None else {question.video_id: row}
        else:
            rows = {row.info.video_id: row for row in catalog.videos()}
        missing = [each for each in question.videos if each not in rows]
        if missing:
            raise UserError(
                f"The bank holds no video {missing[0]}; encode it first with `reelbank ingest`."
            )
        return {each: rows[each] for each in question.videos}

    def _has_text(self, question: Question) -> bool:
        if len(question.videos) == 1:
            return bool(self.bank.text.runs(question.video_id))
        videos = set(question.videos)
        return any(run.video_id in videos for run in self.bank.text.runs())
