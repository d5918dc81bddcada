"""Both paths over one bank: `ingest` encodes a video into it, `ask` answers from it.

The paths meet only in the bank: the answerer never sees a frame source, the ingester never sees a
question.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from encoders.errors import UserError
from encoders.models.backbone import VideoModel
from encoders.schema import FrameSource, LiveSource, Segment
from memory.bank import MemoryBank
from memory.schema import Question
from pipeline.answer.answerer import Answerer, Read, ReadAll
from pipeline.answer.stream import AnswerStream
from pipeline.ingest.ingester import Ingester, Progress
from pipeline.runtime.cancel import Emit
from pipeline.schema import Answer, IngestReport


@dataclass(frozen=True)
class VideoQA:
    """The parts of one run, built once by `pipeline/build.py`. The methods are those of the two
    parts."""

    bank: MemoryBank
    ingester: Ingester
    answerer: Answerer

    @property
    def backbone(self) -> VideoModel:
        """The model of the run."""
        return self.ingester.backbone

    def ingest(
        self,
        source: FrameSource,
        progress: Progress = lambda seconds, nbytes: None,
        until: int | None = None,
    ) -> IngestReport:
        return self.ingester.ingest(source, progress, until)

    def follow(
        self,
        source: LiveSource,
        progress: Progress = lambda seconds, nbytes: None,
        on_shown: Callable[[Segment], None] = lambda segment: None,
    ) -> IngestReport:
        return self.ingester.follow(source, progress, on_shown)

    def stream(self, question: Question) -> AnswerStream:
        return self.answerer.stream(question)

    def ask(
        self,
        question: Question,
        emit: Emit = lambda text: None,
        read: Read | None = None,
        *,
        cancelled: threading.Event | None = None,
    ) -> Answer:
        return self.answerer.ask(question, emit, read, cancelled=cancelled)

    def ask_all(
        self, questions: Sequence[Question], read: ReadAll | None = None
    ) -> list[Answer | UserError]:
        return self.answerer.ask_all(questions, read)
