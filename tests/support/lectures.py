"""Lectures: slides with real sentences, as a hand-held camera films them in a room where somebody
moves.

Knows when each sentence first appears. Half of the slides build up line by line. The same seed
gives the same film.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.support.videos import write_video

SIZE = (960, 540)
_SUBJECTS = """harbour bridge river engine library market glacier violin orchard telescope railway
bakery lighthouse factory canal museum volcano submarine compass theatre vineyard satellite
monastery windmill printer elevator reservoir tunnel piano observatory""".split()
_VERBS = """replaced supplied divided surprised protected connected followed improved flooded
powered delayed measured inspired lifted covered financed copied heated cooled shortened""".split()
_OBJECTS = (
    "the old town, most farmers, three valleys, the northern coast, every school, its own roof, "
    "two armies, the royal garden, cheap timber, the night train, small boats, early maps, "
    "the winter trade, a public bath, stone walls, the main road"
).split(", ")
_ENDS = (
    "in spring, by accident, at night, for a century, without steam, near Lyon, twice a year, "
    "under glass, on Mondays, after 1870"
).split(", ")


@dataclass(frozen=True)
class Phrase:
    """A sentence on a slide."""

    text: str
    start: float  # seconds at which it appears
    end: float
    slide: int
    row: int


def plan(count: int, seed: int = 0) -> list[Phrase]:
    """At least so many different sentences, in time order, three or four to a slide."""
    rng = np.random.default_rng((20_261_121, seed))
    phrases: list[Phrase] = []
    used = set[str]()
    at, slide = 1.0, 0
    while len(phrases) < count:
        rows = int(rng.integers(3, 5))
        builds = bool(rng.random() < 0.5)
        starts = [at + (float(4.5 * row) if builds else 0.0) for row in range(rows)]
        end = starts[-1] + float(rng.uniform(5.0, 9.0))
        for row, start in enumerate(starts):
            while True:
                words = (_SUBJECTS, _VERBS, _OBJECTS, _ENDS)
                subject, verb, thing, when = (part[int(rng.integers(len(part)))] for part in words)
                text = f"The {subject} {verb} {thing} {when}"
                if text not in used:
                    break
            used.add(text)
            phrases.append(Phrase(text, round(start, 3), round(end, 3), slide, row))
        at, slide = end, slide + 1
    return phrases


class Lecture:
    """Pictures of a plan at any second."""

    def __init__(self, phrases: list[Phrase], seed: int = 0, shake: float = 6.0) -> None:
        """shake: pixels that the camera wanders to each side."""
        self.phrases, self.seconds, self._shake = phrases, max(p.end for p in phrases), shake
        rng = np.random.default_rng((7, seed))
        small = rng.integers(40, 110, (12, 20, 3), dtype=np.uint8)
        self._room = Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)
        self._phase = rng.uniform(0, 6, 4)
        self._noise = rng.normal(0, 4, (SIZE[1] + 64, SIZE[0] + 64, 1)).astype(np.int16)
        self._font = (
            ImageFont.truetype("DejaVuSans.ttf", 23) if _has_font() else ImageFont.load_default(23)
        )

    def picture(self, number: int, seconds: float) -> np.ndarray:
        """[height, width, 3] uint8."""
        frame = self._room.copy()
        draw = ImageDraw.Draw(frame)
        visible = [p for p in self.phrases if p.start <= seconds + 1e-6 < p.end]
        if visible:
            tone = 225 + 5 * (visible[0].slide % 5)
            draw.rectangle((60, 40, 850, 450), fill=(tone, tone, tone - 10))
            for phrase in visible:
                draw.text(
                    (90, 85 + 85 * phrase.row), phrase.text, font=self._font, fill=(25, 25, 60)
                )
        x = 890 + 40 * np.sin(seconds * 0.7 + self._phase[0])  # whoever gives the talk
        draw.ellipse((x - 30, 250, x + 30, 315), fill=(190, 150, 120))
        draw.rectangle((x - 45, 315, x + 45, 540), fill=(60, 70, 120))
        dx, dy = (
            self._shake * np.sin(seconds * w + p)
            for w, p in zip((0.9, 1.3), self._phase[1:3], strict=True)
        )
        zoom = 1 + 0.01 * np.sin(seconds * 0.3 + self._phase[3])
        frame = frame.transform(
            SIZE, Image.Transform.AFFINE, (zoom, 0, dx, 0, zoom, dy), Image.Resampling.BILINEAR
        )
        a, b = (number * 37) % 64, (number * 53) % 64
        noisy = np.asarray(frame).astype(np.int16) + self._noise[a : a + SIZE[1], b : b + SIZE[0]]
        return noisy.clip(0, 255).astype(np.uint8)

    def write(self, path: Path, fps: float = 5.0) -> None:
        write_video(
            path,
            self.seconds,
            fps,
            size=SIZE,
            paint=self.picture,
            options={"g": "50", "preset": "ultrafast", "crf": "26"},
        )


def _has_font() -> bool:
    try:
        ImageFont.truetype("DejaVuSans.ttf", 10)
        return True
    except OSError:
        return False
