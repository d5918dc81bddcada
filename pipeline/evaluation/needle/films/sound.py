"""The sound of a film: its sentences, said by espeak-ng; and the same as subtitles.

Subtitles are a control: what a perfect recogniser of speech or of print would find.
"""

from pathlib import Path

import av
import numpy as np

from encoders.sources.ffmpeg_name import ffmpeg_name
from memory.storage.atomic import replacing
from pipeline.evaluation import espeak
from pipeline.evaluation.needle.films.schema import Film
from pipeline.evaluation.srt import srt

WORDS = ("speech", "sentence")  # kinds whose text a recogniser can find


def has_speech(film: Film) -> bool:
    """Whether the film is heard."""
    return any(one.card.kind == "speech" for one in film.shown)


def has_words(film: Film) -> bool:
    """Whether the film has sentences, said or printed."""
    return any(one.card.kind in WORDS for one in film.shown)


def track(film: Film) -> tuple[np.ndarray, int]:
    """[n] int16 samples of the whole film, and their rate; silent where nobody speaks."""
    parts = [(one.start, *espeak.say(one.card.text)) for one in film.shown
             if one.card.kind == "speech"]  # fmt: skip
    rate = parts[0][2]
    samples = np.zeros(round(film.seconds * rate), np.int16)
    for start, part, _ in parts:
        first = round(start * rate)
        part = part[: len(samples) - first]
        samples[first : first + len(part)] = part
    return samples, rate


def with_speech(film: Film, silent: Path, path: Path) -> None:
    """Copy a film's pictures, and add its sound."""
    samples, rate = track(film)
    with (
        replacing(path) as temporary,
        av.open(ffmpeg_name(silent)) as old,
        av.open(ffmpeg_name(temporary), "w") as new,
    ):
        pictures = new.add_stream_from_template(old.streams.video[0])
        voice = new.add_stream("aac", rate=rate)
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = pictures
                new.mux(packet)
        espeak.add_sound(new, voice, samples, rate)


def write_transcript(film: Film, path: Path) -> None:
    """The film's sentences as a .srt file beside it; none for a film without sentences."""
    if not has_words(film):
        return
    cues = ((one.start, one.end, one.card.text) for one in film.shown if one.card.kind in WORDS)
    with replacing(path.with_suffix(".srt")) as temporary:
        temporary.write_text(srt(cues), encoding="utf-8")
