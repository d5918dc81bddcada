"""Speech from espeak-ng, on the PATH or in the wheel espeakng-loader; tests skip if neither is
there.
"""

import ctypes
import shutil
import subprocess
import wave
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

_SAMPLES = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
_SYNCHRONOUS, _UTF8 = 2, 1


def recording(path: Path, rate: int) -> np.ndarray:
    """[n] int16 samples of a sound file, mono, at a rate in samples a second."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        frames = [*file.decode(audio=0), None]
        parts = [
            part.to_ndarray().reshape(-1) for one in frames for part in resampler.resample(one)
        ]
    return np.concatenate(parts)


def speak(
    text: str, folder: Path, language: str = "en-us", speed: int = 140
) -> tuple[np.ndarray, int]:
    """[n] int16 samples of somebody who says it, and their rate. speed: words a minute."""
    if shutil.which("espeak-ng"):
        subprocess.run(
            [
                *("espeak-ng", "-v", language, "-s", str(speed)),
                *("-w", str(folder / "said.wav"), text),
            ],
            check=True,
        )
        with wave.open(str(folder / "said.wav")) as file:
            return np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate()
    if find_spec("espeakng_loader") is None:
        pytest.skip("espeak-ng is not there (neither on the PATH nor as the wheel espeakng-loader)")
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(
        _SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0
    )
    parts: list[np.ndarray] = []

    @_SAMPLES
    def take(samples, count, events):
        if count > 0:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(take)
    library.espeak_SetVoiceByName(language.encode())
    library.espeak_SetParameter(1, speed, 0)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return np.concatenate(parts), rate


def film_with_sound(
    path: Path,
    samples: np.ndarray,
    rate: int,
    pictures: int = 5,
    late_s: float = 0.0,
    muxer: dict[str, str] | None = None,
) -> None:
    """A grey film with this sound. samples: [n] int16. late_s: seconds of sound before the first
    picture. muxer: options of the container.
    """
    with av.open(str(path), "w", options=muxer or {}) as file:
        film = file.add_stream("libx264", rate=pictures)
        film.width = film.height = 64
        film.pix_fmt = "yuv420p"
        sound = file.add_stream("aac", rate=rate)
        grey = np.full((64, 64, 3), 90, np.uint8)
        for number in range(max(1, len(samples) * pictures // rate)):
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts = number + round(late_s * pictures)
            file.mux(film.encode(frame))
        file.mux(film.encode())
        for at in range(0, len(samples), 1024):
            part = av.AudioFrame.from_ndarray(
                samples[None, at : at + 1024].copy(), format="s16", layout="mono"
            )
            part.sample_rate, part.pts = rate, at
            file.mux(sound.encode(part))
        file.mux(sound.encode())
