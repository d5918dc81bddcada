"""The sound of a video as 16 kHz mono, one interval at a time. Knows PyAV; nothing of speech."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import av.container
import numpy as np

from encoders.sources.container import Container, open_film
from encoders.sources.ffmpeg_name import ffmpeg_name
from encoders.sources.packets.scan import demux

RATE = 16_000  # samples a second
_EARLIER_S = 1.0  # decoding begins this much earlier: decoders need a few packets
_INTERLEAVED_S = 2.0  # in a file, sound lies at most so far behind the pictures of its time
_JUMP_S = 1e-3
_PAUSE_S = 0.5  # of one track, behind which another one may continue it
SILENT = 60.0  # of 32768: a root mean square below it is silence (-55 dB)


def has_sound(path: Path) -> bool:
    """True if there is a sound track."""
    with av.open(ffmpeg_name(path), metadata_errors="replace") as container:
        return bool(container.streams.audio)


def interval(facts: Container, start: float, end: float) -> np.ndarray:
    """[n] int16 samples from start to end, in seconds of video time: zeros where there is no sound,
    shorter at the end of the track. Samples that cannot be decoded are left out.
    """
    sound = np.zeros(round((end - start) * RATE), np.int16)
    filled = 0
    with open_film(facts) as container:
        _seek(container, facts, start - _EARLIER_S)
        for seconds, samples in _samples(container, facts):
            if seconds >= end:
                break
            at = round((seconds - start) * RATE)
            a, b = max(at, 0), min(at + len(samples), len(sound))
            if a < b:
                sound[a:b] = samples[a - at : b - at]
                filled = max(filled, b)
    return sound[:filled]


def _seek(container: "av.container.InputContainer", facts: Container, seconds: float) -> None:
    """Stand before a second of video time, or at the beginning."""
    stream_time, _ = facts.timeline.stream_time(seconds)
    if not facts.timeline.restarts:
        if seconds > 0 and stream_time > 0:
            container.seek(int(stream_time * av.time_base))
        return
    # the same stream time comes several times, but each byte once
    assert facts.pictures is not None
    numbers, places = facts.pictures.numbers, facts.packets.bytes  # [P]
    starts = facts.times[np.maximum(numbers, 0)]
    before = np.flatnonzero((numbers >= 0) & (places >= 0) & (starts < seconds - _INTERLEAVED_S))
    if len(before):
        container.seek(int(places[before[-1]]), unsupported_byte_offset=True)


def _samples(
    container: "av.container.InputContainer", facts: Container
) -> Iterator[tuple[float, np.ndarray]]:
    """Pieces of the sound: video time in seconds, [n] int16. Damaged ones are left out."""
    coder: av.AudioCodecContext = container.streams.audio[0].codec_context
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    shift = 0.0  # from stream time to video time
    for packet, stream_time, seconds in _packets(container, facts):
        late: list[av.AudioFrame] = []
        before, shift = shift, seconds - stream_time
        own = packet.stream.codec_context
        is_new = abs(shift - before) > _JUMP_S or own is not coder
        if is_new:  # what the decoder still holds belongs to the clock before
            late = _decoded(coder, None)
            coder.flush_buffers()
            coder = own
        for frames, offset in ((late, before), (_decoded(coder, packet), shift)):
            yield from _resampled(resampler, frames, offset)
            if is_new:
                resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
                is_new = False
    yield from _resampled(resampler, _decoded(coder, None), shift)


def _resampled(
    resampler: av.AudioResampler, frames: list[av.AudioFrame], shift: float
) -> Iterator[tuple[float, np.ndarray]]:
    for frame in frames:
        if frame.time is None:
            continue
        at = frame.time + shift
        for part in resampler.resample(frame):
            samples = part.to_ndarray().reshape(-1)
            yield at, samples
            at += len(samples) / RATE


def _packets(
    container: "av.container.InputContainer", facts: Container
) -> Iterator[tuple["av.Packet[av.AudioStream]", float, float]]:
    """Packets with their stream time and video time: of the first track; where streams change in
    the middle of the file, then of the next one that begins where no sound is.
    """
    tracks = list(container.streams.audio)
    tracks = tracks if len(facts.streams) > 1 else tracks[:1]
    number, end = -1, -math.inf
    with suppress(av.FFmpegError):  # the file is damaged from there on: the packets so far count
        for packet in demux(container, *tracks):
            if packet.pts is None or packet.time_base is None:
                continue
            stream_time = float(packet.pts * packet.time_base)
            seconds = facts.timeline.seconds(stream_time, packet.pos)
            if packet.stream_index != number and seconds < end + _PAUSE_S:
                continue
            number, end = packet.stream_index, seconds
            yield packet, stream_time, seconds


def _decoded(
    coder: av.AudioCodecContext, packet: "av.Packet[av.AudioStream] | None"
) -> list[av.AudioFrame]:
    """packet: None gives what the decoder still holds."""
    try:
        return coder.decode(packet)
    except (av.FFmpegError, EOFError):
        return []


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
