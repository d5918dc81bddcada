"""Videos with needles: any footage, cards at known times, a real H.264 file, exact ground truth.

The same seed and footage give the same plan. Knows no model and no bank.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from encoders.errors import UserError
from encoders.sources.container import check_file
from encoders.sources.ffmpeg_name import ffmpeg_name
from memory.storage.atomic import replacing
from pipeline.needle_world.cards import (
    COLORS,
    ICONS,
    KINDS,
    NAMES,
    SHAPES,
    Needle,
    Placement,
    draw,
    procedural,
    random_placement,
)

# The macroblock tree of x264 gives other bytes in every run where pictures lean on later ones
# (B), even with one thread. Without it, a seed names one film.
ENCODER = {"preset": "veryfast", "x264-params": "mbtree=0"}

# seconds -> the picture at that time; called with rising seconds
Footage = Callable[[float], Image.Image]


@dataclass(frozen=True, slots=True)
class PlacedNeedle:
    """A needle with its place and the seconds during which it shows: [start, end)."""

    needle: Needle
    start: float
    end: float
    place: Placement


def plan(
    rng: np.random.Generator,
    needles: list[Needle],
    seconds: float,
    needle_seconds: float = 2.0,
    gap: float = 1.5,
) -> tuple[PlacedNeedle, ...]:
    """Times for the needles, in their order: random, on no grid, at least `gap` seconds apart.

    ValueError when they do not fit.
    """
    lead = 1.0
    free = seconds - 2 * lead - len(needles) * needle_seconds - (len(needles) - 1) * gap
    if free < 0:
        raise ValueError(
            f"{len(needles)} needles of {needle_seconds} s do not fit into {seconds} s"
        )
    cuts = np.sort(rng.uniform(0, free, len(needles)))
    starts = [lead + float(cut) + i * (needle_seconds + gap) for i, cut in enumerate(cuts)]
    return tuple(
        PlacedNeedle(
            needle,
            round(start, 3),
            round(start + needle_seconds, 3),
            random_placement(rng, needle.kind),
        )
        for needle, start in zip(needles, starts, strict=True)
    )


def procedural_footage(seed: int, size: tuple[int, int], scene_seconds: float = 14.0) -> Footage:
    """Moving scenes without a camera; a new scene every `scene_seconds`."""

    def at(t: float) -> Image.Image:
        scene = int(t // scene_seconds)
        return procedural(np.random.default_rng((seed, scene)), size, t)

    return at


def clip_footage(clips: list[Path], seed: int, size: tuple[int, int]) -> Footage:
    """Real clips one after another, endlessly; order, crop and mirroring change every time."""
    pictures = _loop(clips, seed, size)
    around: list[tuple[float, Image.Image]] = []  # the last picture before a time, the first after

    def at(t: float) -> Image.Image:
        while not around or around[-1][0] < t:
            around[:] = around[-1:]
            around.append(next(pictures))
        return around[0][1].copy() if around[0][0] >= t else around[-1][1].copy()

    return at


def _loop(
    clips: list[Path], seed: int, size: tuple[int, int]
) -> Iterator[tuple[float, Image.Image]]:
    """Endless (seconds since the loop began, picture)."""
    rng, base = np.random.default_rng(seed), 0.0
    while True:
        for i in rng.permutation(len(clips)):
            zoom, mirror = rng.uniform(0.6, 1.0), bool(rng.random() < 0.5)
            x, y = rng.uniform(0, 1 - zoom, 2)
            last = 0.0
            with av.open(ffmpeg_name(clips[int(i)])) as file:
                for frame in file.decode(video=0):
                    last = float(frame.time or 0.0)
                    picture = frame.to_image()
                    w, h = picture.size
                    picture = picture.resize(
                        size,
                        Image.Resampling.BILINEAR,
                        box=(x * w, y * h, (x + zoom) * w, (y + zoom) * h),
                    )
                    if mirror:
                        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                    yield base + last, picture
            base += last + 0.04


def write(
    path: Path,
    placed: tuple[PlacedNeedle, ...],
    seconds: float,
    footage: Footage,
    *,
    fps: int = 8,
    size: tuple[int, int] = (480, 270),
    progress: Callable[[float], None] = lambda t: None,
) -> None:
    """Write an H.264 MP4, which appears under its name when it is complete.

    progress: called with the seconds written so far.
    """
    with replacing(path) as temporary, av.open(ffmpeg_name(temporary), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={**ENCODER, "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = size[0] // 2 * 2, size[1] // 2 * 2, "yuv420p"
        stream.codec_context.gop_size = 4 * fps
        stream.time_base = Fraction(1, fps)
        for i in range(round(seconds * fps)):
            t = i / fps
            picture = footage(t)
            for one in placed:
                if one.start <= t < one.end:
                    draw(picture, one.needle, one.place)
            frame = av.VideoFrame.from_image(picture)
            frame.pts = i
            file.mux(stream.encode(frame))
            progress(t)
        file.mux(stream.encode())


def insert(source: Path, target: Path, placed: tuple[PlacedNeedle, ...]) -> None:
    """Copy a video with cards drawn onto its frames; times, size and rate stay, sound is dropped.

    UserError when the source cannot be decoded or ends before a needle shows.
    """
    with replacing(target) as temporary:
        try:
            visible, last = _draw_onto(source, temporary, placed)
        except (av.error.FFmpegError, IndexError) as error:
            raise UserError(f"{source} cannot be decoded ({error}); give another video.") from error
        missing = [one for i, one in enumerate(placed) if i not in visible]
        if missing:
            raise UserError(
                f"{source} ends at {last:.1f} s, before {missing[0].start:.1f} s; "
                "give an earlier moment."
            )


def _draw_onto(
    source: Path, target: Path, placed: tuple[PlacedNeedle, ...]
) -> tuple[set[int], float]:
    """Encode the source again with its needles; -> (numbers of those that showed, last second)."""
    last, visible = 0.0, set[int]()
    with av.open(ffmpeg_name(source)) as old, av.open(ffmpeg_name(target), "w") as new:
        film = old.streams.video[0]
        stream = new.add_stream(
            "libx264", rate=film.average_rate or 25, options={**ENCODER, "crf": "20"}
        )
        stream.pix_fmt, stream.time_base = "yuv420p", film.time_base
        stream.width, stream.height = film.width // 2 * 2, film.height // 2 * 2
        for frame in old.decode(film):
            last = float(frame.time or 0.0)
            picture = frame.to_image()
            for i, one in enumerate(placed):
                if one.start <= last < one.end:
                    visible.add(i)
                    draw(picture, one.needle, one.place)
            drawn = av.VideoFrame.from_image(picture.resize((stream.width, stream.height)))
            drawn.pts, drawn.time_base = frame.pts, frame.time_base
            new.mux(stream.encode(drawn))
        new.mux(stream.encode())
    return visible, last


def parse(text: str, seed: int) -> PlacedNeedle:
    """A needle that shows for 2 seconds: "code:4821@5", "shape:red star@12.5", "icon:key@3".

    The number behind @ is the second at which it appears. UserError when the text is no needle.
    """
    rng = np.random.default_rng(seed)
    try:
        kind, rest = text.split(":", 1)
        what, at = rest.rsplit("@", 1)
        start = float(at)
        color, word = what.split(" ", 1) if kind == "shape" else ("", what)
        words = {"name": NAMES, "shape": SHAPES, "icon": ICONS}.get(kind, (word,))
        if kind not in KINDS or word not in words or (color and color not in COLORS):
            raise ValueError(text)
        if kind == "code" and not (len(word) == 4 and word.isdigit()):
            raise ValueError(text)
    except ValueError as error:
        raise UserError(
            f"{text!r} is no needle; write code:4821@5, name:Alice@5, shape:red star@5 or "
            "icon:key@5 "
            f"(names: VNBench's; shapes: {', '.join(SHAPES)}; icons: {', '.join(ICONS)}; colours: "
            f"{', '.join(COLORS)})."
        ) from error
    return PlacedNeedle(Needle(kind, word, color), start, start + 2.0, random_placement(rng, kind))


def main() -> None:
    """Insert needles into a video.

    python -m pipeline.needle_world.video IN.mp4 OUT.mp4 code:4821@5 "shape:red star@12"
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("needles", nargs="+")
    args = parser.parse_args()
    try:
        check_file(args.source)
        insert(
            args.source, args.target, tuple(parse(text, i) for i, text in enumerate(args.needles))
        )
    except UserError as error:
        print(f"haystack: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{args.target}: {len(args.needles)} needles")


if __name__ == "__main__":
    main()
