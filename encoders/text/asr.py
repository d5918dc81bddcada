"""Speech -> lines: faster-whisper with local weights, or else pocketsphinx, whose wheel contains an
English model.

Downloads nothing. Text spans of SPAN_S seconds are independent, so an interrupted run continues
with the same lines. Each span ends at the quietest moment of its last PAUSE_S seconds; speech
without a pause for that long may lose a word there. A line is known from its end on.
"""

import importlib.metadata
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from encoders import extras
from encoders.errors import UserError
from encoders.sources.container import fingerprint, inspect, time_rules
from encoders.text import asr_worker, sound
from encoders.text.lines import TextLine, TextSpan, VideoFile, split_line

SPAN_S = 120.0
PAUSE_S = 12.0  # people pause for breath several times within it


@dataclass(frozen=True)
class Asr:
    """The `asr` extractor.

    path: folder of a faster-whisper (CTranslate2) model; "" = pocketsphinx, which is rough and
    English only.
    workers: recognition processes; 0 = this process.
    """

    path: str = ""
    workers: int = 1
    name = "asr"

    def __post_init__(self) -> None:
        if self.path and not (Path(self.path) / "model.bin").is_file():
            raise UserError(
                f"text.asr.path={self.path} holds no faster-whisper model (no model.bin); give the "
                "folder of one"
            )
        if self.workers < 0:
            raise UserError(f"text.asr.workers={self.workers} is too small; use 0 or more")

    def missing(self) -> str:
        """The missing package, with the remedy; "" if the recognizer is installed."""
        package = "faster_whisper" if self.path else "pocketsphinx"
        return extras.missing_line("asr", package)

    def made_with(self, video: VideoFile) -> str:
        """Name and version, with the fingerprint of the weights if there are any, and the rules
        of time.
        """
        rules = f"cut at pauses{time_rules(video.path)}"
        if self.path:
            weights = fingerprint(Path(self.path) / "model.bin")
            version = importlib.metadata.version("faster-whisper")
            return f"Asr(faster-whisper {version}, {weights}, {rules})"
        return f"Asr(pocketsphinx {importlib.metadata.version('pocketsphinx')}, rough, {rules})"

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """About one for every two minutes."""
        end = video.end if video.end is not None else max(video.duration, after)
        if not sound.has_sound(video.path):
            yield TextSpan(after, end, (), True, f"{video.path.name} has no sound track")
            return
        facts = inspect(video.path)
        has_sound = False
        listen = (
            partial(asr_worker.by_whisper, path=self.path) if self.path else asr_worker.by_sphinx
        )
        with ProcessPoolExecutor(
            max(self.workers, 1), mp_context=multiprocessing.get_context("spawn")
        ) as pool:
            at, is_last = after, False
            while not is_last:
                begin = max(at, video.begin)
                stop = min(((at + PAUSE_S) // SPAN_S + 1) * SPAN_S, end)
                is_last = stop >= end
                samples = sound.interval(facts, begin, stop)
                if not is_last and stop - PAUSE_S > begin:
                    stop = (
                        stop
                        - PAUSE_S
                        + sound.pause(samples[round((stop - PAUSE_S - begin) * sound.RATE) :])
                    )
                    samples = samples[: round((stop - begin) * sound.RATE)]
                loud = sound.loudness(samples) > sound.SILENT
                has_sound = has_sound or loud
                pieces: list[asr_worker.SpeechPiece] = []
                if loud:
                    pieces = (
                        pool.submit(listen, samples).result() if self.workers else listen(samples)
                    )
                lines = tuple(_lines(video.video_id, pieces, begin, stop))
                note = self._note(video, is_last and after == 0, has_sound)
                yield TextSpan(at, stop, lines, is_last, note)
                at = stop

    def _note(self, video: VideoFile, whole: bool, has_sound: bool) -> str:
        if whole and not has_sound:
            return f"the sound of {video.path.name} is silent"
        if whole and not self.path:
            return (
                "speech was recognised by pocketsphinx, which is rough; "
                "text.asr.path= names a better model"
            )
        return ""


def _lines(
    video_id: str, pieces: Sequence[asr_worker.SpeechPiece], begin: float, stop: float
) -> Iterator[TextLine]:
    """Lines of the speech from `begin` to `stop`, in seconds of video time."""
    for a, b, text, confidence in pieces:
        start, end = begin + a, min(begin + b, stop)
        yield from split_line(TextLine(video_id, start, end, "speech", text, end, confidence))
