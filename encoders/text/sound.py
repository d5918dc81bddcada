"""The sound of a video as 16 kHz mono, one interval at a time. Knows PyAV; nothing of speech."""

from pathlib import Path

import av
import numpy as np

RATE = 16_000  # samples a second
SILENT = 60.0  # of 32768: a root mean square below it is silence (-55 dB)


def has_sound(path: Path) -> bool:
    """True if there is a sound track."""
    with av.open(str(path), metadata_errors="replace") as container:
        return bool(container.streams.audio)


def interval(path: Path, zero: float, start: float, end: float) -> np.ndarray:
    """[n] int16 samples from start to end, in seconds of video time: zeros where there is no sound,
    shorter at the end of the track. zero: the file's own time of its first picture, in seconds.
    Samples that cannot be decoded are left out.
    """
    sound = np.zeros(round((end - start) * RATE), np.int16)
    filled = 0
    with av.open(str(path), metadata_errors="replace") as container:
        track = container.streams.audio[0]
        if start + zero > 1:
            container.seek(int((start + zero - 1) * av.time_base))
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        try:
            for frame in container.decode(track):
                if frame.time is None:
                    continue
                if frame.time - zero >= end:
                    break
                at = round((frame.time - zero - start) * RATE)
                for part in resampler.resample(frame):
                    samples = part.to_ndarray().reshape(-1)
                    a, b = max(at, 0), min(at + len(samples), len(sound))
                    if a < b:
                        sound[a:b] = samples[a - at : b - at]
                        filled = max(filled, b)
                    at += len(samples)
        except av.FFmpegError:
            pass  # the file is damaged from here on: the samples so far count
    return sound[:filled]


def loudness(samples: np.ndarray) -> float:
    """Root mean square of int16 samples; 0 for none."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def pause(samples: np.ndarray, seconds: float = 0.3) -> float:
    """Seconds from the beginning to the middle of the quietest interval of this length, the last
    one on a tie; 0 if there are fewer samples.
    """
    size = round(seconds * RATE)
    if len(samples) < size:
        return 0.0
    power = np.concatenate([[0], np.cumsum(np.square(samples, dtype=np.int64))])
    loud = power[size:] - power[:-size]  # of the window that starts at each sample
    return float(len(loud) - 1 - int(np.argmin(loud[::-1])) + size / 2) / RATE
