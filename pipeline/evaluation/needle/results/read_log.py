"""What the model of an answer was given, pass by pass, whatever the strategy.

A `VideoQA` whose readers are watched answers as before, and the log keeps a few numbers of every
context. It keeps no evidence, so the bank may free the frames. Knows readers by their role.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from encoders.encoder import Timer
from encoders.errors import UserError
from memory.schema import Evidence
from pipeline.answer.schema import EvidenceReader, GroupReader
from pipeline.answer.strategies.schema import AnswerStrategy
from pipeline.qa import VideoQA
from pipeline.runtime.cancel import Emit
from pipeline.schema import Reading


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """One context that the model read."""

    times: tuple[float, ...]  # seconds of its frames
    # ordinals of the ranked frames, best first; () where the search was limited to a part
    ranked: tuple[int, ...]
    nbytes: int  # of the keys and values, or of the tokens
    lines: int
    line_spans: tuple[tuple[float, float], ...]  # seconds of the lines
    absence: float | None


@dataclass
class ReadLog:
    """The contexts of one answer."""

    contexts: list[ContextRecord] = field(default_factory=list)

    def watch(self, qa: VideoQA, strategy: AnswerStrategy) -> VideoQA:
        """The same pipeline with this strategy, and with readers that are watched."""
        answerer = qa.answerer
        watched = replace(
            answerer,
            strategy=strategy,
            reader=_WatchedReader(answerer.reader, self),
            batched_reader=_WatchedGroup(answerer.batched_reader, self),
        )
        return replace(qa, answerer=watched)

    def add(self, evidence: Evidence, reading: Reading) -> None:
        """Record a context, and what was read from it."""
        limited = bool(evidence.question.spans)
        self.contexts.append(
            ContextRecord(
                times=tuple(float(t) for run in evidence.runs for t in run.tokens.times.tolist()),
                ranked=() if limited else tuple(evidence.hits.frames.tolist()),
                nbytes=sum(
                    run.kv.nbytes if run.kv else run.tokens.tokens.nbytes for run in evidence.runs
                ),
                lines=len(evidence.lines),
                line_spans=tuple((line.start, line.end) for line in evidence.lines),
                absence=reading.absence,
            )
        )


class _Watched:
    """Everything of a reader but `read`. What a reader in this process has beside its role is
    reached as well, so that it still counts as one."""

    def __init__(self, inner: object, log: ReadLog) -> None:
        self._inner, self._log = inner, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _WatchedReader(_Watched):
    needs_kv: bool
    model_name: str
    settings: str
    reads_ranking: bool

    def __init__(self, inner: EvidenceReader, log: ReadLog) -> None:
        super().__init__(inner, log)
        self._reader = inner
        self.needs_kv, self.model_name = inner.needs_kv, inner.model_name
        self.settings, self.reads_ranking = inner.settings, inner.reads_ranking

    def read(
        self,
        evidence: Evidence,
        timer: Timer,
        emit: Emit = lambda text: None,
        cancelled: threading.Event | None = None,
    ) -> Reading:
        reading = self._reader.read(evidence, timer, emit, cancelled)
        self._log.add(evidence, reading)
        return reading

    def check_form(self, schema: str) -> None:
        self._reader.check_form(schema)

    def count_tokens(self, text: str) -> int:
        return self._reader.count_tokens(text)


class _WatchedGroup(_Watched):
    def __init__(self, inner: GroupReader, log: ReadLog) -> None:
        super().__init__(inner, log)
        self._reader = inner

    def read(self, group: Sequence[Evidence], timer: Timer) -> Sequence[Reading | UserError]:
        readings = self._reader.read(group, timer)
        for evidence, reading in zip(group, readings, strict=True):
            if not isinstance(reading, UserError):
                self._log.add(evidence, reading)
        return readings
