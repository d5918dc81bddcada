"""The needle world: cards with a code, a name, a coloured shape or an icon, drawn onto any picture.

The only module that says what a needle looks like: training data, demo video and evaluation all
use `draw`. Imports only numpy and Pillow. Knows no video files, no questions and no model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

NAMES = tuple(
    "Alice Bob Carol Dave Eve Frank Grace Harry Ivy Jack Kate Leo Mary Nick Olivia Paul Quentin "
    "Rachel Sam Tom Uma "
    "Victor Wendy Xander Yvonne Zach".split()
)  # VNBench's vocabulary (arXiv 2406.09367)
COLORS = {
    "red": (214, 30, 36),
    "green": (34, 150, 52),
    "blue": (28, 64, 214),
    "yellow": (246, 220, 20),
    "orange": (248, 132, 10),
    "purple": (128, 32, 160),
    "pink": (250, 140, 190),
    "cyan": (40, 205, 220),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
ICONS = ("house", "tree", "car", "key", "sun", "umbrella", "boat", "cup")
# Training never draws these pairs: they test whether the model reads colour and shape apart.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("blue", "heart"),
        ("green", "cross"),
        ("yellow", "ring"),
        ("orange", "circle"),
    }
    | {("purple", "triangle"), ("pink", "square"), ("cyan", "diamond")}
)
Color = tuple[int, int, int]
Points = list[tuple[float, float]]
Kind = Literal["code", "name", "shape", "icon"]
KINDS: tuple[Kind, ...] = ("code", "name", "shape", "icon")

# Dense classes for training the tower: what is visible at each place of the picture.
BLANK, CARD = 0, 1
DIGIT0, LETTER0 = 2, 12
SHAPE0 = LETTER0 + 26
ICON0 = SHAPE0 + len(SHAPES)
CLASSES = ICON0 + len(ICONS)


@dataclass(frozen=True, slots=True)
class Needle:
    """One card.

    text: the code, the name, or the word for the shape or icon; color: set for shapes only.
    """

    kind: Kind
    text: str
    color: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Place and style of a card; x, y, width and height are fractions of the picture's size."""

    x: float  # left edge
    y: float  # top edge
    width: float
    height: float
    dark: bool  # dark card with light text
    tint: tuple[int, int, int]  # added to the card's grey


def random_needle(
    rng: np.random.Generator, kind: Kind, *, pairs: Literal["train", "all", "held_out"] = "all"
) -> Needle:
    """A needle of this kind; `pairs` limits which colour and shape pairs are drawn."""
    if kind == "code":
        return Needle(kind, f"{rng.integers(10_000):04d}")
    if kind == "name":
        return Needle(kind, str(rng.choice(NAMES)))
    if kind == "icon":
        return Needle(kind, str(rng.choice(ICONS)))
    options = [
        (color, shape)
        for color in COLORS
        for shape in SHAPES
        if pairs == "all" or ((color, shape) in HELD_OUT_PAIRS) == (pairs == "held_out")
    ]
    color, shape = options[int(rng.integers(len(options)))]
    return Needle(kind, shape, color)


def random_placement(rng: np.random.Generator, kind: Kind) -> Placement:
    """A card large enough to read at 96 x 96 pixels.

    Digits are then about 20 pixels wide and shapes 40 to 75 pixels across.
    """
    if kind in ("code", "name"):
        width, height = rng.uniform(0.84, 0.98), rng.uniform(0.34, 0.62)
    else:
        width, height = rng.uniform(0.55, 0.85), rng.uniform(0.6, 0.92)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    red, green, blue = (int(v) for v in rng.integers(-14, 15, 3))
    return Placement(x, y, width, height, bool(rng.random() < 0.3), (red, green, blue))


def draw(
    picture: Image.Image, needle: Needle, place: Placement, labels: Image.Image | None = None
) -> None:
    """Draw the card onto an RGB picture.

    labels: an L picture of the same size, or None; gets the card's dense classes.
    """
    w, h = picture.size
    box = (
        round(place.x * w),
        round(place.y * h),
        round((place.x + place.width) * w),
        round((place.y + place.height) * h),
    )
    size = (box[2] - box[0], box[3] - box[1])
    # draw large and shrink: smooth edges at any picture size
    over = max(1, math.ceil(360 / size[0]))
    card = Image.new("RGB", (size[0] * over, size[1] * over))
    classes = Image.new("L", card.size, CARD)
    _paint(card, classes, needle, place)
    picture.paste(card.resize(size, Image.Resampling.BOX), box[:2])
    if labels is not None:
        labels.paste(classes.resize(size, Image.Resampling.NEAREST), box[:2])


def _paint(card: Image.Image, classes: Image.Image, needle: Needle, place: Placement) -> None:
    w, h = card.size
    grey = 34 if place.dark else 236
    red, green, blue = (int(np.clip(grey + t, 0, 255)) for t in place.tint)
    paper = (red, green, blue)
    ink = (245, 245, 245) if place.dark else (16, 16, 18)
    pen, marks = ImageDraw.Draw(card), ImageDraw.Draw(classes)
    edge = max(2, round(0.018 * min(w, h) * 2))
    pen.rectangle((0, 0, w - 1, h - 1), fill=paper, outline=ink, width=edge)
    if needle.kind in ("code", "name"):
        _text(card, marks, needle, ink)
        return
    side = 0.84 * min(w, h) if w > h else 0.9 * w
    # The tower sees pictures squeezed to squares: on a wide card a shape may be up to 1.35 times as
    # wide as high.
    half_w, half_h = min(0.45 * w, 0.62 * side), 0.5 * min(side, 0.88 * h)
    cx, cy = w / 2, h / 2

    def at(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(cx + half_w * x, cy + half_h * y) for x, y in points]

    if needle.kind == "shape":
        _shape(pen, needle.text, COLORS[needle.color], ink, paper, at, edge)
        _shape_mark(marks, SHAPE0 + SHAPES.index(needle.text), cx, cy, half_w, half_h)
    else:
        if needle.text not in _DRAW_ICON:
            raise ValueError(f"no icon named {needle.text!r}; one of {', '.join(ICONS)}")
        stroke = max(3, round(0.09 * min(half_w, half_h)))
        _DRAW_ICON[needle.text](_IconPen(pen, at, ink, paper, stroke))
        _shape_mark(marks, ICON0 + ICONS.index(needle.text), cx, cy, half_w, half_h)


def _shape_mark(
    marks: ImageDraw.ImageDraw, value: int, cx: float, cy: float, half_w: float, half_h: float
) -> None:
    marks.rectangle((cx - half_w, cy - half_h, cx + half_w, cy + half_h), fill=value)


def _text(
    card: Image.Image, marks: ImageDraw.ImageDraw, needle: Needle, ink: tuple[int, int, int]
) -> None:
    w, h = card.size
    font = ImageFont.load_default(size=160)
    edges = [float(font.getlength(needle.text[:i])) for i in range(len(needle.text) + 1)]
    top, bottom = font.getbbox(needle.text if needle.kind == "code" else "Ahgy")[1::2]
    strip = Image.new("L", (max(1, math.ceil(edges[-1])), math.ceil(bottom - top)), 0)
    ImageDraw.Draw(strip).text((0, -top), needle.text, font=font, fill=255, stroke_width=3)
    # Stretch to the card: a name is at most 1.7 times as wide per letter as the font draws it.
    tall = 0.74 * h
    wide = min(0.9 * w, strip.width * (tall / strip.height) * 1.7)
    x, y = (w - wide) / 2, (h - tall) / 2
    strip = strip.resize((max(1, round(wide)), max(1, round(tall))), Image.Resampling.BILINEAR)
    card.paste(Image.new("RGB", strip.size, ink), (round(x), round(y)), strip)
    for i, letter in enumerate(needle.text.upper()):
        a, b = (x + wide * edges[i + j] / edges[-1] for j in (0, 1))
        value = DIGIT0 + int(letter) if letter.isdigit() else LETTER0 + ord(letter) - ord("A")
        marks.rectangle((a, y, b, y + tall), fill=value)


def _regular(n: int, start: float, radii: tuple[float, ...] = (1.0,)) -> list[tuple[float, float]]:
    """Corners of a regular polygon around the origin; several radii alternate (a star has two)."""
    return [
        (
            radii[i % len(radii)] * math.cos(start + 2 * math.pi * i / n),
            radii[i % len(radii)] * math.sin(start + 2 * math.pi * i / n),
        )
        for i in range(n)
    ]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / 60 for i in range(60)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
            / 16.5,
        )
        for t in turns
    ]


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "circle": _regular(60, 0.0),
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0.0, -1.0), (1.0, 0.9), (-1.0, 0.9)],
    "star": _regular(10, -math.pi / 2, (1.0, 0.42)),
    "heart": _heart(),
    "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "cross": [
        (-0.33, -1.0), (0.33, -1.0), (0.33, -0.33), (1.0, -0.33), (1.0, 0.33), (0.33, 0.33),
        (0.33, 1.0), (-0.33, 1.0), (-0.33, 0.33), (-1.0, 0.33), (-1.0, -0.33), (-0.33, -0.33),
    ],
    "ring": _regular(60, 0.0),
}  # fmt: skip


def _shape(
    pen: ImageDraw.ImageDraw,
    name: str,
    color: Color,
    ink: Color,
    paper: Color,
    at: Callable[[Points], Points],
    edge: int,
) -> None:
    outline = at(_POLYGONS[name])
    pen.polygon(outline, fill=color)
    pen.line([*outline, outline[0], outline[1]], fill=ink, width=edge)
    if name == "ring":
        hole = at([(0.48 * x, 0.48 * y) for x, y in _POLYGONS["ring"]])
        pen.polygon(hole, fill=paper)
        pen.line([*hole, hole[0], hole[1]], fill=ink, width=edge)


@dataclass(frozen=True, slots=True)
class _IconPen:
    """Draws the parts of an icon in its own units: (0, 0) is its middle, an edge is 1 away."""

    pen: ImageDraw.ImageDraw
    at: Callable[[Points], Points]  # units -> pixels of the card
    ink: Color
    paper: Color
    stroke: int  # pixels

    def fill(self, *points: tuple[float, float], hole: bool = False) -> None:
        """A filled polygon; a hole shows the paper."""
        self.pen.polygon(self.at(list(points)), fill=self.paper if hole else self.ink)

    def disc(self, x: float, y: float, r: float, *, hole: bool = False) -> None:
        """A filled circle."""
        self.fill(*[(x + r * a, y + r * b) for a, b in _regular(40, 0.0)], hole=hole)

    def line(self, *points: tuple[float, float]) -> None:
        """A thick line through the points."""
        self.pen.line(self.at(list(points)), fill=self.ink, width=self.stroke, joint="curve")


def _house(icon: _IconPen) -> None:
    icon.fill((0, -1), (1, -0.1), (-1, -0.1))
    icon.fill((-0.75, -0.1), (0.75, -0.1), (0.75, 1), (-0.75, 1))
    icon.fill((-0.2, 0.35), (0.2, 0.35), (0.2, 1), (-0.2, 1), hole=True)


def _tree(icon: _IconPen) -> None:
    icon.fill((-0.14, 0.4), (0.14, 0.4), (0.14, 1), (-0.14, 1))
    icon.disc(0, -0.5, 0.5)
    icon.disc(-0.45, 0.0, 0.45)
    icon.disc(0.45, 0.0, 0.45)
    icon.disc(0, 0.05, 0.45)


def _car(icon: _IconPen) -> None:
    hood = ((-1, 0), (-0.6, -0.08), (-0.35, -0.55), (0.4, -0.55), (0.7, -0.08), (1, 0))
    icon.fill(*hood, (1, 0.5), (-1, 0.5))
    icon.fill((-0.25, -0.4), (0.3, -0.4), (0.45, -0.08), (-0.4, -0.08), hole=True)
    for x in (-0.55, 0.55):
        icon.disc(x, 0.5, 0.28)
        icon.disc(x, 0.5, 0.12, hole=True)


def _key(icon: _IconPen) -> None:
    icon.disc(-0.58, 0, 0.42)
    icon.disc(-0.58, 0, 0.2, hole=True)
    icon.fill((-0.2, -0.11), (1, -0.11), (1, 0.11), (-0.2, 0.11))
    icon.fill((0.8, 0), (1, 0), (1, 0.5), (0.8, 0.5))
    icon.fill((0.42, 0), (0.6, 0), (0.6, 0.38), (0.42, 0.38))


def _sun(icon: _IconPen) -> None:
    icon.disc(0, 0, 0.48)
    for x, y in _regular(8, 0.0):
        icon.line((0.64 * x, 0.64 * y), (x, y))


def _umbrella(icon: _IconPen) -> None:
    arc = np.linspace(math.pi, 2 * math.pi, 30)
    icon.fill(*[(math.cos(t), math.sin(t) * 0.95) for t in arc])
    icon.line((0, -0.1), (0, 0.8))
    icon.line((0, 0.8), (0.12, 0.93), (0.3, 0.93), (0.4, 0.72))


def _boat(icon: _IconPen) -> None:
    icon.fill((-1, 0.4), (1, 0.4), (0.6, 1), (-0.6, 1))
    icon.line((0, 0.4), (0, -1))
    icon.fill((0.12, -0.95), (0.85, 0.22), (0.12, 0.22))
    icon.fill((-0.12, -0.6), (-0.12, 0.22), (-0.7, 0.22))


def _cup(icon: _IconPen) -> None:
    body = ((-0.85, -0.7), (0.45, -0.7), (0.3, 0.85), (-0.7, 0.85))
    icon.fill(*body)
    icon.disc(0.55, -0.05, 0.42)
    icon.disc(0.55, -0.05, 0.22, hole=True)
    icon.fill(*body)


_DRAW_ICON: dict[str, Callable[[_IconPen], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "key": _key,
    "sun": _sun,
    "umbrella": _umbrella,
    "boat": _boat,
    "cup": _cup,
}


def procedural(rng: np.random.Generator, size: tuple[int, int], phase: float = 0.0) -> Image.Image:
    """Footage without a camera: gradients, waves and drifting polygons.

    The same generator state, size and phase give the same picture. phase: seconds; rising phases at
    one generator state give a moving scene.
    """
    w, h = size
    low = (max(8, w // 4), max(8, h // 4))
    y, x = np.mgrid[0 : low[1], 0 : low[0]].astype(np.float32)
    x, y = x / low[0], y / low[1]
    base = rng.uniform(20, 235, (3, 3)).astype(np.float32)
    angle, speed = rng.uniform(0, 2 * math.pi, 2)
    t = 0.5 + 0.5 * np.sin(
        3 * (x * math.cos(angle) + y * math.sin(angle)) + 0.4 * phase * math.cos(speed)
    )
    field = base[0] + (base[1] - base[0]) * t[..., None]
    if rng.random() < 0.6:
        freq = rng.uniform(2, 14, 2)
        wave = np.sin(freq[0] * x * 6 + phase * math.sin(speed)) * np.sin(freq[1] * y * 6)
        field = field + (base[2] - 128) * 0.35 * wave[..., None]
    if rng.random() < 0.5:
        field = field + rng.normal(0, rng.uniform(4, 30), field.shape[:2])[..., None]
    picture = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 8))):
        fx, fy, r, drift, spin = (
            rng.uniform(0, 1),
            rng.uniform(0, 1),
            rng.uniform(0.03, 0.3),
            rng.uniform(-0.05, 0.05),
            rng.uniform(0, 6),
        )
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        cx, cy = ((fx + drift * phase) % 1.0) * w, (fy + 0.05 * math.sin(phase * 0.7 + spin)) * h
        corners = int(rng.integers(3, 9))
        pen.polygon(
            [(cx + r * w * a, cy + r * h * b) for a, b in _regular(corners, spin)], fill=color
        )
    if rng.random() < 0.2:  # writing that is not a needle
        font = ImageFont.load_default(size=int(rng.uniform(0.06, 0.14) * h) + 6)
        word = "".join(chr(int(c)) for c in rng.integers(97, 123, int(rng.integers(3, 9))))
        pen.text(
            (rng.uniform(0, 0.6) * w, rng.uniform(0, 0.85) * h),
            word,
            fill=tuple(int(v) for v in rng.integers(0, 256, 3)),
            font=font,
        )
    return picture
