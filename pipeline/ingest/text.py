"""The words of a video into the bank, beside the encoding of its pictures or alone. Knows extractors by their role.

An extractor goes on where it stopped. When its settings are not those of what is there (or a subtitle file was edited), what
it found before is dropped and found again.
"""

import re
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import DictConfig

from encoders.errors import UserError
from encoders.schema import VideoInfo
from encoders.text.lines import SentenceEncoder, TextBlock, TextExtractor, VideoFile
from memory.bank import MemoryBank
from pipeline.config.parts import check, part

# of a video's id (encoders/sources/file.py)
_PART = re.compile(r"[0-9a-f]+(?:-from-(.+?))?(?:-to-(.+))?")
_PATIENCE_S = 5.0
# after which the lines so far get their vectors: asking a model for few lines at a time is slow
_STRETCHES = 16


def extractors(config: DictConfig) -> tuple[TextExtractor, ...]:
    """Those of text=, in their order. One that cannot work here is named once, on stderr, and left out: the rest goes on."""
    check(config, "text")
    found: list[TextExtractor] = []
    for name in config.text:
        one: Any = part(config.text, name)
        why = one.missing()
        if why:
            print(f"reelbank: warning: text={name} is left out: {why}", file=sys.stderr)
        else:
            found.append(one)
    return tuple(found)


def video_file(info: VideoInfo) -> VideoFile:
    """Where the words of a video come from: its file, and the part of it that the bank holds."""
    match = _PART.fullmatch(info.video_id)
    start, end = match.groups() if match else (None, None)
    return VideoFile(
        info.video_id,
        Path(info.path),
        float(start or 0),
        None if end is None else float(end),
        info.duration,
    )


def extract(
    bank: MemoryBank,
    extractor: TextExtractor,
    video: VideoFile,
    stopped: Callable[[], bool] = lambda: False,
    encoder: SentenceEncoder | None = None,
) -> None:
    """Put what an extractor has not found yet of a recorded video into the bank. UserError when the video is gone.
    encoder: makes vectors of the lines while they come."""
    run = next(
        (run for run in bank.text.runs(video.video_id) if run.extractor == extractor.name), None
    )
    if not video.path.is_file():
        raise UserError(
            f"{video.path or 'the video'} is not there, so text={extractor.name} cannot be read from it"
        )
    made = extractor.made_with(video)
    if run is not None and run.made_with != made:
        bank.text.drop(video.video_id, extractor.name)
    for gap in bank.text.missing(video.video_id, extractor.name):
        number = gap.first
        for stretch in extractor.stretches(video, gap.start):
            if stopped():
                return
            bank.text.write(TextBlock(video.video_id, extractor.name, made, number, stretch))
            number += 1
            if encoder is not None and number % _STRETCHES == 0:
                add_vectors(bank, encoder, video.video_id, stopped)
            if gap.stop is not None and number >= gap.stop:
                break


def sentence_encoder(config: DictConfig) -> SentenceEncoder | None:
    """That of dense=; None where lines are searched by their words alone. UserError when it cannot work here."""
    check(config, "dense")
    return part(config, "dense") if config.dense else None


def add_vectors(
    bank: MemoryBank,
    encoder: SentenceEncoder,
    video_id: str,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Vectors for all lines of a video that have none, a stretch at a time. UserError where the bank's are another model's."""
    for run, row in list(bank.text.missing_vectors(video_id)):
        if stopped():
            return
        texts = [line.text for line in bank.text.lines(run, row)]
        bank.text.write_vectors(run, row, encoder.embed(texts).numpy(), encoder.made_with)


def notes(bank: MemoryBank, video_id: str, names: Sequence[str]) -> str:
    """What the user must know about the words of a video."""
    said = dict.fromkeys(
        run.note for run in bank.text.runs(video_id) if run.note and run.extractor in names
    )
    return "; ".join(said).capitalize() + "." if said else ""


class Beside(AbstractContextManager["Beside"]):
    """`with Beside(bank, extractors, video): ...` extracts in a thread while the block encodes, and waits at its end.
    Extractors with heavy work have processes of their own. What an extractor raises is raised at the end of the block."""

    def __init__(
        self,
        bank: MemoryBank,
        found: Sequence[TextExtractor],
        video: VideoFile,
        encoder: SentenceEncoder | None = None,
    ) -> None:
        """encoder: makes vectors of all lines of the video."""
        self._bank, self._extractors, self._video, self._encoder = bank, found, video, encoder
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="text", daemon=True)

    def __enter__(self) -> "Beside":
        if self._works:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._works:
            return
        if error is not None:
            self._stop.set()  # what is found stays, and the same command goes on from there
            self._thread.join(_PATIENCE_S)
            return
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def _works(self) -> bool:
        return bool(self._extractors) or self._encoder is not None

    def _run(self) -> None:
        try:
            try:
                for extractor in self._extractors:
                    extract(self._bank, extractor, self._video, self._stop.is_set, self._encoder)
            finally:
                if self._encoder is not None:  # also where a file is gone: its lines are there
                    add_vectors(self._bank, self._encoder, self._video.video_id, self._stop.is_set)
        except BaseException as error:  # handed to the caller's thread, which raises it
            self._error = error
