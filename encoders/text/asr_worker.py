"""Speech recognition in a process of its own. Imports none of our heavy modules.

Knows samples; times are seconds within them.
"""

from functools import lru_cache
from typing import Any

import numpy as np

SpeechPiece = tuple[float, float, str, float]  # start and end in seconds, text, confidence
# confidence of every piece from pocketsphinx, which reports none; many of its words are wrong
ROUGH = 0.3


@lru_cache(maxsize=1)
def _sphinx() -> Any:
    import pocketsphinx

    pocketsphinx.set_loglevel("FATAL")
    return pocketsphinx.Decoder(samprate=16_000)


@lru_cache(maxsize=1)
def _whisper(path: str) -> Any:
    from faster_whisper import WhisperModel

    return WhisperModel(path, device="auto", compute_type="default", local_files_only=True)


def by_sphinx(samples: np.ndarray) -> list[SpeechPiece]:
    """English, roughly. samples: [n] int16 at 16 kHz."""
    from pocketsphinx import Endpointer

    gate, pieces = Endpointer(sample_rate=16_000), []
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
        pieces += _words(pcm, start, len(samples) / 16_000)
    return pieces


def by_whisper(samples: np.ndarray, path: str) -> list[SpeechPiece]:
    """Any language that the model at `path` supports. samples: [n] int16 at 16 kHz."""
    parts, _ = _whisper(path).transcribe(samples.astype(np.float32) / 32768, vad_filter=True)
    return [
        (part.start, part.end, part.text.strip(), round(float(np.exp(part.avg_logprob)), 4))
        for part in parts
    ]


def _words(pcm: bytes, start: float, end: float) -> list[SpeechPiece]:
    decoder = _sphinx()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    text = hypothesis.hypstr.strip() if hypothesis is not None else ""
    return [(start, end, text, ROUGH)] if text else []
