"""A film with everything that a clip must keep: sound, subtitles, languages, colours, a title."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.support.videos import numbered

SIDE = 64
CUES = ((0.5, 1.5, "early"), (2.5, 4.5, "across the start"), (5.0, 6.0, "inside"), (9.0, 9.5, "on"))


def write_full(path: Path, *, text_codec: str = "subrip") -> None:
    """Ten seconds, a keyframe a second, a Spanish tone, German subtitles, and colours."""
    rate = 16_000
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Ten seconds"
        video = container.add_stream("libx264", rate=25, options={"g": "25"})
        assert isinstance(video, av.VideoStream)
        video.width = video.height = SIDE
        video.codec_context.color_primaries = video.codec_context.colorspace = 1
        video.codec_context.color_trc, video.codec_context.color_range = 1, 1
        sound = container.add_stream("aac", rate=rate, layout="mono")
        assert isinstance(sound, av.AudioStream)
        sound.metadata["language"] = "spa"
        text = container.add_mux_stream(text_codec)
        text.time_base, text.metadata["language"] = Fraction(1, 1000), "ger"
        for number in range(250):
            frame = av.VideoFrame.from_ndarray(numbered(number, (SIDE, SIDE)))
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start, end, words in CUES:
            data = words.encode()
            data = len(data).to_bytes(2, "big") + data if text_codec == "mov_text" else data
            packet = av.Packet(data)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = round(start * 1000)
            packet.duration = round((end - start) * 1000)
            container.mux(packet)
        for begin in range(0, 10 * rate, 1024):
            # a second is loud when it is odd
            at = np.arange(begin, begin + 1024)
            wave = np.sin(at * 0.2) * 12_000 * (at // rate % 2)
            sample = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            sample.sample_rate, sample.pts = rate, begin
            container.mux(sound.encode(sample))
        container.mux(sound.encode(None))
