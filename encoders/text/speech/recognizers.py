"""Speech recognition in a process of its own. Imports none of our heavy modules.

Knows samples, [n] int16 at 16 kHz; times are seconds within them.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

_RATE = 16_000  # samples a second
# confidence of every piece from pocketsphinx, which reports none; many of its words are wrong
ROUGH = 0.3
_WINDOW_S = 30  # seconds that Whisper takes at once
_MODELS = 2  # recognizers that a process keeps


class SpeechPiece(NamedTuple):
    """Some words, and what the recognizer knows of its own certainty."""

    start: float  # seconds
    end: float  # seconds
    text: str
    confidence: float  # 0..1
    # of Whisper's window, about 30 s: characters by compressed characters; high where it repeats
    compression: float = 1.0
    log_probability: float = 0.0  # mean of the window's tokens
    no_speech: float = 0.0  # 0..1: the model's guess that the window has no speech
    least_word: float = 1.0  # 0..1: probability of the unlikeliest word


@dataclass(frozen=True, slots=True)
class Whisper:
    """A faster-whisper model: the folder, the type it computes in, and the language of the words.

    language: a code such as en; "" = guessed from the samples.
    """

    path: str
    compute: str
    language: str = ""


class LanguageGuess(NamedTuple):
    """The language of some speech."""

    language: str  # a code such as en
    share: float  # 0..1: how likely the model thinks it is


@lru_cache(maxsize=1)
def _sphinx() -> Any:
    import pocketsphinx

    pocketsphinx.set_loglevel("FATAL")
    return pocketsphinx.Decoder(samprate=_RATE)


@lru_cache(maxsize=_MODELS)
def _whisper(path: str, compute: str) -> Any:
    from faster_whisper import WhisperModel

    # one thread: several gain nothing beside the encoder, and processes run in parallel instead
    return WhisperModel(
        path, device="cpu", compute_type=compute, cpu_threads=1, local_files_only=True
    )


def by_sphinx(samples: np.ndarray) -> list[SpeechPiece]:
    """English, roughly."""
    from pocketsphinx import Endpointer

    gate, pieces = Endpointer(sample_rate=_RATE), []
    size, start, pcm = gate.frame_bytes // 2, 0.0, b""
    for at in range(0, len(samples) - size + 1, size):
        frame = samples[at : at + size].tobytes()
        spoke = gate.in_speech
        more = gate.process(frame)
        if more is not None:
            start = start if spoke else gate.speech_start
            pcm += more
        if spoke and not gate.in_speech:
            pieces += _words(pcm, start, gate.speech_end)
            pcm = b""
    if pcm:
        pieces += _words(pcm, start, len(samples) / _RATE)
    return pieces


def by_whisper(samples: np.ndarray, whisper: Whisper) -> list[SpeechPiece]:
    """The same pieces for the same samples.

    temperature=0: Whisper's way out of a failure, sampling at higher ones, differs between runs.
    Word times: the end of a segment comes 0.4 s late without them.
    """
    segments, _ = _whisper(whisper.path, whisper.compute).transcribe(
        _waveform(samples),
        language=whisper.language or None,
        temperature=0.0,
        word_timestamps=True,
        vad_filter=True,
        # ours to judge (speech_filter.py)
        compression_ratio_threshold=None,
        log_prob_threshold=None,
        no_speech_threshold=None,
    )
    return [
        SpeechPiece(
            round(float(part.start), 3),
            round(float(part.end), 3),
            part.text.strip(),
            round(float(np.exp(part.avg_logprob)), 4),
            float(part.compression_ratio),
            float(part.avg_logprob),
            float(part.no_speech_prob),
            min((float(word.probability) for word in part.words or ()), default=1.0),
        )
        for part in segments
    ]


def knows_languages(whisper: Whisper) -> bool:
    """False for a model that knows English only."""
    return bool(_whisper(whisper.path, whisper.compute).model.is_multilingual)


def voice(samples: np.ndarray) -> np.ndarray:
    """The samples in which somebody seems to speak, one behind the other (Silero VAD)."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    speech = get_speech_timestamps(_waveform(samples), VadOptions(speech_pad_ms=0))
    return np.concatenate([samples[:0], *(samples[one["start"] : one["end"]] for one in speech)])


def guess_language(samples: np.ndarray, whisper: Whisper) -> LanguageGuess:
    """The likeliest language over the windows of some speech, each counted by its length."""
    model = _whisper(whisper.path, whisper.compute)
    size = _WINDOW_S * _RATE
    shares: dict[str, float] = {}
    for at in range(0, len(samples), size):
        window = samples[at : at + size]
        _, _, of_window = model.detect_language(_waveform(window))
        for language, share in of_window:
            shares[language] = shares.get(language, 0.0) + share * len(window) / len(samples)
    language = max(sorted(shares), key=lambda one: shares[one])
    return LanguageGuess(language, round(shares[language], 4))


def _waveform(samples: np.ndarray) -> np.ndarray:
    """[n] float32, -1..1."""
    return samples.astype(np.float32) / 32768


def _words(pcm: bytes, start: float, end: float) -> list[SpeechPiece]:
    decoder = _sphinx()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    text = hypothesis.hypstr.strip() if hypothesis is not None else ""
    return [SpeechPiece(start, end, text, ROUGH)] if text else []
