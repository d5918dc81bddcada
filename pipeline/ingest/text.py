"""The words of a video into the bank, while its frames are encoded or alone. Knows extractors by
their role.

An extractor continues where it stopped. When its settings differ from those that made the stored
lines, or a subtitle file was edited, the stored lines are dropped and extracted again.

Unasked (text=auto), extractors work only while a video is encoded, only where there is something
for them, and speech only where there are no subtitles. A failure of theirs is a note.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from encoders.errors import UserError
from encoders.schema import VideoInfo, VideoPart
from encoders.sources.identity import why_not_file
from encoders.text.lines import SentenceEncoder, TextBlock, TextExtractor, VideoFile
from memory.bank import MemoryBank
from pipeline.config.units import format_time

_JOIN_TIMEOUT_S = 5.0
_TELL_S = 10.0  # between two messages while only words are missing
# a sentence encoder is slow on few lines at a time, so it waits for the lines of so many spans
_SPANS = 16
# with text=auto, speech is left out where there are subtitles
_SUBTITLES, _SPEECH = "subtitles", "asr"

Stopped = Callable[[], bool]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextExtraction:
    """What finds the words of a video: extractors, and a sentence encoder for the lines."""

    bank: MemoryBank
    extractors: tuple[TextExtractor, ...] = ()  # read the video itself
    # read the encoded video, so they run when it is complete (pipeline/ingest/captions.py)
    captioners: tuple[TextExtractor, ...] = ()
    # embeds lines; None: lines are searched by their words alone
    sentence_encoder: SentenceEncoder | None = None
    # True: `extractors` are those of text=auto
    is_unasked: bool = False
    # of text=auto, with what is not installed
    absent: tuple[tuple[TextExtractor, str], ...] = ()

    def of_encoded(self) -> "TextExtraction":
        """What is extracted from a video that is encoded already: nothing unasked."""
        return replace(self, extractors=(), absent=()) if self.is_unasked else self

    def extracting(self, info: VideoInfo) -> "BackgroundTextExtraction":
        """`with text.extracting(info): ...` extracts the words of the video in a thread while the
        block runs."""
        return BackgroundTextExtraction(self, video_file(info))

    def describe(self, info: VideoInfo) -> None:
        """Run the captioners on an encoded video, and embed their lines."""
        video = video_file(info)
        for captioner in self.captioners:
            self.extract(captioner, video)
        if self.captioners:
            self.embed_lines(info.video_id)

    def extract(
        self,
        extractor: TextExtractor,
        video: VideoFile,
        stopped: Stopped = lambda: False,
        show: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Put the lines of a recorded video that an extractor has not found yet into the bank, and
        embed them on the way.
        stopped: checked after each span. show: gets the second of video time up to which lines are
        in the bank.
        Raises UserError when the file of the video does not exist."""
        bank, made_with = self.bank, self._drop_outdated(extractor, video)
        for gap in bank.text.missing(video.video_id, extractor.name):
            number = gap.first
            for span in extractor.spans(video, gap.start):
                if stopped():
                    return
                bank.text.write(TextBlock(video.video_id, extractor.name, made_with, number, span))
                number += 1
                show(span.end)
                if number % _SPANS == 0:
                    self.embed_lines(video.video_id, stopped)
                if gap.stop is not None and number >= gap.stop:
                    break

    def embed_lines(self, video_id: str, stopped: Stopped = lambda: False) -> None:
        """Vectors for all lines of a video that have none, where there is a sentence encoder.
        Raises UserError when the bank's vectors are another model's."""
        if self.sentence_encoder is not None:
            embed_lines(self.bank, self.sentence_encoder, video_id, stopped)

    def notes(self, video_id: str) -> str:
        """What the user must know about the words of a video; "" where there is nothing."""
        notes = dict.fromkeys(
            run.note
            for run in self.bank.text.runs(video_id)
            if run.note and run.extractor in self._names
        )
        # no capital: a note may begin with the name of a file
        return "; ".join(notes) + "." if notes else ""

    def line_counts(self, video_id: str) -> dict[str, int]:
        """Extractor -> lines in the bank."""
        return {
            run.extractor: run.lines
            for run in self.bank.text.runs(video_id)
            if run.extractor in self._names
        }

    @property
    def _names(self) -> set[str]:
        return {extractor.name for extractor in (*self.extractors, *self.captioners)}

    def _drop_outdated(self, extractor: TextExtractor, video: VideoFile) -> str:
        """Drop the stored lines of this extractor if they were made with other settings; -> its
        settings."""
        runs = self.bank.text.runs(video.video_id)
        run = next((run for run in runs if run.extractor == extractor.name), None)
        obstacle = why_not_file(video.video_id, video.path)
        if obstacle:
            raise UserError(f"{obstacle}, so text={extractor.name} cannot be read from it")
        made_with = extractor.made_with(video)
        if run is not None and run.made_with != made_with:
            self.bank.text.drop(video.video_id, extractor.name)
        return made_with


class BackgroundTextExtraction(AbstractContextManager["BackgroundTextExtraction"]):
    """Extracts the words of one video in a thread while a `with` block encodes it, and waits at the
    end of the block. Extractors with heavy work have processes of their own. An error of an
    extractor is raised at the end of the block; with text=auto it is among the notes."""

    def __init__(self, text: TextExtraction, video: VideoFile) -> None:
        self.seconds: dict[str, float] = {}  # extractor -> wall time
        self.notes: list[str] = []  # what the user must know, beside the notes of the lines
        self._text, self._video = text, video
        self._at = ("", 0.0)  # the extractor that works, and its second of video time
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="text", daemon=True)

    def __enter__(self) -> "BackgroundTextExtraction":
        if self._has_work:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._has_work:
            return
        if error is not None:
            self._stop.set()  # written lines stay, and the same command continues behind them
            self._thread.join(_JOIN_TIMEOUT_S)
            return
        while self._thread.is_alive():
            self._thread.join(_TELL_S)
            if self._thread.is_alive() and self._at[0]:
                name, seconds = self._at
                end = format_time(self._video.end or self._video.duration)
                log.warning("reelbank: words by %s: %s / %s", name, format_time(seconds), end)
        if self._text.is_unasked and self.seconds.keys() - {_SUBTITLES}:  # which cost nothing
            log.warning("reelbank: %s", self._cost())
        if self._error is not None:
            raise self._error

    def _cost(self) -> str:
        """Such as "words: 24 lines by asr from 03:37 in 16 s; text=none turns this off"."""
        lines, start = self._text.line_counts(self._video.video_id), self._video.begin
        length = format_time((self._video.end or self._video.duration) - start)
        parts = (
            f"{lines.get(name, 0)} lines by {name} from {length} in {seconds:.0f} s"
            for name, seconds in self.seconds.items()
        )
        return f"words: {', '.join(parts)}; text=none turns this off"

    @property
    def _has_work(self) -> bool:
        text = self._text
        return bool(text.extractors or text.absent) or text.sentence_encoder is not None

    def _run(self) -> None:
        try:
            try:
                for extractor in self._text.extractors:
                    if not self._text.is_unasked:
                        self._extract(extractor)
                    else:
                        self._extract_unasked(extractor)
                for extractor, why in self._text.absent:
                    # said with the first film of a bank, where it would find something
                    if len(self._text.bank.catalog.videos()) <= 1 and self._has_words(extractor):
                        self.notes.append(f"text={extractor.name} is left out: {why}")
            finally:  # also where a file is gone: the bank has its earlier lines
                self._text.embed_lines(self._video.video_id, self._stop.is_set)
        except BaseException as error:  # handed to the caller's thread, which raises it
            self._error = error

    def _extract(self, extractor: TextExtractor) -> None:
        def show(seconds: float) -> None:
            self._at = (extractor.name, seconds)

        begun = time.perf_counter()
        self._text.extract(extractor, self._video, self._stop.is_set, show)
        self.seconds[extractor.name] = time.perf_counter() - begun

    def _extract_unasked(self, extractor: TextExtractor) -> None:
        """A video is encoded without the words of an extractor that fails."""
        try:
            if self._has_words(extractor):
                self._extract(extractor)
        except (UserError, OSError, BrokenExecutor) as error:
            reason = str(error).rstrip(".")
            self.notes.append(f"words by {extractor.name} were left out: {reason}")

    def _has_words(self, extractor: TextExtractor) -> bool:
        """True if an extractor that nobody asked for may find something new."""
        if why_not_file(self._video.video_id, self._video.path):
            return False  # such as a stream
        lines = self._text.line_counts(self._video.video_id)
        if extractor.name == _SPEECH and lines.get(_SUBTITLES):
            return False
        try:
            return extractor.applies_to(self._video)
        except OSError:  # also of FFmpeg
            return False


def video_file(info: VideoInfo) -> VideoFile:
    """The file of a video, and the part of it that the bank holds."""
    part = VideoPart.parse(info.video_id)
    return VideoFile(info.video_id, Path(info.path), part.start, part.end, info.duration)


def embed_lines(
    bank: MemoryBank,
    sentence_encoder: SentenceEncoder,
    video_id: str,
    stopped: Stopped = lambda: False,
) -> None:
    """Vectors for all lines of a video that have none, a span at a time."""
    for run, row in list(bank.text.missing_vectors(video_id)):
        if stopped():
            return
        texts = [line.text for line in bank.text.lines(run, row)]
        vectors = sentence_encoder.embed(texts).numpy()
        bank.text.write_vectors(run, row, vectors, sentence_encoder.made_with)
