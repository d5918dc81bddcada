"""Both paths on one page: `ingest` encodes a video into the bank, `ask` answers from it.

The two meet only in the bank: `ask` never sees a frame source and `ingest` never sees a question. Knows no command line.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from encoders.encoder import Encoder
from encoders.errors import UserError
from encoders.schema import Compressor, FrameEmbedder, FrameSource, Segment, Segmenter, VideoInfo
from memory.bank import MemoryBank
from memory.schema import Question
from pipeline.clock import Clock
from pipeline.evidence import cite, is_shown, spans
from pipeline.reader import Emit, KVReader, TokenReader
from pipeline.schema import Answer, Ingested
from pipeline.writer import BackgroundWriter

Progress = Callable[[float, int], None]  # video seconds encoded so far, bytes written so far


@dataclass(frozen=True)
class VideoQA:
    """The parts of one run, built once by `pipeline/build.py`."""

    bank: MemoryBank
    backbone: Any
    clip: FrameEmbedder
    segmenter: Segmenter
    compressor: Compressor
    new_prefill: Callable[[], Any]  # a fresh window for each video
    reader: TokenReader | KVReader
    interval: float  # seconds between sampled frames
    read_tokens: int  # visual tokens that an answer may read, whatever the video's length
    cite_share: float

    def ingest(self, source: FrameSource, progress: Progress = lambda seconds, nbytes: None) -> Ingested:
        """Encode what the bank does not hold yet of this video; resumes after an interruption with the same bytes.

        UserError when the source yields no frame.
        """
        clock, video_id = Clock(), source.info.video_id
        known = self.bank.video(video_id)
        if known is not None and known.finished:
            return self._report(video_id, clock, 0, 0, _warning(known.info))
        number, _ = self.bank.next(video_id)
        prefill = self.new_prefill()
        if number:
            prefill.restore(run.kv for run in self.bank.tail(video_id, prefill.window_frames) if run.kv is not None)
        self.bank.record_video(source.info, self.interval, finished=False)
        encoder = Encoder(self.backbone, self.compressor, prefill, self.clip, self.interval)
        first, nbytes = number, 0
        begin = resume = 0.0
        if number:
            times = [float(t) for row in self.bank.segments(video_id) for t in row.times]
            # not the end of the last segment: where frames are unevenly spaced the next one may come before it
            begin = resume = math.nextafter(times[-1], math.inf)
            if self.segmenter.look_back:
                before = times[: -self.segmenter.look_back]
                # right behind a frame, so that temporal patches come out as in the first pass
                begin = math.nextafter(before[-1], math.inf) if before else 0.0
        batches = self.segmenter.segments(_timed(source.frames(begin), clock), after=resume)
        with BackgroundWriter(self.bank.write) as put:
            for frames in batches:
                segment = encoder.encode(frames, number, clock)
                with clock("write"):
                    put(segment)
                nbytes += _nbytes(segment)
                number += 1
                progress(segment.end, nbytes)
        self.bank.record_video(source.info, self.interval, finished=True)
        return self._report(video_id, clock, number - first, nbytes, _warning(source.info))

    def ask(self, question: Question, emit: Emit = lambda text: None) -> Answer:
        """Answer from the bank alone. UserError on an empty question, a video that the bank does not hold, or a moment
        before its first frame."""
        if not question.text.strip():
            raise UserError('The question is empty; give one, such as question="What is the code on the card?".')
        known = self.bank.video(question.video_id)
        if known is None:
            raise UserError(f"The bank holds no video {question.video_id}; encode it first with `reelbank ingest`.")
        clock = Clock()
        evidence = self.bank.recall(question, read_tokens=self.read_tokens, kv=self.reader.needs_kv)
        if not evidence.frame_count:
            raise UserError(f"asked_at={question.asked_at:g} comes before the first frame in the bank; ask at a later second.")
        reading = self.reader.read(evidence, clock, emit)
        shown = is_shown(reading.text)
        cited = cite(evidence, reading.weights, self.cite_share) if shown else ()
        return Answer(
            question=question.text,
            text=reading.text,
            shown=shown,
            spans=spans(cited, evidence.interval),
            cited=cited,
            video_id=question.video_id,
            asked_at=None if question.asked_at == float("inf") else question.asked_at,
            frames_read=evidence.frame_count,
            visual_tokens=sum(len(run.tokens.tokens) for run in evidence.runs),
            seconds=evidence.seconds | clock.seconds | {"total": clock.total()},
            warning=_warning(known.info),
        )

    def _report(self, video_id: str, clock: Clock, new: int, nbytes: int, warning: str) -> Ingested:
        rows = self.bank.segments(video_id)
        return Ingested(
            video_id=video_id,
            video_seconds=rows[-1].end if rows else 0.0,
            segments=len(rows),
            frames=sum(row.frames for row in rows),
            new_segments=new,
            nbytes=nbytes,
            seconds=clock.seconds | {"total": clock.total()},
            warning=warning,
        )


def _warning(info: VideoInfo) -> str:
    """What a user must know about the file; a second decoder alone is no reason to worry."""
    if info.broke_at is None:
        return info.note if "could be decoded" in info.note else ""
    return f"The file breaks at {info.broke_at:.1f} s; only what comes before is used."


def _timed(batches: Any, clock: Clock) -> Any:
    """The same batches, with the time that decoding them took."""
    iterator = iter(batches)
    while True:
        with clock("decode"):
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def _nbytes(segment: Segment) -> int:
    parts = [segment.tokens.tokens, segment.tokens.pos, segment.clip]
    if segment.kv is not None and segment.key_means is not None:
        parts += [segment.kv.keys, segment.kv.values, segment.key_means]
    return sum(part.nbytes for part in parts)
