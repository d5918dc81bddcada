"""The passes of the model for one answer, each with its tokens and seconds. Knows readers by their
role; no strategy."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from encoders.errors import UserError
from encoders.models.positions import Cursor
from memory.schema import GREEDY, Evidence, VideoSpan
from pipeline.answer.schema import EvidenceReader, GroupReader, is_local
from pipeline.answer.text_evidence import prompt
from pipeline.runtime.cancel import Emit, raise_if_cancelled
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, Basis, ModelCall, Reading, Trace, total_usage

ROOM = 512  # tokens of a window that are left for preamble, time tags, question and answer


def window_tokens(reader: EvidenceReader, *, of_frames: bool = False) -> int | None:
    """Tokens of text, or of frames, that fit one context beside the question, as the reader places
    them (position=); None: nobody here knows a limit.
    """
    if not is_local(reader):
        return None
    question = Cursor(ROOM, ROOM - 1, text=ROOM)
    left = reader.language_model.positions_left(question, of_frames=of_frames)
    return None if left is None else max(left, 1)


def visual_tokens(evidence: Evidence) -> int:
    """Visual tokens of one context."""
    return sum(len(run.tokens.tokens) for run in evidence.runs)


def call_of(
    step: str,
    group: Sequence[Evidence],
    readings: Sequence[Reading],
    seconds: float,
    reader: EvidenceReader,
) -> ModelCall:
    """The record of a pass. readings: its answers. seconds: of the whole pass."""
    tokens = [visual_tokens(evidence) for evidence in group]
    prompts = (prompt(one.lines, one.question.prompt, one.titles) for one in group)
    return ModelCall(
        step=step,
        contexts=len(group),
        frames=sum(evidence.frame_count for evidence in group),
        visual_tokens=sum(tokens),
        longest=max(tokens),
        text_tokens=sum(map(reader.count_tokens, prompts)),
        answer_tokens=sum(
            reader.count_tokens(one.text) if one.answer_tokens is None else one.answer_tokens
            for one in readings
        ),
        seconds=seconds,
        usage=total_usage(reading.usage for reading in readings),
    )


def trace_of(
    strategy: str,
    why: str,
    answer: Answer,
    calls: Sequence[ModelCall] = (),
    *,
    reused: int = 0,
    notes: Sequence[str] = (),
) -> Trace:
    """The trace of an answer each of whose sentences rests on all that the answer cites."""
    return Trace(strategy, why, tuple(calls), basis_of(answer), reused, tuple(notes))


def basis_of(answer: Answer) -> tuple[Basis, ...]:
    """Each sentence of an answer, resting on all that the answer cites."""
    every = tuple(VideoSpan(one.video_id, *span) for one in answer.videos for span in one.spans)
    return tuple(Basis(sentence, answer.spans, every) for sentence in sentences(answer.text))


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


class CallLog:
    """Reads for one question, and remembers each pass. A cancelled question ends between two
    passes, and inside a pass where the reader can.

    How the answer is to be written (`Question.generation`) is for the pass that writes it. The
    others are greedy, and as long as they need."""

    def __init__(
        self,
        reader: EvidenceReader,
        group_reader: GroupReader,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.calls: list[ModelCall] = []
        self._reader, self._group_reader, self._cancelled = reader, group_reader, cancelled

    @property
    def window(self) -> int | None:
        """Tokens that fit one context beside the question; None: nobody here knows a limit."""
        return window_tokens(self._reader)

    def read(
        self,
        step: str,
        evidence: Evidence,
        timer: StageTimer,
        emit: Emit = lambda text: None,
        *,
        writes: bool = False,
    ) -> Reading:
        """One context. writes: whether the text is that of the answer. Raises Cancelled."""
        raise_if_cancelled(self._cancelled)
        evidence = evidence if writes else _plain(evidence)
        began = time.perf_counter()
        reading = self._reader.read(evidence, timer, emit, self._cancelled)
        self.add(step, [evidence], [reading], time.perf_counter() - began)
        return reading

    def read_with(
        self,
        read: Callable[[Evidence, StageTimer], Reading] | None,
        step: str,
        evidence: Evidence,
        timer: StageTimer,
        emit: Emit = lambda text: None,
    ) -> Reading:
        """The context of the answer with another reader, such as one that chooses among options;
        None: with the own one."""
        if read is None:
            return self.read(step, evidence, timer, emit, writes=True)
        raise_if_cancelled(self._cancelled)
        began = time.perf_counter()
        reading = read(evidence, timer)
        self.add(step, [evidence], [reading], time.perf_counter() - began)
        return reading

    def read_all(self, step: str, group: Sequence[Evidence], timer: StageTimer) -> list[Reading]:
        """Several contexts of one video in one pass. Raises Cancelled, and the first error."""
        raise_if_cancelled(self._cancelled)
        began = time.perf_counter()
        readings: list[Reading] = []
        for one in self._group_reader.read([_plain(each) for each in group], timer):
            if isinstance(one, UserError):
                raise one
            readings.append(one)
        self.add(step, group, readings, time.perf_counter() - began)
        return readings

    def add(
        self, step: str, group: Sequence[Evidence], readings: Sequence[Reading], seconds: float
    ) -> None:
        """Record a pass that was made elsewhere."""
        self.calls.append(call_of(step, group, readings, seconds, self._reader))


def _plain(evidence: Evidence) -> Evidence:
    """The evidence for a pass that does not write the answer."""
    if evidence.question.generation == GREEDY:
        return evidence
    return replace(evidence, question=replace(evidence.question, generation=GREEDY))
