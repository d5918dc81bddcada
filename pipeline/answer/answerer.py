"""The read path: a question becomes an answer with the moments it cites. Knows no frame source and
no encoder; a part that encodes a film again belongs to the strategy `second_look` alone.

`ask` takes one question, and `ask_all` several about one video. How it is answered is up to the
strategy (pipeline/answer/strategies/). `retrieve`, which is the default, and which others build on:
search the words of the video, recall frames from the bank, read them, cite. Where the model cannot
answer, the words do (pipeline/answer/quotes/).
"""

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from encoders.errors import UserError
from encoders.text.lines import SentenceEncoder
from memory.bank import MemoryBank
from memory.schema import Evidence, Question, VideoTitle
from memory.text.bm25 import RankedLine
from pipeline.answer import text_evidence
from pipeline.answer.citations import (
    cite,
    cited_spans,
    cited_videos,
    main_video,
    on_wall_clock,
    recalled_spans,
)
from pipeline.answer.film_encoder import FilmEncoder
from pipeline.answer.line_scan.schema import LineScan
from pipeline.answer.quotes.quotation import Quotation
from pipeline.answer.quotes.quoter import Quoter
from pipeline.answer.quotes.words import NO_ANSWER, Words
from pipeline.answer.requests.request import Request, RequestBuilder
from pipeline.answer.requests.video_titles import video_titles
from pipeline.answer.schema import EvidenceReader, GroupReader, NothingSeenError
from pipeline.answer.strategies.call_log import call_of, trace_of
from pipeline.answer.strategies.retrieve import Retrieve, asks_for_newest
from pipeline.answer.strategies.schema import AnswerStrategy, Turn
from pipeline.answer.strategies.segment_slices import seen_slices
from pipeline.answer.stream import AnswerStream
from pipeline.query.batched import BatchedQueries
from pipeline.query.time_limits import TimedQuestion, read_times
from pipeline.runtime.cancel import Emit, raise_if_cancelled
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import (
    PICTURE,
    Answer,
    CitedVideo,
    Reading,
    check_question,
    is_shown,
)

FRAMES_ANSWER = "answer=retrieve reads the frames that fit the question best"
WORDS_ANSWER = "the model cannot answer this question, so the words of the film do"
NOTHING_SEEN = (
    "Nothing was seen of these videos at the time of the question; ask about another time."
)
Read = Callable[[Evidence, StageTimer], Reading]
ReadAll = Callable[[Sequence[Evidence], StageTimer], Sequence[Reading | UserError]]


@dataclass(frozen=True)
class Answerer:
    """Answers questions from one bank."""

    bank: MemoryBank
    reader: EvidenceReader
    batched_reader: GroupReader  # the same reader for several questions at a time
    queries: tuple[BatchedQueries, ...]  # what the retriever needs of a question's text, batched
    read_tokens: int  # visual tokens that an answer may read, at any length of video
    cite_share: float  # of the heaviest frame's weight: lighter frames are not cited
    # embeds lines (encoders/text/mean_pooled_encoder.py); None: only their words are searched
    sentence_encoder: SentenceEncoder | None = None
    line_scan: LineScan | None = None  # reads every line for a question; None: no
    # tokens of recalled text in the prompt; 0 = text is cited beside the answer, not read
    read_text_tokens: int = 0
    # True: the model reads no text and knows only the questions of the needle world
    only_cards: bool = False
    # part of the retriever whose scores of frames can be compared ("": the retriever itself); None:
    # it has no such part
    raw_scores: str | None = None
    ranked_by: str = ""  # the settings of the retriever: findings that rest on its ranking name it
    strategy: AnswerStrategy = field(default_factory=Retrieve)
    # videos whose frames lie side by side in one prompt; None: as many as RequestBuilder reads
    most_read: int | None = None
    # encodes stretches of films again; None: the model is behind an address, and gets pictures
    film_encoder: FilmEncoder | None = None

    def stream(self, question: Question) -> AnswerStream:
        """`ask` in pieces: `for piece in stream`, then `stream.answer`."""
        return AnswerStream(lambda emit, cancelled: self.ask(question, emit, cancelled=cancelled))

    def ask(
        self,
        question: Question,
        emit: Emit = lambda text: None,
        read: Read | None = None,
        *,
        cancelled: threading.Event | None = None,
    ) -> Answer:
        """Answer from the bank alone, as the strategy does.

        emit: gets the text in pieces.
        read: replaces the reader, for example to choose one of several options.
        cancelled: once it is set, the answer ends soon and Cancelled is raised. Segments that the
        bank encoded for it until then are kept.
        Raises UserError on an empty question, a video that is not in the bank, or a moment before
        its first frame.
        """
        check_question(question.text)
        if len(question.videos) == 1 or not isinstance(self.strategy, Retrieve):
            self._requests.videos(question)  # of many videos, `retrieve` looks itself
        with self.bank.encoding.watched(lambda done, of: raise_if_cancelled(cancelled)):
            answer = self.strategy.answer(question, self, Turn(emit, cancelled, read))
        answer = self._dated(answer)
        used = None if answer.trace is None else answer.trace.usage
        return answer if used is None else replace(answer, usage=used)

    def retrieve(
        self,
        question: Question,
        emit: Emit = lambda text: None,
        read: Read | None = None,
        *,
        cancelled: threading.Event | None = None,
    ) -> Answer:
        """`ask` in one pass over the frames that fit the question best, whatever the strategy."""
        timer = StageTimer()
        request = self._requests.build(question, timer)
        if read is None and self.needs_words(request.question):
            answer = self._in_words(request, timer)
            emit(answer.text)
            return answer
        evidence = self._evidence(request, self.read_tokens)
        _refuse_nothing(evidence)
        if read is not None:
            reading = read(evidence, timer)
            return self._answer(request, evidence, reading, timer, quotes=False)
        reading = self.reader.read(evidence, timer, emit, cancelled)
        answer = self._answer(request, evidence, reading, timer)
        if reading.is_blank:
            emit(answer.text)
        return answer

    def recall(self, question: Question, timer: StageTimer, read_tokens: int) -> Evidence:
        """What `ask` reads for a question: the frames, and the words where the video has some.

        read_tokens: visual tokens of the frames, in place of the answerer's own; there may be no
        frame. Raises UserError as `ask`.
        """
        request = self._requests.build(question, timer)
        return self._evidence(request, read_tokens)

    def ask_all(
        self, questions: Sequence[Question], read: ReadAll | None = None
    ) -> list[Answer | UserError]:
        """`ask` for several questions about one video, in order. A question that cannot be answered
        has its error in its place, and the others go on.

        With the strategy `retrieve`, one pass of the model reads for all of them: `seconds` of each
        answer is its share. Each answer equals that of `ask` up to rounding, which depends on the
        group: the same groups give the same answers.
        """
        if not isinstance(self.strategy, Retrieve):
            return [self._ask_one(question, read) for question in questions]
        alone = [number for number, each in enumerate(questions) if self._is_present(each)]
        several = [each for number, each in enumerate(questions) if number not in alone]
        results = self._retrieve_all(several, read)
        for number in alone:
            results.insert(number, self._ask_one(questions[number], read))
        return results

    def _dated(self, answer: Answer) -> Answer:
        """The answer with its spans on the clock on the wall."""
        sessions = self.bank.catalog.sessions(answer.video_id) if answer.spans else []
        return replace(answer, wall_clock=on_wall_clock(answer.spans, sessions))

    def _is_present(self, question: Question) -> bool:
        """Whether the newest moment answers, so that one pass is not enough. An error is one of the
        answer."""
        try:
            return asks_for_newest(self.timed(question), only_cards=self.only_cards)
        except UserError:
            return False

    def _ask_one(self, question: Question, read: ReadAll | None) -> Answer | UserError:
        """One question of a group, with its error as a value."""

        def read_one(evidence: Evidence, timer: StageTimer) -> Reading:
            assert read is not None
            (reading,) = read([evidence], timer)
            if isinstance(reading, UserError):
                raise reading
            return reading

        try:
            return self.ask(question, read=None if read is None else read_one)
        except UserError as error:
            return error

    def _retrieve_all(
        self, questions: Sequence[Question], read: ReadAll | None
    ) -> list[Answer | UserError]:
        """`retrieve` for several questions in one pass of the model."""
        results: dict[int, Answer | UserError] = {}
        timer = StageTimer()
        requests: dict[int, Request] = {}
        for number, question in enumerate(questions):
            try:
                requests[number] = self._requests.build(question, timer)
            except UserError as error:
                results[number] = error
        for number, request in tuple(requests.items()):
            if read is None and self.needs_words(request.question):
                del requests[number]
                try:
                    results[number] = self._in_words(request, StageTimer())
                except UserError as error:
                    results[number] = error
        evidences: dict[int, Evidence] = {}
        for number, evidence in zip(requests, self._recall(list(requests.values())), strict=True):
            try:
                _refuse_nothing(evidence)
                evidences[number] = evidence
            except UserError as error:
                results[number] = error
        if evidences:
            read_all = self.batched_reader.read if read is None else read
            readings = read_all(list(evidences.values()), timer)
            for (number, evidence), reading in zip(evidences.items(), readings, strict=True):
                results[number] = (
                    reading
                    if isinstance(reading, UserError)
                    else self._answer(
                        requests[number],
                        evidence,
                        reading,
                        timer,
                        share=1 / len(evidences),
                        quotes=read is None,
                    )
                )
        results |= {
            number: self._dated(each)
            for number, each in results.items()
            if isinstance(each, Answer)
        }
        return [results[number] for number in range(len(questions))]

    def timed(self, question: Question) -> TimedQuestion:
        """The question, limited to the stretches that its words name. UserError as `ask`."""
        return read_times(question, self.bank, self._requests.videos(question))

    def recall_all(self, questions: Sequence[Question]) -> list[Evidence]:
        """The frames of several questions about one video, each within `read_tokens`, without words
        of the video. One may have none."""
        with ExitStack() as stack:
            for query in self.queries:
                stack.enter_context(
                    query.prepared([question.search_text for question in questions])
                )
            return self.bank.recall_all(
                questions, read_tokens=self.read_tokens, kv=self.reader.needs_kv
            )

    def refuse_unseen(self, question: Question) -> None:
        """UserError where the question sees no frame, as `ask`."""
        if len(question.videos) == 1:
            _refuse_nothing(self.bank.recall(question, read_tokens=self.read_tokens, kv=False))
        elif next(seen_slices(self, question), None) is None:
            raise NothingSeenError(NOTHING_SEEN)

    def titles(self, question: Question) -> dict[str, VideoTitle]:
        """What names each of the question's videos in a prompt; none for a single one."""
        return video_titles(self.bank.catalog, self._requests.videos(question), question.names)

    def warnings(self, question: Question) -> str:
        """What the user must know about the video, whatever the answer is."""
        request = Request(question.text, question, self._requests.videos(question), {})
        return " ".join(filter(None, [request.warning, self._lost(request)]))

    def moment(self, question: Question) -> float | None:
        """Seconds of video time of the question; None: the end of the video."""
        return _moment(question)

    def in_words(self, question: Question, emit: Emit = lambda text: None) -> Answer:
        """The answer from the words of the film alone, in quotes. UserError as `ask`."""
        timer = StageTimer()
        answer = self._in_words(self._requests.build(question, timer), timer)
        emit(answer.text)
        return answer

    def needs_words(self, question: Question) -> bool:
        """Whether only the words of the film can answer, because the model cannot at all."""
        return self._words.replace_model(question)

    @property
    def _requests(self) -> RequestBuilder:
        return RequestBuilder(
            self.bank,
            self.sentence_encoder,
            self.line_scan,
            self.reader.count_tokens,
            self.read_text_tokens,
            self.only_cards,
            self.most_read,
        )

    def _evidence(self, request: Request, read_tokens: int) -> Evidence:
        """Recall the frames of one question."""
        return self.bank.recall(
            request.question,
            read_tokens=read_tokens,
            kv=self.reader.needs_kv,
            lines=request.lines,
            near=request.near,
            titles=self._requests.titles([request]),
        )

    def _recall(self, requests: Sequence[Request]) -> list[Evidence]:
        """Evidence of each question; their texts are embedded in one pass."""
        if not requests:
            return []
        with ExitStack() as stack:
            for query in self.queries:
                stack.enter_context(
                    query.prepared([request.question.search_text for request in requests])
                )
            return self.bank.recall_all(
                [request.question for request in requests],
                read_tokens=self.read_tokens,
                kv=self.reader.needs_kv,
                lines=[request.lines for request in requests],
                near=[request.near for request in requests],
                titles=self._requests.titles(list(requests)),
            )

    @property
    def _words(self) -> Words:
        return Words(Quoter(self.bank, self.sentence_encoder), self.only_cards)

    def _quote(self, request: Request, timer: StageTimer) -> Quotation | None:
        with timer("search_text"):
            return self._words.quoter.quote(request.question, request.durations)

    def _in_words(self, request: Request, timer: StageTimer) -> Answer:
        """The answer to a question that the model cannot answer. Raises UserError as `ask`."""
        question = request.question
        seen = self.bank.recall(question, read_tokens=self.read_tokens, kv=False)
        _refuse_nothing(seen)
        quotation, confidence = None, None
        if self._words.has_lines(question):
            quotation = self._quote(request, timer)
            confidence = 0.0 if quotation is None else quotation.confidence
        if quotation is not None and quotation.is_said:
            answer = self._quoted(request, quotation, timer)
        else:
            text, note = self._words.refusal(question)
            answer = self._unshown(request, text, timer, note, confidence)
        return replace(answer, trace=trace_of(Retrieve.name, WORDS_ANSWER, answer))

    def _quoted(self, request: Request, quotation: Quotation, timer: StageTimer) -> Answer:
        own = quotation.lines[0].video_id
        paths = {each: row.info.path for each, row in request.videos.items()}
        videos = (
            CitedVideo(each, path, quotation.spans if each == own else (), ())
            for each, path in paths.items()
        )
        return Answer(
            question=request.text,
            text=quotation.text,
            shown=True,
            spans=quotation.spans,
            cited=(),
            video_id=own,
            asked_at=_moment(request.question),
            frames_read=0,
            visual_tokens=0,
            seconds=timer.seconds | {"total": timer.total()},
            warning=" ".join(filter(None, [request.warning, request.note])),
            lines=text_evidence.cite_quoted(quotation, request.matches),
            channel=quotation.channel,
            confidence=quotation.confidence,
            cited_by="quote",
            videos=tuple(videos) if len(paths) > 1 else (),
        )

    def _unshown(
        self,
        request: Request,
        text: str,
        timer: StageTimer,
        note: str = "",
        confidence: float | None = None,
    ) -> Answer:
        """An answer that cites nothing."""
        return Answer(
            question=request.text,
            text=text,
            shown=False,
            spans=(),
            cited=(),
            video_id=request.question.videos[0],
            asked_at=_moment(request.question),
            frames_read=0,
            visual_tokens=0,
            seconds=timer.seconds | {"total": timer.total()},
            warning=" ".join(filter(None, [request.warning, request.note, note])),
            confidence=confidence,
        )

    def _answer(
        self,
        request: Request,
        evidence: Evidence,
        reading: Reading,
        timer: StageTimer,
        *,
        share: float = 1.0,
        quotes: bool = True,
    ) -> Answer:
        """The model's answer, or the words' where the model says nothing.

        share: of the timer's seconds. quotes: False where the model chose from options.
        """
        question, is_blank = evidence.question, reading.is_blank
        read_seconds = sum(timer.seconds.values()) - timer.seconds.get("search_text", 0.0)
        call = call_of("answer", [evidence], [reading], share * read_seconds, self.reader)
        spoken = ""
        is_open = is_blank or not is_shown(reading.text)
        if quotes and is_open and (is_blank or self._words.complete_model(question)):
            quotation = self._quote(request, timer)
            if quotation is not None and quotation.is_said:
                if is_blank:
                    quoted = self._quoted(request, quotation, timer)
                    trace = trace_of(Retrieve.name, FRAMES_ANSWER, quoted, [call])
                    return replace(quoted, trace=trace)
                spoken = f"The pictures do not show it, but the words say: {quotation.text}"
        warnings = (request.warning, self._lost(request), request.note, spoken)
        seconds = timer.seconds | {"total": timer.total()}
        shares = {stage: share * spent for stage, spent in seconds.items()}
        answer = self.answer(evidence, reading, shares, request.matches, warnings)
        trace = trace_of(Retrieve.name, FRAMES_ANSWER, answer, [call])
        return replace(answer, question=request.text, trace=trace)

    def answer(
        self,
        evidence: Evidence,
        reading: Reading,
        seconds: dict[str, float],
        matches: Sequence[RankedLine] = (),
        warnings: Sequence[str] = (),
    ) -> Answer:
        """A reading with what it rests on; a blank one becomes a sentence that says so.
        matches: lines of the video that belong to the question, best first.
        """
        question, text = evidence.question, NO_ANSWER if reading.is_blank else reading.text
        shown = is_shown(reading.text) and bool(reading.text.strip())
        cited = cite(evidence, reading.weights, self.cite_share) if shown else ()
        video_id = main_video(evidence, cited)
        videos: tuple[CitedVideo, ...] = ()
        if len(question.videos) > 1:
            rows = filter(None, map(self.bank.catalog.video, evidence.videos))
            paths = {row.info.video_id: row.info.path for row in rows}
            videos = cited_videos(evidence, cited, paths)
        own = [frame for frame in cited if frame.video_id == video_id]
        return Answer(
            question=question.text,
            text=text,
            shown=shown,
            spans=cited_spans(own, evidence.interval),
            cited=cited,
            lines=text_evidence.cite_lines(matches, evidence.lines) if shown else (),
            video_id=video_id,
            asked_at=_moment(question),
            frames_read=(
                evidence.frame_count if reading.frames_read is None else reading.frames_read
            ),
            visual_tokens=sum(len(run.tokens.tokens) for run in evidence.runs),
            seconds=evidence.seconds | seconds,
            warning=" ".join(filter(None, [*warnings, reading.warning])),
            recalled=recalled_spans(evidence, video_id),
            cited_by=reading.cited_by,
            usage=reading.usage,
            channel=PICTURE if shown else "",
            confidence=None if reading.absence is None else round(1.0 - reading.absence, 4),
            videos=videos,
            is_cut=reading.is_cut,
            is_stopped=reading.is_stopped,
        )

    def _lost(self, request: Request) -> str:
        """The warning about damaged segments that were dropped and that the question could have
        seen."""
        question, sentences = request.question, []
        for video_id, row in request.videos.items():
            gaps = self.bank.catalog.gaps(video_id)
            times = ", ".join(
                f"{gap.start:.1f}-{gap.end:.1f} s"
                for gap in gaps
                if gap.start < question.moment(video_id)
            )
            which = "this video" if len(request.videos) == 1 else Path(row.info.path).name
            sentences += [
                f"The bank has lost {times} of {which}; `reelbank ingest` encodes it again."
            ] * bool(times)
        return " ".join(sentences)


def _moment(question: Question) -> float | None:
    return None if question.asked_at == math.inf else question.asked_at


def _refuse_nothing(evidence: Evidence) -> None:
    """Raise NothingSeenError when no frame was recalled."""
    question = evidence.question
    if evidence.frame_count:
        return
    if len(question.videos) > 1:
        raise NothingSeenError(NOTHING_SEEN)
    start, _ = question.hull(question.video_id)
    if start > -math.inf:
        raise NothingSeenError(
            f"Nothing was seen from {start:g} s to {question.asked_at:g} s; ask about another time."
        )
    raise NothingSeenError(
        f"asked_at={question.asked_at:g} comes before the first frame in the bank; ask at a later "
        "second."
    )
