"""Videos with needles: any footage, cards shown at known moments, a real H.264 file, exact truth.

Same seed and footage: same plan. Knows no model and no bank.
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

# seconds -> the picture at that moment; asked in rising order
Footage = Callable[[float], Image.Image]


@dataclass(frozen=True, slots=True)
class Shown:
    """A needle with the seconds during which it is on screen: [start, end)."""

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
) -> tuple[Shown, ...]:
    """Moments for the needles, in their order: random, not aligned to any grid, at least `gap` apart.

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
        Shown(
            needle,
            round(start, 3),
            round(start + needle_seconds, 3),
            random_placement(rng, needle.kind),
        )
        for needle, start in zip(needles, starts, strict=True)
    )


def procedural_footage(seed: int, size: tuple[int, int], scene_seconds: float = 14.0) -> Footage:
    """Moving scenes without a camera; a new one about every `scene_seconds`."""

    def at(t: float) -> Image.Image:
        scene = int(t // scene_seconds)
        return procedural(np.random.default_rng((seed, scene)), size, t)

    return at


def clip_footage(clips: list[Path], seed: int, size: tuple[int, int]) -> Footage:
    """Real clips one after another, again and again in another order, crop and mirroring each time."""
    pictures = _loop(clips, seed, size)
    held: list[tuple[float, Image.Image]] = []

    def at(t: float) -> Image.Image:
        while not held or held[-1][0] < t:
            held[:] = held[-1:]
            held.append(next(pictures))
        return held[0][1].copy() if held[0][0] >= t else held[-1][1].copy()

    return at


def _loop(
    clips: list[Path], seed: int, size: tuple[int, int]
) -> Iterator[tuple[float, Image.Image]]:
    """(seconds since the beginning of the loop, picture), for ever."""
    rng, base = np.random.default_rng(seed), 0.0
    while True:
        for i in rng.permutation(len(clips)):
            zoom, mirror = rng.uniform(0.6, 1.0), bool(rng.random() < 0.5)
            x, y = rng.uniform(0, 1 - zoom, 2)
            last = 0.0
            with av.open(str(clips[int(i)])) as file:
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
    shown: tuple[Shown, ...],
    seconds: float,
    footage: Footage,
    *,
    fps: int = 8,
    size: tuple[int, int] = (480, 270),
    progress: Callable[[float], None] = lambda t: None,
) -> None:
    """Write an H.264 MP4; `progress` gets the seconds written. The file appears under its name when it is complete."""
    half = path.with_suffix(".partial.mp4")
    with av.open(str(half), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = size[0] // 2 * 2, size[1] // 2 * 2, "yuv420p"
        stream.codec_context.gop_size = 4 * fps
        stream.time_base = Fraction(1, fps)
        for i in range(round(seconds * fps)):
            t = i / fps
            picture = footage(t)
            for one in shown:
                if one.start <= t < one.end:
                    draw(picture, one.needle, one.place)
            frame = av.VideoFrame.from_image(picture)
            frame.pts = i
            file.mux(stream.encode(frame))
            progress(t)
        file.mux(stream.encode())
    half.replace(path)


def insert(source: Path, target: Path, shown: tuple[Shown, ...]) -> None:
    """Copy a video with cards drawn onto its frames; times, size and rate stay, sound is left out.

    UserError when the source cannot be decoded or ends before a needle is shown.
    """
    half = target.with_suffix(".partial.mp4")
    last, seen = 0.0, set[int]()
    try:
        with av.open(str(source)) as old, av.open(str(half), "w") as new:
            film = old.streams.video[0]
            stream = new.add_stream(
                "libx264", rate=film.average_rate or 25, options={"preset": "veryfast", "crf": "20"}
            )
            stream.pix_fmt, stream.time_base = "yuv420p", film.time_base
            stream.width, stream.height = film.width // 2 * 2, film.height // 2 * 2
            for frame in old.decode(film):
                last = float(frame.time or 0.0)
                picture = frame.to_image()
                for i, one in enumerate(shown):
                    if one.start <= last < one.end:
                        seen.add(i)
                        draw(picture, one.needle, one.place)
                drawn = av.VideoFrame.from_image(picture.resize((stream.width, stream.height)))
                drawn.pts, drawn.time_base = frame.pts, frame.time_base
                new.mux(stream.encode(drawn))
            new.mux(stream.encode())
    except (av.error.FFmpegError, IndexError) as error:
        half.unlink(missing_ok=True)
        raise UserError(f"{source} cannot be decoded ({error}); give another video.") from error
    missing = [one for i, one in enumerate(shown) if i not in seen]
    if missing:
        half.unlink(missing_ok=True)
        raise UserError(
            f"{source} ends at {last:.1f} s, before {missing[0].start:.1f} s; give an earlier moment."
        )
    half.replace(target)


def parse(text: str, seed: int) -> Shown:
    """ "code:4821@5", "shape:red star@12.5", "icon:key@3": a needle, two seconds long from that second on."""
    rng = np.random.default_rng(seed)
    try:
        kind, rest = text.split(":", 1)
        what, at = rest.rsplit("@", 1)
        start = float(at)
        color, word = what.split(" ", 1) if kind == "shape" else ("", what)
        known = {"name": NAMES, "shape": SHAPES, "icon": ICONS}.get(kind, (word,))
        if kind not in KINDS or word not in known or (color and color not in COLORS):
            raise ValueError(text)
        if kind == "code" and not (len(word) == 4 and word.isdigit()):
            raise ValueError(text)
    except ValueError as error:
        raise UserError(
            f"{text!r} is no needle; write code:4821@5, name:Alice@5, shape:red star@5 or icon:key@5 "
            f"(names: VNBench's; shapes: {', '.join(SHAPES)}; icons: {', '.join(ICONS)}; colours: {', '.join(COLORS)})."
        ) from error
    return Shown(Needle(kind, word, color), start, start + 2.0, random_placement(rng, kind))


def main() -> None:
    """Put needles into a video of yours: python -m pipeline.needle_world.video IN.mp4 OUT.mp4 code:4821@5 "shape:red star@12"."""
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
