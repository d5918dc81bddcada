"""Both paths over one bank: `ingest` encodes a video into it, `ask` answers from it.

The paths meet only in the bank: the answerer never sees a frame source, the ingester never sees a
question. One strategy decodes stretches of a film again (pipeline/answer/film_encoder.py); it
writes nothing.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import UserError
from encoders.models.backbone import VideoModel
from encoders.models.clip import NoFrameEmbedder
from encoders.models.generation import Generation
from encoders.schema import Frames, FrameSource, LiveSource, Segment
from memory.bank import MemoryBank
from memory.retrieval.common import hits
from memory.schema import GREEDY, Evidence, Question, Run
from pipeline.answer.answerer import Answerer, Read, ReadAll
from pipeline.answer.schema import local
from pipeline.answer.stream import AnswerStream
from pipeline.ingest.ingester import Ingester, Progress
from pipeline.runtime.cancel import Emit
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, IngestReport, check_question


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

    def ask_frames(
        self,
        question: str,
        frames: Frames,
        emit: Emit = lambda text: None,
        *,
        cancelled: threading.Event | None = None,
        context: str = "",
        generation: Generation = GREEDY,
    ) -> Answer:
        """Answer about frames that are in no bank; nothing of them stays. They have the size of the
        model. context, generation: as of Question. UserError on an empty question, or where the
        model is not in this process.
        """
        check_question(question)
        reader, ingester = local(self.answerer.reader, "a question about pictures"), self.ingester
        timer = StageTimer()
        encoder = Encoder(
            self.backbone, ingester.compressor, ingester.new_prefill(), NoFrameEmbedder(), 1.0
        )
        segment = encoder.encode(_whole_patches(frames, self.backbone.temporal_patch), 0, timer)
        evidence = Evidence(
            Question(question, frames.video_id, context=context, generation=generation),
            (Run(frames.video_id, 0, 0, segment.tokens, segment.kv),),
            hits([], []),
            recent=0,
            interval=1.0,
        )
        reading = reader.read(evidence, timer, emit, cancelled)
        seconds = timer.seconds | {"total": timer.total()}
        return self.answerer.answer(evidence, reading, seconds)

    def ask_all(
        self, questions: Sequence[Question], read: ReadAll | None = None
    ) -> list[Answer | UserError]:
        return self.answerer.ask_all(questions, read)


def _whole_patches(frames: Frames, size: int) -> Frames:
    """Every picture as many times as the vision tower merges: a patch of its own."""
    if size == 1:
        return frames
    later = np.tile(np.arange(size) * 1e-3, len(frames))
    return Frames(
        frames.video_id, frames.pixels.repeat(size, axis=0), frames.times.repeat(size) + later
    )
