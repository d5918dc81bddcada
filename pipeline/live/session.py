"""A session: one writer (source -> encoder -> bank) and any number of askers at the same time.

The writer has a thread of its own, each question has one. A question is answered from what had come when it was asked (law 3),
with the frames of the segment that is still open (memory/pending.py), while further frames come. They share the model, which keeps
nothing of its callers, and the bank, whose locks are held for moments; only `at_once` questions compute at a time. So a
question never makes the writer wait for its end, only run slower beside it: `Figures.longest_chunk` says how long the encoder
was busy with what a frame brought, at most, and `longest_wait` how long a frame took until it could be asked about.

Stopping: frames of a live source that are in no segment yet become a last, short one. A file is left at its last whole segment
and goes on there the next time, with the bytes of an uninterrupted run.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from encoders.errors import SourceStopped, UserError
from encoders.schema import Frames, LiveSource, Segment, VideoInfo
from memory.schema import Question
from pipeline.answer.stream import AnswerStream
from pipeline.qa import VideoQA
from pipeline.runtime.fair_queue import Turns
from pipeline.schema import Answer, Ingested, check_question

# longer ones are refused: nobody asks them, and they would take the place of frames
QUESTION_LETTERS = 2000
# gets the open segment so far, or one that is whole, when it can be asked about
Told = Callable[[Segment], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """How a session is doing."""

    state: str  # waiting (for the first frame), running, ended, stopped or failed
    now: float  # seconds of video time at which a question asked now is asked
    seen_until: float  # seconds of the newest frame that a question can see
    sealed_until: float  # seconds up to which segments are on the disk
    frames: int  # sampled by the source in this session
    dropped: int  # of them, pushed out of the queue before they were encoded
    reconnects: int
    bytes_written: int  # of segment files, in this session
    in_memory: dict[str, int]  # bytes: index, ram, device
    longest_chunk: float  # seconds that encoding a segment took at most
    longest_wait: float  # seconds from a frame's coming to its being seen by questions, at most
    answering: int  # questions under way, waiting ones included
    error: str = ""  # what ended the session, in one sentence


class Session:
    """`with Session(qa, source) as session: session.ask("...")`."""

    def __init__(self, qa: VideoQA, source: LiveSource, *, at_once: int = 1) -> None:
        """at_once: questions that compute at the same time; others wait for their turn in the order in which they came."""
        self.qa, self.source = qa, source
        self.turns = Turns(at_once)
        self._watch = _Watch(source)
        self._lock = threading.Lock()
        self._answering = 0
        self._heard: list[Told] = []
        self._nbytes = 0
        self._sealed = 0.0
        self._stopped = False
        self._error: Exception | None = None
        self._done: Ingested | None = None
        self._thread = threading.Thread(target=self._run, name="session-writer", daemon=True)

    @property
    def info(self) -> VideoInfo:
        return self.source.info

    def start(self) -> "Session":
        """Begin to encode. Returns at once."""
        self._thread.start()
        return self

    def wait_for_frame(self, timeout: float = 30.0) -> None:
        """Until a first frame can be asked about. UserError when the source cannot be reached, or gives none in that time."""
        until = time.monotonic() + timeout
        while self._watch.seen is None and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        self.check()
        if self._watch.seen is None and not self.qa.bank.catalog.segments(self.info.video_id):
            raise UserError(
                f"{self.info.path} has given no frame in {timeout:g} s; check that it is running"
            )

    def ask(
        self, text: str, *, since: float | None = None, until: float | None = None
    ) -> AnswerStream:
        """Ask about what has been seen by now. Pieces of the answer come from the stream, which can be cancelled.

        since, until: seconds of video time; None: from the beginning, up to now. UserError at once on a question that is empty,
        absurdly long, or asked before the first frame, and in the stream where there is nothing in that time.
        """
        return self.stream(self.question(text, since=since, until=until))

    def stream(self, question: Question) -> AnswerStream:
        """The answer to a question of `question`, when its turn comes."""
        return AnswerStream(lambda emit, cancelled: self._answer(question, emit, cancelled))

    def question(
        self, text: str, *, since: float | None = None, until: float | None = None
    ) -> Question:
        """The question as it is asked now; UserError as for `ask`."""
        check_text(text)
        if self._watch.seen is None and self.qa.bank.catalog.next(self.info.video_id)[0] == 0:
            self.check()
            raise UserError(f"{self.info.path} has given no frame yet; ask again in a moment")
        now = self.now
        if until is not None and since is not None and until < since:
            raise UserError(
                f"The time from {since:g} s to {until:g} s ends before it begins; give it the other way round."
            )
        if since is not None and since > now:
            raise UserError(
                f"{since:g} s has not come yet: it is {now:g} s now; ask about an earlier time."
            )
        return Question(
            text,
            self.info.video_id,
            now if until is None else min(until, now),
            since=float("-inf") if since is None else since,
        )

    def at(self, wall: float) -> float:
        """Seconds of video time of a moment in Unix seconds. UserError when the bank does not know when the video was."""
        found = self.qa.bank.catalog.video_time(self.info.video_id, wall)
        if found is None:
            raise UserError(
                f"Nobody knows when {self.info.path} was; ask in seconds of video time, or encode it with began="
            )
        return found

    @property
    def now(self) -> float:
        """Seconds of video time: the moment at which a question asked now is asked."""
        if self._thread.is_alive():
            return self.source.now
        return (
            self._watch.seen
            if self._watch.seen is not None
            else self.qa.bank.catalog.next(self.info.video_id)[1]
        )

    def listen(self, told: Told) -> None:
        """Be told whenever there are more frames to ask about, in the writer's thread: return at once. Frames of an open
        segment come again with it."""
        self._heard.append(told)

    def figures(self) -> Figures:
        watch, bank = self._watch, self.qa.bank
        state = "running" if watch.seen is not None else "waiting"
        if self._thread.ident is not None and not self._thread.is_alive():
            state = "failed" if self._error else "stopped" if self._stopped else "ended"
        return Figures(
            state=state,
            now=self.now,
            seen_until=watch.seen or 0.0,
            sealed_until=self._sealed,
            frames=int(getattr(self.source, "frames_seen", 0)),
            dropped=int(getattr(self.source, "dropped", 0)),
            reconnects=int(getattr(self.source, "reconnects", 0)),
            bytes_written=self._nbytes,
            in_memory=bank.in_memory(),
            longest_chunk=watch.longest_chunk,
            longest_wait=watch.longest_wait,
            answering=self._answering,
            error=str(self._error or ""),
        )

    def check(self) -> None:
        """Raise what has ended the session, if something has."""
        if self._error is not None:
            raise self._error

    def join(self, timeout: float | None = None) -> Ingested | None:
        """Wait until the source has ended; what came of it, or None when it was stopped or time is up. Raises what ended it."""
        self._thread.join(timeout)
        self.check()
        return self._done

    def stop(self) -> None:
        """End: what has come is on the disk when this returns. Questions under way go on. Raises what went wrong."""
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
            if error is None:  # or what happened in the block would be hidden
                raise

    # ---- inside

    def _answer(self, question: Question, emit: Any, cancelled: threading.Event) -> Answer:
        with self._lock:
            self._answering += 1
        try:
            with self.turns.take(cancelled):
                return self.qa.ask(question, emit, cancelled=cancelled)
        finally:
            with self._lock:
                self._answering -= 1

    def _run(self) -> None:
        try:
            self._done = self.qa.follow(self._watch, self._sealed_to, self._seen_to)
        except SourceStopped:
            pass
        except Exception as error:  # told to whoever asks next, and by `stop`
            self._error = error

    def _sealed_to(self, seconds: float, nbytes: int) -> None:
        self._sealed, self._nbytes = seconds, nbytes

    def _seen_to(self, segment: Segment) -> None:
        self._watch.shown(float(segment.times[-1]))
        for told in self._heard:
            told(segment)


class _Watch:
    """The source, with a note of when each frame came and how long it took until questions could see it."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.repeats = source.repeats
        self.seen: float | None = None  # time of the newest frame that a question can see
        self.longest_wait = self.longest_chunk = 0.0
        # time of a frame -> monotonic second at which it was taken
        self._taken_at: dict[float, float] = {}
        self._busy_since = 0.0

    @property
    def info(self) -> VideoInfo:
        return self.source.info

    @property
    def is_idle(self) -> bool:
        return self.source.is_idle

    @property
    def now(self) -> float:
        return self.source.now

    def begins(self, start: float) -> float | None:
        return self.source.begins(start)

    def close(self) -> None:
        self.source.close()

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        for frames in self.source.frames(start):
            now = self._busy_since = time.monotonic()
            for at in frames.times.tolist():
                self._taken_at[at] = now
            yield frames
            self.longest_chunk = max(self.longest_chunk, time.monotonic() - self._busy_since)

    def shown(self, until: float) -> None:
        """Questions can see the frames up to this one."""
        now = time.monotonic()
        for at in [at for at in self._taken_at if at <= until]:
            self.longest_wait = max(self.longest_wait, now - self._taken_at.pop(at))
        self.seen = until if self.seen is None else max(self.seen, until)


def check_text(text: str) -> None:
    """UserError on what is no question."""
    check_question(text, 'ask something, such as "What is the code on the card?"')
    if len(text) > QUESTION_LETTERS:
        raise UserError(
            f"The question has {len(text)} letters; ask in {QUESTION_LETTERS} or fewer."
        )
