"""A film with other sound: pictures of one file, samples as its sound track. Knows PyAV."""

from pathlib import Path

import av
import numpy as np


def with_sound(pictures: Path, samples: np.ndarray, rate: int, target: Path) -> None:
    """Write the packets of the first video stream beside AAC of [n] int16 samples, as long as the
    pictures.
    """
    with av.open(str(pictures)) as source, av.open(str(target), "w") as file:
        seconds = float((source.duration or 0) / av.time_base)
        samples = samples[: round(seconds * rate)]
        film = file.add_stream_from_template(source.streams.video[0])
        sound = file.add_stream("aac", rate=rate)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = film
                file.mux(packet)
        for at in range(0, len(samples), 1024):
            part = av.AudioFrame.from_ndarray(
                samples[None, at : at + 1024].copy(), format="s16", layout="mono"
            )
            part.sample_rate, part.pts = rate, at
            file.mux(sound.encode(part))
        file.mux(sound.encode())
