"""Sentences as sound, by espeak-ng where it is installed; and sound in a video file.

Knows no film.
"""

import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer


def can_speak() -> bool:
    """Whether espeak-ng is installed."""
    return shutil.which("espeak-ng") is not None


def say(words: str) -> tuple[np.ndarray, int]:
    """[n] int16 samples, and their rate."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "speech.wav"
        command = ["espeak-ng", "-v", "en-us", "-s", "135", "-w", str(target), words]
        subprocess.run(command, check=True, capture_output=True)
        with wave.open(str(target)) as file:
            return np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate()


def add_sound(file: OutputContainer, voice: av.AudioStream, samples: np.ndarray, rate: int) -> None:
    """Encode a whole sound into its stream. samples: [n] int16, mono."""
    for first in range(0, len(samples), 1024):
        part = av.AudioFrame.from_ndarray(
            samples[None, first : first + 1024].copy(), format="s16", layout="mono"
        )
        part.sample_rate, part.pts = rate, first
        file.mux(voice.encode(part))
    file.mux(voice.encode())
