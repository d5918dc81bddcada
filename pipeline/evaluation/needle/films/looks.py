"""How a needle looks on a frame.

- card: what the embedded model was trained on, a third of the frame or more
- subtitle: white text on a grey band at the bottom, as VNBench's "edit" (arXiv 2406.09367)
- fullscreen: the card fills the frame; the footage goes on underneath
- picture: a card on white between frames, as VNBench's "insert"; the footage stops meanwhile
- object: a card small enough to be an object of the scene

Knows no time, no film and no question.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace

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
    "sentence": "{text}",
}
LETTERS = "ABCD"  # of thumbnails
UNSEEN = ("speech", "footage")  # kinds that nothing is drawn of
PICTURES = ("thumbnails", "picture", "clip")  # kinds that are made of other pictures


def place(rng: np.random.Generator, card: Card, look: str) -> Placement:
    """A random place for a card of this look."""
    if look == "subtitle":
        return Placement(0.0, 0.8, 1.0, 0.16, True, (0, 0, 0))
    if look in ("fullscreen", "picture"):
        dark = look == "fullscreen" and bool(rng.random() < 0.3)
        return Placement(0.0, 0.0, 1.0, 1.0, dark, (19, 19, 19) if look == "picture" else (0, 0, 0))
    wide = ("lines", "sentence", "speech", "pictured")
    kind = "code" if card.kind in wide else card.kind if card.kind in KINDS else "icon"
    large = random_placement(rng, kind)
    if look == "card":
        return large
    scale = float(rng.uniform(0.26, 0.36))
    width, height = large.width * scale, large.height * scale
    x, y = (float(rng.uniform(0, 1 - side)) for side in (width, height))
    return Placement(x, y, width, height, large.dark, large.tint)


def show(picture: Image.Image, card: Card, look: str, at: Placement) -> None:
    """Draw a needle onto an RGB picture. ValueError on kinds that are made of other pictures."""
    if card.kind in PICTURES:
        raise ValueError(f"a card of kind {card.kind} is drawn by paste or thumbnails")
    if card.kind in UNSEEN:
        return
    if look == "subtitle" and card.kind in _CAPTIONS:
        _subtitle(picture, _CAPTIONS[card.kind].format(text=card.text, color=card.color), at)
    elif card.kind in KINDS:
        draw(picture, Needle(card.kind, card.text, card.color), at)
    elif card.kind == "pictured":
        _pictured(picture, card.text, at)
    else:
        _lines(picture, card.text, at, rows=3 if card.kind == "sentence" else 1)


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


def paste(picture: Image.Image, other: Image.Image, at: Placement) -> None:
    """Put a whole picture into a place, as large as its shape allows, in the middle."""
    left, top, right, bottom = _box(picture, at)
    scale = min((right - left) / other.width, (bottom - top) / other.height)
    size = (max(1, round(other.width * scale)), max(1, round(other.height * scale)))
    corner = ((left + right - size[0]) // 2, (top + bottom - size[1]) // 2)
    picture.paste(other.resize(size, Image.Resampling.BILINEAR), corner)


def thumbnails(picture: Image.Image, moments: Sequence[Image.Image], at: Placement) -> None:
    """Four pictures side by side, each with its letter in a corner."""
    for number, moment in enumerate(moments):
        row, column = divmod(number, 2)
        half = replace(
            at,
            x=at.x + column * at.width / 2,
            y=at.y + row * at.height / 2,
            width=at.width / 2,
            height=at.height / 2,
        )
        box = _box(picture, half)
        size = (box[2] - box[0], box[3] - box[1])
        picture.paste(moment.resize(size, Image.Resampling.BILINEAR), box[:2])
        side = max(8, size[1] // 4)
        corner = (box[0], box[1], box[0] + side, box[1] + side)
        ImageDraw.Draw(picture).rectangle(corner, fill=(0, 0, 0))
        mask = _text(LETTERS[number], 0.8 * side, 0.8 * side)
        _centred(picture, mask, corner, (255, 255, 255))


def stitch(pictures: Sequence[Image.Image], n: int, size: tuple[int, int]) -> Image.Image:
    """n x n pictures as one of this size."""
    result = Image.new("RGB", size)
    for number, one in enumerate(pictures):
        row, column = divmod(number, n)
        left, right = (round(size[0] * i / n) for i in (column, column + 1))
        top, bottom = (round(size[1] * i / n) for i in (row, row + 1))
        result.paste(
            one.resize((right - left, bottom - top), Image.Resampling.BILINEAR), (left, top)
        )
    return result


def _lines(picture: Image.Image, text: str, at: Placement, rows: int) -> None:
    """A card with any text, in the style of the needle world's cards. rows: most lines."""
    box = _box(picture, at)
    grey = 34 if at.dark else 236
    red, green, blue = (int(np.clip(grey + t, 0, 255)) for t in at.tint)
    ink = (245, 245, 245) if at.dark else (16, 16, 18)
    edge = max(1, round(0.03 * (box[3] - box[1])))
    ImageDraw.Draw(picture).rectangle(
        (box[0], box[1], box[2] - 1, box[3] - 1), (red, green, blue), ink, edge
    )
    width, height = 0.88 * (box[2] - box[0]), 0.6 * (box[3] - box[1])
    if rows == 1:
        _centred(picture, _text(text, width, height), box, ink)
        return
    _centred(picture, _paragraph(text, rows, 0.94 * width, 1.3 * height), box, ink)


def _pictured(picture: Image.Image, text: str, at: Placement) -> None:
    """A name on the left half of the place, and the picture of a thing on the right half."""
    name, thing = text.split(": ")
    half = replace(at, width=at.width / 2)
    _lines(picture, name, half, rows=1)
    draw(picture, Needle("icon", thing), replace(half, x=at.x + half.width))


def _paragraph(text: str, rows: int, width: float, height: float) -> Image.Image:
    """A mask with the text in the number of lines that makes it largest, at most `rows`."""
    font = ImageFont.load_default(size=80)
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    best, scale = Image.new("L", (1, 1)), 0.0
    for count in range(1, rows + 1):
        lines = "\n".join(textwrap.wrap(text, max(10, math.ceil(1.15 * len(text) / count))))
        left, top, right, bottom = pen.multiline_textbbox((0, 0), lines, font, align="center")
        fits = min(width / (right - left), height / (bottom - top))
        if fits > scale:
            mask = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)), 0)
            ImageDraw.Draw(mask).multiline_text((-left, -top), lines, 255, font, align="center")
            best, scale = mask, fits
    size = (max(1, round(best.width * scale)), max(1, round(best.height * scale)))
    return best.resize(size, Image.Resampling.BOX)
