"""A live session: one writer (source -> encoder -> bank) and any number of questions at the same
time.

The writer has a thread of its own, and so has each question. A question is answered from the frames
that had arrived when it was asked (law 3), including those of the open segment (memory/pending.py),
while further frames arrive. Writer and questions share the model, which holds no state of its
callers, and the bank, whose locks are held for moments only. At most `concurrency` questions
compute at a time. So a question slows the writer down but never blocks it:
`SessionStatus.longest_chunk` is the longest time that the encoder was busy with one batch of
frames, and `longest_wait` the longest time from a frame's arrival until questions could see it.

Stopping: the frames of a live source that are in no segment yet become a last, short segment. A
file stops at its last whole segment and continues there the next time, with the bytes of an
uninterrupted run.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType

from encoders.errors import SourceClosed, UserError
from encoders.schema import Frames, LiveSource, Segment, VideoInfo
from encoders.sources.live.push_source import PushSource
from memory.schema import Question
from pipeline.answer.stream import AnswerStream
from pipeline.live.encoder_turns import EncoderTurns
from pipeline.qa import VideoQA
from pipeline.runtime.cancel import Emit
from pipeline.runtime.fair_queue import FairQueue
from pipeline.schema import Answer, IngestReport, check_question

# a longer text is no question, and its tokens would take the place of frames
MAX_QUESTION_CHARS = 2000
# gets a segment, open or whole, when questions can see it
OnShown = Callable[[Segment], None]


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """How a session is doing."""

    state: str  # waiting (for the first frame), running, ended, stopped or failed
    now: float  # seconds of video time of a question asked now
    seen_until: float  # seconds of the newest frame that a question can see
    sealed_until: float  # seconds up to which segments are on the disk
    frames: int  # sampled by the source in this session
    dropped: int  # of them, pushed out of the queue before they were encoded
    reconnects: int
    bytes_written: int  # of segment files, in this session
    in_memory: dict[str, int]  # bytes: index, ram, device
    longest_chunk: float  # seconds that the encoder was busy with one batch, at most
    longest_wait: float  # seconds from a frame's arrival until questions could see it, at most
    answering: int  # questions that compute or wait for their turn
    error: str = ""  # what ended the session, in one sentence


class Session:
    """`with Session(qa, source) as session: session.ask("...")`."""

    def __init__(
        self,
        qa: VideoQA,
        source: LiveSource,
        *,
        concurrency: int = 1,
        questions: FairQueue | None = None,
        turns: EncoderTurns | None = None,
    ) -> None:
        """concurrency: questions that compute at the same time; others wait in the order of their
        arrival. questions: their queue, shared with other sessions; None: one of its own. turns: at
        the encoder, shared with other sessions; None: it has one of its own."""
        self.qa, self.source = qa, source
        self.queue = questions or FairQueue(concurrency)
        self._source = _TimedSource(source, turns)
        self._lock = threading.Lock()
        self._answering = 0
        self._listeners: list[OnShown] = []
        self._nbytes = 0
        self._stopped = False
        self._error: Exception | None = None
        self._report: IngestReport | None = None
        self._thread = threading.Thread(target=self._run, name="session-writer", daemon=True)

    @property
    def info(self) -> VideoInfo:
        return self.source.info

    def start(self) -> "Session":
        """Begin to encode. Returns at once."""
        self._thread.start()
        return self

    def wait_for_frame(self, timeout: float = 30.0) -> None:
        """Wait until questions can see a first frame. timeout: seconds. Raises UserError when the
        source cannot be reached, or yields no frame in that time."""
        deadline = time.monotonic() + timeout
        while (
            self._source.shown_until is None
            and self._thread.is_alive()
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        self.check()
        if self._source.shown_until is None and not self.qa.bank.catalog.segments(
            self.info.video_id
        ):
            raise UserError(
                f"{self.info.path} has given no frame in {timeout:g} s; check that it is running"
            )

    def ask(
        self, text: str, *, since: float | None = None, until: float | None = None
    ) -> AnswerStream:
        """Ask about the frames that have arrived by now. The stream yields the answer in pieces and
        can be cancelled.

        since, until: seconds of video time; None: from the beginning, up to now.
        Raises UserError at once on a question that is empty, too long, or asked before the first
        frame. The stream raises it where the bank has nothing in that time.
        """
        return self.stream(self.question(text, since=since, until=until))

    def stream(self, question: Question) -> AnswerStream:
        """Answer a question of `question` when its turn comes."""
        return AnswerStream(lambda emit, cancelled: self._answer(question, emit, cancelled))

    def question(
        self, text: str, *, since: float | None = None, until: float | None = None
    ) -> Question:
        """The question as it is asked now. Raises UserError as `ask` does."""
        check_text(text)
        if (
            self._source.shown_until is None
            and self.qa.bank.catalog.next(self.info.video_id)[0] == 0
        ):
            self.check()
            raise UserError(f"{self.info.path} has given no frame yet; ask again in a moment")
        now = self.now
        if until is not None and since is not None and until < since:
            raise UserError(
                f"The time from {since:g} s to {until:g} s ends before it begins; give it the "
                "other way round."
            )
        if since is not None and since > now:
            raise UserError(
                f"{since:g} s has not come yet: it is {now:g} s now; ask about an earlier time."
            )
        return Question(
            text,
            self.info.video_id,
            now if until is None else min(until, now),
            spans={} if since is None else {self.info.video_id: ((since, math.inf),)},
        )

    def video_time(self, wall: float) -> float:
        """Seconds of video time of a moment in Unix seconds. Raises UserError when the bank does
        not know the wall-clock time of the video."""
        seconds = self.qa.bank.catalog.video_time(self.info.video_id, wall)
        if seconds is None:
            raise UserError(
                f"Nobody knows when {self.info.path} was; ask in seconds of video time, or encode "
                "it with began="
            )
        return seconds

    @property
    def now(self) -> float:
        """Seconds of video time of a question asked now."""
        if self._thread.is_alive():
            return self.source.now
        return (
            self._source.shown_until
            if self._source.shown_until is not None
            else self.qa.bank.catalog.next(self.info.video_id)[1]
        )

    def listen(self, listener: OnShown) -> None:
        """Call `listener` whenever questions can see more frames, in the writer's thread: it has to
        return at once. The frames of an open segment come again each time."""
        self._listeners.append(listener)

    def status(self) -> SessionStatus:
        """How the session is doing now."""
        source, bank = self._source, self.qa.bank
        state = "running" if source.shown_until is not None else "waiting"
        if self._thread.ident is not None and not self._thread.is_alive():
            state = "failed" if self._error else "stopped" if self._stopped else "ended"
        return SessionStatus(
            state=state,
            now=self.now,
            seen_until=source.shown_until or 0.0,
            # what has been handed to the writer may still wait for the disk
            sealed_until=bank.catalog.next(self.info.video_id)[1],
            frames=int(getattr(self.source, "frames_sampled", 0)),
            dropped=int(getattr(self.source, "dropped", 0)),
            reconnects=int(getattr(self.source, "reconnects", 0)),
            bytes_written=self._nbytes,
            in_memory=bank.in_memory(),
            longest_chunk=source.longest_chunk,
            longest_wait=source.longest_wait,
            answering=self._answering,
            error=str(self._error or ""),
        )

    def check(self) -> None:
        """Raise the error that ended the session, if one did."""
        if self._error is not None:
            raise self._error

    def join(self, timeout: float | None = None) -> IngestReport | None:
        """Wait until the source ends. None when the session was stopped, or the timeout (seconds)
        has passed. Raises the error that ended the session."""
        self._thread.join(timeout)
        self.check()
        return self._report

    def stop(self) -> None:
        """End the session. When this returns, everything that arrived is on the disk; running
        questions continue. Raises the error that ended the session."""
        self._stopped = True
        self.source.close()
        if self._thread.ident is not None:
            self._thread.join()
        self.check()

    def __enter__(self) -> "Session":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except Exception:
            if error is None:  # otherwise it would hide the error of the block
                raise

    # ---- inside

    def _answer(self, question: Question, emit: Emit, cancelled: threading.Event) -> Answer:
        with self._lock:
            self._answering += 1
        try:
            with self.queue.turn(cancelled):
                return self.qa.ask(question, emit, cancelled=cancelled)
        finally:
            with self._lock:
                self._answering -= 1

    def _run(self) -> None:
        try:
            self._report = self.qa.follow(self._source, self._on_progress, self._on_shown)
        except SourceClosed:
            pass
        except Exception as error:  # raised by `check`
            self._error = error

    def _on_progress(self, _seconds: float, nbytes: int) -> None:
        self._nbytes = nbytes

    def _on_shown(self, segment: Segment) -> None:
        self._source.mark_shown(float(segment.times[-1]))
        for listener in self._listeners:
            listener(segment)


class _TimedSource:
    """The source, with the times at which each frame arrived and became visible to questions."""

    def __init__(self, source: LiveSource, turns: EncoderTurns | None = None) -> None:
        self.source, self._turns = source, turns
        self.is_replayable = source.is_replayable
        # seconds of the newest frame that a question can see; None: there is none
        self.shown_until: float | None = None
        self.longest_wait = self.longest_chunk = 0.0
        # time of a frame -> monotonic second of its arrival
        self._arrived_at: dict[float, float] = {}
        self._newest_arrived = 0.0  # of the frames that were taken last
        self._busy_since = 0.0

    @property
    def info(self) -> VideoInfo:
        return self.source.info

    @property
    def is_idle(self) -> bool:
        return self.source.is_idle and (self._turns is None or not self._turns.is_contended)

    @property
    def now(self) -> float:
        return self.source.now

    def start_clock(self, start: float) -> float | None:
        return self.source.start_clock(start)

    def close(self) -> None:
        self.source.close()

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        for frames in self.source.frames(start):
            self._newest_arrived = time.monotonic() - self._queued_s(frames)
            for at in frames.times.tolist():
                self._arrived_at[at] = self._newest_arrived
            # whoever takes the frames encodes until it asks for more
            with nullcontext() if self._turns is None else self._turns.turn(self._urgency):
                self._busy_since = time.monotonic()
                yield frames
                self.longest_chunk = max(self.longest_chunk, time.monotonic() - self._busy_since)

    def _urgency(self) -> tuple[float, float]:
        # the frames that wait for their turn are in no queue any more
        share, age = getattr(self.source, "urgency", (0.0, 0.0))
        return share, max(age, time.monotonic() - self._newest_arrived)

    def _queued_s(self, frames: Frames) -> float:
        """Seconds that frames waited in the queue of their source."""
        if not isinstance(self.source, PushSource):
            return 0.0
        return max(0.0, self.source.now - float(frames.times[0]))

    def mark_shown(self, until: float) -> None:
        """Questions can see the frames up to this second of video time."""
        now = time.monotonic()
        for at in [at for at in self._arrived_at if at <= until]:
            self.longest_wait = max(self.longest_wait, now - self._arrived_at.pop(at))
        self.shown_until = until if self.shown_until is None else max(self.shown_until, until)


def check_text(text: str) -> None:
    """Raise UserError when a text is empty or too long to be a question."""
    check_question(text, 'ask something, such as "What is the code on the card?"')
    if len(text) > MAX_QUESTION_CHARS:
        raise UserError(
            f"The question has {len(text)} letters; ask in {MAX_QUESTION_CHARS} or fewer."
        )
