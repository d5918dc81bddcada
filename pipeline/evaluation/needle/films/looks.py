"""How a needle looks on a frame.

- card: what the embedded model was trained on, a third of the frame or more
- subtitle: white text on a grey band at the bottom, as VNBench's "edit" (arXiv 2406.09367)
- fullscreen: the card fills the frame; the footage goes on underneath
- picture: a card on white between frames, as VNBench's "insert"; the footage stops meanwhile
- object: a card small enough to be an object of the scene

Knows no time, no film and no question.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.evaluation.needle.films.schema import Card
from pipeline.needle_world.cards import KINDS, Needle, Placement, draw, random_placement

LOOKS = ("card", "subtitle", "fullscreen", "picture", "object")
_CAPTIONS = {
    "code": "The code is {text}.",
    "name": "The secret word is {text}.",
    "shape": "The {text} is {color}.",
    "icon": "Here is a {text}.",
    "lines": "{text}",
}


def place(rng: np.random.Generator, card: Card, look: str) -> Placement:
    """A random place for a card of this look."""
    if look == "subtitle":
        return Placement(0.0, 0.8, 1.0, 0.16, True, (0, 0, 0))
    if look in ("fullscreen", "picture"):
        dark = look == "fullscreen" and bool(rng.random() < 0.3)
        return Placement(0.0, 0.0, 1.0, 1.0, dark, (19, 19, 19) if look == "picture" else (0, 0, 0))
    kind = "code" if card.kind == "lines" else card.kind
    large = random_placement(rng, kind)  # type: ignore[arg-type]
    if look == "card":
        return large
    scale = float(rng.uniform(0.26, 0.36))
    width, height = large.width * scale, large.height * scale
    x, y = (float(rng.uniform(0, 1 - side)) for side in (width, height))
    return Placement(x, y, width, height, large.dark, large.tint)


def show(picture: Image.Image, card: Card, look: str, at: Placement) -> None:
    """Draw a needle onto an RGB picture."""
    if look == "subtitle":
        _subtitle(picture, _CAPTIONS[card.kind].format(text=card.text, color=card.color), at)
    elif card.kind in KINDS:
        draw(picture, Needle(card.kind, card.text, card.color), at)
    else:
        _lines(picture, card.text, at)


def _box(picture: Image.Image, at: Placement) -> tuple[int, int, int, int]:
    w, h = picture.size
    return (
        round(at.x * w),
        round(at.y * h),
        round((at.x + at.width) * w),
        round((at.y + at.height) * h),
    )


def _text(text: str, width: float, height: float) -> Image.Image:
    """A mask with the text, as large as fits."""
    font = ImageFont.load_default(size=80)
    left, top, right, bottom = font.getbbox(text, stroke_width=1)
    mask = Image.new("L", (round(right - left), round(bottom - top)), 0)
    ImageDraw.Draw(mask).text((-left, -top), text, font=font, fill=255, stroke_width=1)
    scale = min(width / mask.width, height / mask.height)
    return mask.resize(
        (max(1, round(mask.width * scale)), max(1, round(mask.height * scale))),
        Image.Resampling.BOX,
    )


def _centred(
    picture: Image.Image,
    mask: Image.Image,
    box: tuple[int, int, int, int],
    ink: tuple[int, int, int],
) -> None:
    x, y = (box[0] + box[2] - mask.width) // 2, (box[1] + box[3] - mask.height) // 2
    picture.paste(Image.new("RGB", mask.size, ink), (x, y), mask)


def _subtitle(picture: Image.Image, text: str, at: Placement) -> None:
    box = _box(picture, at)
    ImageDraw.Draw(picture).rectangle(box, fill=(96, 96, 96))
    _centred(
        picture,
        _text(text, 0.94 * (box[2] - box[0]), 0.7 * (box[3] - box[1])),
        box,
        (255, 255, 255),
    )


def _lines(picture: Image.Image, text: str, at: Placement) -> None:
    """A card with any text, in the style of the needle world's cards."""
    box = _box(picture, at)
    grey = 34 if at.dark else 236
    red, green, blue = (int(np.clip(grey + t, 0, 255)) for t in at.tint)
    ink = (245, 245, 245) if at.dark else (16, 16, 18)
    edge = max(1, round(0.03 * (box[3] - box[1])))
    ImageDraw.Draw(picture).rectangle(
        (box[0], box[1], box[2] - 1, box[3] - 1), (red, green, blue), ink, edge
    )
    _centred(picture, _text(text, 0.88 * (box[2] - box[0]), 0.6 * (box[3] - box[1])), box, ink)
