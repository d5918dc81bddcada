"""Both paths on one page: `ingest` encodes a video into the bank, `ask` answers from it.

The two meet only in the bank: `ask` never sees a frame source and `ingest` never sees a question. Knows no command line.
"""

import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from encoders.encoder import Encoder, Seen
from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.schema import (
    Compressor,
    FrameEmbedder,
    Frames,
    FrameSource,
    LiveSource,
    Prefill,
    Segment,
    Segmenter,
    VideoInfo,
)
from encoders.text.lines import SentenceEncoder, TextExtractor, TextLine
from memory.bank import MemoryBank
from memory.schema import Evidence, Question
from memory.storage.catalog import VideoRow
from memory.text.bm25 import Found
from pipeline.answer import text_evidence
from pipeline.answer.batched_reader import Together
from pipeline.answer.citations import cite, recalled, spans
from pipeline.answer.reader import KVReader, Reading, TokenReader
from pipeline.answer.stream import AnswerStream
from pipeline.ingest import text as words
from pipeline.ingest.open_segment import OpenSegment
from pipeline.query.batched import Ahead
from pipeline.runtime.background_writer import BackgroundWriter
from pipeline.runtime.cancel import Emit
from pipeline.runtime.run_ahead import RunAhead
from pipeline.runtime.stage_timer import Clock
from pipeline.runtime.torch_threads import may_share, shared_cores, worker
from pipeline.schema import Answer, Ingested, _warning, is_shown

T = TypeVar("T")
# video seconds encoded so far, bytes of segment files written so far
Progress = Callable[[float, int], None]
Read = Callable[[Evidence, Clock], Reading]
ReadAll = Callable[[Sequence[Evidence], Clock], Sequence[Reading]]


@dataclass(frozen=True, slots=True)
class Live:
    """What `follow` adds to `ingest`."""

    source: LiveSource
    show: Callable[[Segment], None]  # lets questions see a segment that is not written yet


@dataclass(frozen=True)
class VideoQA:
    """The parts of one run, built once by `pipeline/build.py`."""

    bank: MemoryBank
    backbone: Backbone
    clip: FrameEmbedder
    segmenter: Segmenter
    compressor: Compressor
    new_prefill: Callable[[], Prefill]  # a fresh window for each video
    reader: TokenReader | KVReader
    together: Together  # the same for several questions in one pass
    # what the retriever needs of a question's text, of several in one pass
    ahead: tuple[Ahead, ...]
    interval: float  # seconds between sampled frames
    read_tokens: int  # visual tokens that an answer may read, whatever the video's length
    cite_share: float
    text: tuple[TextExtractor, ...] = ()  # what looks for words in a video while it is encoded
    described: tuple[TextExtractor, ...] = ()  # what makes text of a video that is encoded
    # makes vectors of lines (encoders/text/dense.py); None: they are searched by their words alone
    sentences: SentenceEncoder | None = None
    # tokens of recalled text in the prompt; 0 = text is cited beside the answer, not read
    read_text_tokens: int = 0
    # Unix seconds of second 0 of the video that is encoded, where the user said so
    began: float | None = None

    @property
    def computes_beside(self) -> bool:
        """Whether a segment is looked at and embedded while the one before it is remembered. Decoding always runs ahead."""
        return self.backbone.device.type != "cpu" or may_share()

    def follow(
        self,
        source: LiveSource,
        progress: Progress = lambda seconds, nbytes: None,
        shown: Callable[[Segment], None] = lambda segment: None,
    ) -> Ingested:
        """`ingest` for frames that are still coming: questions see those of the open segment as well, whenever the encoder has
        nothing else to do. What does not repeat stays unfinished, and goes on behind the last segment the next time.
        shown: gets what questions see more of, each time: the open segment so far, or one that is whole."""

        def show(segment: Segment) -> None:
            self.bank.show(segment)
            shown(segment)

        try:
            return self.ingest(source, progress, live=Live(source, show))
        finally:
            self.bank.hide(source.info.video_id)

    def ingest(
        self,
        source: FrameSource,
        progress: Progress = lambda seconds, nbytes: None,
        until: int | None = None,
        *,
        live: Live | None = None,
    ) -> Ingested:
        """Encode what the bank does not hold yet of this video: what was dropped as damaged, then what comes after the last
        segment. Resumes after an interruption with the same bytes, or says that it could not. When this returns, all of it
        is durable.

        until: stop after the segment of this number and leave the video unfinished. live: by `follow`.
        UserError when the source yields no frame.
        """
        clock, video_id = Clock(), source.info.video_id
        coming: AbstractContextManager[Iterator[Seen]]
        together = self.computes_beside  # before the cores are shared
        repeats = live is None or live.source.repeats
        known = self.bank.catalog.video(video_id)
        found = words.Beside(self.bank, self.text, words.video_file(source.info), self.sentences)
        if known is not None and known.finished:
            with found:
                pass
            self._describe(source.info)
            return self._report(video_id, clock, 0, 0, _warning(known.info))
        # before looking at what is missing: nobody else may add it meanwhile
        self.bank.begin_writing()
        self.bank.record_video(source.info, self.interval, finished=False)
        new = 0
        unlike: list[int] = []  # segments whose bytes can differ from an uninterrupted run's
        with (
            found,
            BackgroundWriter(self.bank.write) as writer,
            shared_cores(2 if self.backbone.is_narrow else 1) as threads,
            worker(threads) if together else nullcontext() as beside,
        ):
            for first, stop in (
                self._missing(video_id, until)
                if repeats
                else [(self.bank.catalog.next(video_id)[0], None)]
            ):
                # what the next segments depend on is read from the bank, such as when the video began
                writer.flush()
                encoder, batches, resume, made = self._resumed(source, first, clock, unlike, live)
                number = first
                count = None if stop is None else stop - first
                if live is None:
                    coming = self._seen_ahead(
                        encoder, batches, resume, count, clock, beside, threads
                    )
                else:
                    coming = closing(
                        self._seen_as_it_comes(encoder, batches, resume, first, live, clock, beside)
                    )
                with coming as all_seen:
                    for seen in all_seen:
                        segment = encoder.remember(seen, number, clock)
                        if live is not None:
                            live.show(segment)  # from here on it is under way to the disk
                        with clock("write"):
                            writer.put(segment)
                        unlike += [] if made else [number]
                        new, number = new + 1, number + 1
                        progress(segment.end, writer.nbytes)
                if stop is not None and number < stop:
                    raise UserError(
                        f"{source.info.path} ends before segment {number}, which was made of it; is the file whole?"
                    )
        if until is None and repeats:
            self.bank.record_video(source.info, self.interval, finished=True)
            self._describe(source.info)
        warning = " ".join(filter(None, [_warning(source.info), _differing(unlike)]))
        return self._report(video_id, clock, new, writer.nbytes, warning)

    def _describe(self, info: VideoInfo) -> None:
        for extractor in self.described:
            words.extract(self.bank, extractor, words.video_file(info))
        if self.described and self.sentences is not None:
            words.add_vectors(self.bank, self.sentences, info.video_id)

    def _missing(self, video_id: str, until: int | None) -> list[tuple[int, int | None]]:
        """Numbers of missing segments, each as (first, number after the last; None = to the end of the video)."""
        number, _ = self.bank.catalog.next(video_id)
        rest = (
            []
            if until is not None and number > until
            else [(number, None if until is None else until + 1)]
        )
        return [*((gap.first, gap.stop) for gap in self.bank.catalog.gaps(video_id)), *rest]

    def _resumed(
        self, source: FrameSource, number: int, clock: Clock, unlike: list[int], live: Live | None
    ) -> tuple[Encoder, Iterator[Frames], float, bool]:
        """An encoder with the window that it had at this segment, the frames for the segmenter, the second at which the segment
        begins, and whether that window is as it was made: a quantised bank keeps no such window of what was encoded long ago,
        of a pruned video it may be gone, and segments that are `unlike` what they were may be in it."""
        prefill, made = self.new_prefill(), True
        begin = resume = 0.0
        if number:
            video_id = source.info.video_id
            made = self.bank.window.is_exact(video_id, prefill.window_frames, before=number)
            tail = self.bank.window.segments(video_id, prefill.window_frames, before=number)
            made = made and not any(run.segment in unlike for run in tail)
            prefill.restore(run.kv for run in tail if run.kv is not None)
            times = [
                float(t)
                for row in self.bank.catalog.segments(video_id)
                if row.number < number
                for t in row.times
            ]
            # not the end of the last segment: where frames are unevenly spaced the next one may come before it
            begin = resume = (
                math.nextafter(times[-1], math.inf) if times else self._left_from(video_id)
            )
            if self.segmenter.look_back and (live is None or live.source.repeats):
                before = times[: -self.segmenter.look_back]
                # right behind a frame, so that temporal patches come out as in the first pass
                begin = math.nextafter(before[-1], math.inf) if before else 0.0
        began = None if live is None else live.source.begins(begin)
        began = self._began(source.info.video_id, number) if began is None else began
        encoder = Encoder(self.backbone, self.compressor, prefill, self.clip, self.interval, began)
        return encoder, _timed(source.frames(begin), clock, "decode"), resume, made

    @contextmanager
    def _seen_ahead(
        self,
        encoder: Encoder,
        batches: Iterator[Frames],
        resume: float,
        count: int | None,
        clock: Clock,
        beside: Executor | None,
        threads: int,
    ) -> Iterator[Iterator[Seen]]:
        """What is seen of the next segments (`count` of them, or all): decoding runs ahead in one thread by a batch, looking in
        another by a segment; or in this one where nothing is computed `beside` it."""
        with RunAhead(batches, depth=1) as decoded:
            cuts = islice(self.segmenter.segments(decoded, after=resume), count)
            if beside is None:
                yield (encoder.see(frames, clock) for frames in _timed(cuts, clock, "wait"))
                return
            with RunAhead(
                (encoder.see(frames, clock, beside) for frames in cuts), depth=1, threads=threads
            ) as seen:
                yield _timed(seen, clock, "wait")

    def _seen_as_it_comes(
        self,
        encoder: Encoder,
        batches: Iterator[Frames],
        resume: float,
        first: int,
        live: Live,
        clock: Clock,
        beside: Executor | None,
    ) -> Generator[Seen]:
        """What is seen of each segment of a stream; what is in no segment yet is shown to questions. first: number of the next
        segment."""

        def show(frames: Frames) -> None:
            live.show(encoder.encode(frames, first + opened.cuts, Clock(), beside, still_open=True))

        source, patch = live.source, self.backbone.temporal_patch
        opened = OpenSegment(
            batches, show, has_time=lambda: source.is_idle, after=resume, patch=patch
        )
        for frames in _timed(self.segmenter.segments(iter(opened), after=resume), clock, "wait"):
            yield encoder.see(frames, clock, beside)
            opened.cut(frames)

    def _left_from(self, video_id: str) -> float:
        """Seconds at which what was not pruned begins."""
        video = self.bank.catalog.video(video_id)
        return 0.0 if video is None or video.pruned is None else video.pruned.start

    def _began(self, video_id: str, number: int) -> float | None:
        """Unix seconds of second 0 of the session that segment `number` belongs to. What comes after the last segment is of
        this session; what was lost before it is of the one that it was of."""
        comes_last = number == self.bank.catalog.next(video_id)[0]
        return (
            self.began
            if comes_last and self.began is not None
            else self.bank.catalog.began(video_id, number)
        )

    def stream(self, question: Question) -> AnswerStream:
        """The same answer in pieces while it is being read: `for piece in stream`, then `stream.answer`."""
        return AnswerStream(lambda emit, cancelled: self.ask(question, emit, cancelled=cancelled))

    def ask(
        self,
        question: Question,
        emit: Emit = lambda text: None,
        read: Read | None = None,
        *,
        cancelled: threading.Event | None = None,
    ) -> Answer:
        """Answer from the bank alone. UserError on an empty question, a video that the bank does not hold, or a moment
        before its first frame.

        read: how an answer is got from the evidence, where it is not simply read out: one option chosen out of several.
        cancelled: once it is set, reading out ends between two tokens with Cancelled (pipeline/answer/reader.py)."""
        known = self._known(question)
        clock = Clock()
        words_found, lines = self._words(question, known, clock)
        evidence = self.bank.recall(
            question,
            read_tokens=self.read_tokens,
            kv=self.reader.needs_kv,
            lines=lines,
            near=text_evidence.spans(words_found),
        )
        _refuse_nothing(evidence)
        reading = (
            self.reader.read(evidence, clock, emit, cancelled)
            if read is None
            else read(evidence, clock)
        )
        return self._answer(
            known, words_found, evidence, reading, clock.seconds | {"total": clock.total()}
        )

    def ask_all(
        self, questions: Sequence[Question], read: ReadAll | None = None
    ) -> list[Answer | UserError]:
        """The same for several questions about one video, in one pass of the model; a question that cannot be answered has its
        error in its place, and the others go on. `seconds` of each: its share.

        What is said is what `ask` says up to rounding, which depends on the group: ask in the same groups for the same answers.
        """
        found: list[Answer | UserError | None] = [None] * len(questions)
        known: dict[int, VideoRow] = {}
        for number, question in enumerate(questions):
            try:
                known[number] = self._known(question)
            except UserError as error:
                found[number] = error
        clock = Clock()
        if known:
            asked = [questions[number] for number in known]
            said = [
                self._words(question, known[number], clock)
                for number, question in zip(known, asked, strict=True)
            ]
            with ExitStack() as prepared:
                for ahead in self.ahead:
                    prepared.enter_context(ahead.prepared([question.text for question in asked]))
                group = self.bank.recall_all(
                    asked,
                    read_tokens=self.read_tokens,
                    kv=self.reader.needs_kv,
                    lines=[lines for _, lines in said],
                    near=[text_evidence.spans(one) for one, _ in said],
                )
            seen: dict[int, Evidence] = {}
            words_of: dict[int, tuple[Found, ...]] = {}
            for number, evidence, (words_found, _) in zip(known, group, said, strict=True):
                try:
                    _refuse_nothing(evidence)
                    seen[number], words_of[number] = evidence, words_found
                except UserError as error:
                    found[number] = error
            readings = (
                (self.together.read if read is None else read)(list(seen.values()), clock)
                if seen
                else []
            )
            share = {stage: seconds / max(len(seen), 1) for stage, seconds in clock.seconds.items()}
            share["total"] = clock.total() / max(len(seen), 1)
            for (number, evidence), reading in zip(seen.items(), readings, strict=True):
                found[number] = self._answer(
                    known[number], words_of[number], evidence, reading, share
                )
        return [answer for answer in found if answer is not None]

    def _known(self, question: Question) -> VideoRow:
        """What the bank knows of the video. UserError when it cannot be asked about."""
        if not question.text.strip():
            raise UserError(
                'The question is empty; give one, such as question="What is the code on the card?".'
            )
        known = self.bank.catalog.video(question.video_id)
        if known is None:
            raise UserError(
                f"The bank holds no video {question.video_id}; encode it first with `reelbank ingest`."
            )
        return known

    def _words(
        self, question: Question, known: VideoRow, clock: Clock
    ) -> tuple[tuple[Found, ...], tuple[TextLine, ...]]:
        """The video's words that belong to a question, and those of them that the model reads."""
        if not self.bank.text.runs(question.video_id):
            return (), ()
        with clock("search_text"):
            found = text_evidence.find(
                self.bank, question, self.bank.catalog.duration(known), self.sentences
            )
            return found, text_evidence.fitting(found, self.backbone, self.read_text_tokens)

    def _answer(
        self,
        known: VideoRow,
        words_found: Sequence[Found],
        evidence: Evidence,
        reading: Reading,
        seconds: dict[str, float],
    ) -> Answer:
        question = evidence.question
        shown = is_shown(reading.text)
        cited = cite(evidence, reading.weights, self.cite_share) if shown else ()
        return Answer(
            question=question.text,
            text=reading.text,
            shown=shown,
            spans=spans(cited, evidence.interval),
            cited=cited,
            lines=text_evidence.cited(words_found, evidence.lines) if shown else (),
            video_id=question.video_id,
            asked_at=None if question.asked_at == float("inf") else question.asked_at,
            frames_read=evidence.frame_count,
            visual_tokens=sum(len(run.tokens.tokens) for run in evidence.runs),
            seconds=evidence.seconds | seconds,
            warning=" ".join(filter(None, [_warning(known.info), self._lacking(question)])),
            recalled=recalled(evidence),
        )

    def _lacking(self, question: Question) -> str:
        """What was dropped as damaged and could have been seen."""
        gaps = [
            gap
            for gap in self.bank.catalog.gaps(question.video_id)
            if gap.start < question.asked_at
        ]
        times = ", ".join(f"{gap.start:.1f}-{gap.end:.1f} s" for gap in gaps)
        return (
            f"The bank has lost {times} of this video; `reelbank ingest` encodes it again."
            if gaps
            else ""
        )

    def _report(self, video_id: str, clock: Clock, new: int, nbytes: int, warning: str) -> Ingested:
        rows = self.bank.catalog.segments(video_id)
        names = [extractor.name for extractor in (*self.text, *self.described)]
        return Ingested(
            video_id=video_id,
            video_seconds=rows[-1].end if rows else 0.0,
            segments=len(rows),
            frames=sum(row.frames for row in rows),
            new_segments=new,
            nbytes=nbytes,
            seconds=clock.seconds | {"total": clock.total()},
            warning=" ".join(filter(None, [warning, words.notes(self.bank, video_id, names)])),
            text_lines={
                run.extractor: run.lines
                for run in self.bank.text.runs(video_id)
                if run.extractor in names
            },
        )


def _refuse_nothing(evidence: Evidence) -> None:
    question = evidence.question
    if evidence.frame_count:
        return
    if question.since > -math.inf:
        raise UserError(
            f"Nothing was seen from {question.since:g} s to {question.asked_at:g} s; ask about another time."
        )
    raise UserError(
        f"asked_at={question.asked_at:g} comes before the first frame in the bank; ask at a later second."
    )


def _differing(numbers: list[int]) -> str:
    """What a user must know about segments that were encoded behind quantised frames, or behind fewer."""
    if not numbers:
        return ""
    which = (
        f"Segment {numbers[0]} was"
        if len(numbers) == 1
        else f"{len(numbers)} segments from number {numbers[0]} on were"
    )
    return (
        f"{which} encoded behind what the bank still has of the frames before, as their keys and values as they were made are "
        "gone (quantised, or pruned); the bytes can differ from those of an uninterrupted run."
    )


def _timed(items: Iterable[T], clock: Clock, stage: str) -> Iterator[T]:
    """The same items, with the time that waiting for each took."""
    iterator = iter(items)
    try:
        while True:
            with clock(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
