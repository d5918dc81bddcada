"""Rendered training frames of the needle world, in numbered shards.

Shard i of a seed is always the same bytes. Imports only numpy and Pillow. Knows no model. Real
footage comes as an .npz that `pipeline.embedded.footage` makes; without it every background is
procedural.
"""

import io
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.needle_world.cards import (
    BLANK,
    KINDS,
    Needle,
    draw,
    procedural,
    random_needle,
    random_placement,
)

SIDE = 96  # pixels: what the tower sees
GRID = 8  # dense labels per side: one per patch
CANVASES = ((192, 108), (192, 108), (192, 108), (160, 120), (128, 128), (108, 160))


@dataclass(frozen=True, slots=True)
class Shard:
    """Rendered events; frame i of event e is row e * frames_per_event + i."""

    pixels: np.ndarray  # [n, SIDE, SIDE, 3] uint8
    dense: np.ndarray  # [n, GRID, GRID] uint8 classes of pipeline.needle_world.cards
    needles: tuple[Needle | None, ...]  # one per event; None = footage alone
    frames_per_event: int


def load_footage(path: Path | None) -> list[np.ndarray]:
    """Clips as [T, height, width, 3] uint8; an empty list without a file."""
    if path is None or not path.exists():
        return []
    with np.load(path) as file:
        return [file[name] for name in sorted(file.files)]


def background(
    rng: np.random.Generator, footage: list[np.ndarray], size: tuple[int, int]
) -> Image.Image:
    """A picture to draw a card on.

    Half are procedural, half a random crop of real footage; some crops hold a piece of another.
    """
    if not footage or rng.random() < 0.5:
        return procedural(rng, size, rng.uniform(0, 20))
    picture = _real(rng, footage, size)
    if rng.random() < 0.2:  # straight edges that are no card's
        w, h = (
            int(side * share) for side, share in zip(size, rng.uniform(0.15, 0.7, 2), strict=True)
        )
        at = (int(rng.integers(size[0] - w + 1)), int(rng.integers(size[1] - h + 1)))
        picture.paste(_real(rng, footage, (max(2, w), max(2, h))), at)
    return picture


def _real(
    rng: np.random.Generator, footage: list[np.ndarray], size: tuple[int, int]
) -> Image.Image:
    # the square root lets a clip count more than a photograph, but less than its frames
    weights = np.sqrt([len(clip) for clip in footage])
    clip = footage[int(rng.choice(len(footage), p=weights / weights.sum()))]
    picture = Image.fromarray(clip[int(rng.integers(len(clip)))])
    w, h = picture.size
    zoom = rng.uniform(0.3, 1.0)
    x, y = rng.uniform(0, 1 - zoom) * w, rng.uniform(0, 1 - zoom) * h
    picture = picture.resize(
        size, Image.Resampling.BILINEAR, box=(x, y, x + zoom * w, y + zoom * h)
    )
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain, shift = rng.uniform(0.6, 1.3, 3), rng.uniform(-25, 25, 3)
    return Image.fromarray(np.clip(np.asarray(picture) * gain + shift, 0, 255).astype(np.uint8))


def camera(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """The frame after JPEG compression (half of the time) and resizing to SIDE x SIDE."""
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(30, 95)))
        picture = Image.open(buffer)
    ways = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX)
    return picture.resize((SIDE, SIDE), ways[int(rng.integers(3))])


def render_shard(
    seed: int,
    number: int,
    events: int,
    frames_per_event: int,
    footage: list[np.ndarray],
    easy: bool = False,
    codes: float = 0.34,
) -> Shard:
    """Shard `number` of a seed; a fifth of the events are footage alone.

    easy: plain backgrounds, for the first steps. codes: share of the cards that are codes.
    """
    rng = np.random.default_rng((seed, number))
    pixels = np.empty((events * frames_per_event, SIDE, SIDE, 3), np.uint8)
    dense = np.full((events * frames_per_event, GRID, GRID), BLANK, np.uint8)
    needles: list[Needle | None] = []
    others = np.array((0.22, 0.26, 0.18))  # name, shape, icon
    shares = np.array((codes, *((1 - codes) * others / others.sum())))
    pairs: Literal["train"] = "train"
    for event in range(events):
        kind = None if rng.random() < 0.2 else KINDS[int(rng.choice(4, p=shares))]
        needle = None if kind is None else random_needle(rng, kind, pairs=pairs)
        place = None if kind is None else random_placement(rng, kind)
        canvas = CANVASES[int(rng.integers(len(CANVASES)))]
        needles.append(needle)
        for i in range(frames_per_event):
            row = event * frames_per_event + i
            if easy:
                picture = Image.new("RGB", canvas, tuple(int(v) for v in rng.integers(0, 256, 3)))
            else:
                picture = background(rng, footage, canvas)
            labels = Image.new("L", canvas, BLANK)
            if needle is not None and place is not None:
                draw(picture, needle, place, labels)
            pixels[row] = np.asarray(camera(rng, picture).convert("RGB"))
            dense[row] = np.asarray(labels.resize((GRID, GRID), Image.Resampling.NEAREST))
    return Shard(pixels, dense, tuple(needles), frames_per_event)


def _job(args: tuple[int, int, int, int, Path | None, bool, float]) -> Shard:
    seed, number, events, frames_per_event, footage, easy, codes = args
    return render_shard(seed, number, events, frames_per_event, _cached(footage), easy, codes)


_footage: dict[str, list[np.ndarray]] = {}  # a worker process reads each file once


def _cached(path: Path | None) -> list[np.ndarray]:
    if str(path) not in _footage:
        _footage[str(path)] = load_footage(path)
    return _footage[str(path)]


def shards(
    seed: int,
    numbers: range,
    events: int,
    frames_per_event: int,
    footage: Path | None,
    easy_until: int = 0,
    codes: Sequence[float] = (),
) -> Iterator[Shard]:
    """Shards in order, rendered ahead in one other process.

    Shards below easy_until have plain backgrounds. codes: for every shard, the share of the cards
    that are codes (default 0.34).
    """
    jobs = (
        (seed, n, events, frames_per_event, footage, n < easy_until, codes[n] if codes else 0.34)
        for n in numbers
    )
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        ahead: list = []  # at most two shards wait, so that memory stays bounded
        for job in jobs:
            ahead.append(pool.apply_async(_job, (job,)))
            if len(ahead) > 2:
                yield ahead.pop(0).get()
        for waiting in ahead:
            yield waiting.get()
