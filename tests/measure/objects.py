"""Objects that `text=objects` sees in a folder of real clips, beside what a person sees there.

    python -m tests.measure.objects FOLDER [--sheets FOLDER]

TRUTH was written down by eye from contact sheets of one picture a second, which --sheets makes
(with boxes: red from the score that begins a line, yellow from 0.3). A line and the truth are
compared second by second, for each class: of what a line says, how much is there (precision); of
what is there, how much a line says (recall). Classes that the eye is unsure of count for neither.
Classes that are never in TRUTH and that no line names are right, and not counted.
Intervals: 95 %, bootstrap over clips.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from encoders.sources.container import inspect
from encoders.sources.file import FileSource
from encoders.text.lines import TextLine
from encoders.text.picture_reader import SPAN_S
from encoders.text.sightings.detector import SIDE, Detector, Sighting
from encoders.text.sightings.detector_weights import GRAPH, LAYERS, SSD_MOBILENET
from encoders.text.sightings.objects import Objects
from encoders.text.sightings.sighting_tracker import SightingTracker
from tests.support import measurement_page

ALL = 1000.0  # seconds: to the end
Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Seen:
    """What a person sees in a clip."""

    things: dict[str, Spans]  # class -> seconds
    unsure: tuple[str, ...] = ()  # classes that may be there


_ALWAYS: Spans = ((0, ALL),)
TRUTH = {
    "baby_reading.mp4": Seen({"person": _ALWAYS, "book": _ALWAYS}, ("bed", "tv")),
    "blocks.mp4": Seen({"person": _ALWAYS}),  # hands alone
    "clouds_text.mp4": Seen({}),
    "corrupted.mp4": Seen({}),
    "cups.mp4": Seen(
        {"person": _ALWAYS, "cup": _ALWAYS, "dining table": _ALWAYS},
        ("sports ball", "bench", "potted plant"),
    ),
    "dance.mp4": Seen({"person": _ALWAYS}, ("truck", "chair", "handbag", "backpack")),
    "dog.mp4": Seen({"person": _ALWAYS, "dog": ((0, 3), (4, ALL))}, ("potted plant",)),
    "outdoor_3fps_a.mp4": Seen(
        {"person": _ALWAYS, "surfboard": ((10, 162),), "boat": ((104, 107),)},
        ("bird", "umbrella", "bench"),
    ),
    "outdoor_3fps_b.mp4": Seen({"person": _ALWAYS}, ("bench", "backpack", "handbag")),
    "pancake.mkv": Seen({"person": _ALWAYS, "chair": ((0, 9),)}, ("sink", "bowl", "oven")),
    "rendered_shapes.mp4": Seen({"sports ball": _ALWAYS}),
    "toddler_room.mp4": Seen(
        {"tv": _ALWAYS, "couch": _ALWAYS, "person": _ALWAYS, "book": ((1, ALL),)},
        ("chair", "dining table", "potted plant", "car", "truck", "sports ball", "vase", "laptop"),
    ),
    "video_90.mov": Seen({"keyboard": _ALWAYS}, ("laptop",)),
}
# the dials, one by one
WAYS = {
    "default": Objects(),
    "`score=0.5`": Objects(score=0.5),
    "`score=0.7`": Objects(score=0.7),
    "`keep=0.6`: weak sightings count for nothing": Objects(keep=0.6),
    "`minimum=0`": Objects(minimum=0.0),
    "`minimum=4`": Objects(minimum=4.0),
    "`gap=0`": Objects(gap=0.0),
    "`every=2`, `minimum=4`": Objects(every=2.0, minimum=4.0),
}
_WEAK = 0.3
_CELL = (384, 216)  # pixels of a picture in a contact sheet
_COLUMNS = 5
_DRAWS = 2000


@dataclass
class Count:
    """Seconds of a clip, by class."""

    right: int = 0  # a line says it, and it is there
    wrong: int = 0  # a line says it, and it is not there
    missed: int = 0  # it is there, and no line says it
    wrong_lines: tuple[TextLine, ...] = ()


@dataclass
class Readings:
    """What the detector sees in a clip, a look a second."""

    times: list[float]
    sightings: list[list[Sighting]]  # for each time, from _WEAK on
    end: float  # seconds
    cpu: float  # seconds of processor time, decoding included


def read(path: Path) -> Readings:
    """Look at a clip once, for all settings."""
    weights, end = SSD_MOBILENET.folder(), inspect(path).end
    detector = Detector(str(weights / GRAPH), str(weights / LAYERS), _WEAK)
    found = Readings([], [], end, -time.process_time())
    for batch in FileSource(path, 1.0, width=SIDE, height=SIDE, batch=4).frames():
        found.times += batch.times.tolist()
        found.sightings += [detector(picture) for picture in batch.pixels]
    found.cpu += time.process_time()
    return found


def lines_of(found: Readings, way: Objects) -> list[TextLine]:
    """The lines of these readings, as encoders/text/picture_reader.py leads them."""
    lines: list[TextLine] = []
    for first in np.arange(0, found.end, SPAN_S):
        stop = min(first + SPAN_S, found.end)
        tracker = SightingTracker("v", "object", way.score, way.gap, min(way.minimum, found.end))
        for at, sightings in zip(found.times, found.sightings, strict=True):
            if first <= at < stop and (at + 1e-3) % way.every < 0.5:
                tracker.take(at, [one for one in sightings if one.score >= way.keep], at)
        lines += tracker.finish(stop)
    return lines


def measure(found: Readings, way: Objects, seen: Seen) -> Count:
    """The lines of a clip beside the truth."""
    count, lines = Count(), lines_of(found, way)
    names = {line.text for line in lines} | set(seen.things)
    for name in sorted(names - set(seen.unsure)):
        for second in np.arange(0, found.end, 1.0):
            said = any(x.text == name and x.start <= second < x.end for x in lines)
            there = any(first <= second < last for first, last in seen.things.get(name, ()))
            count.right += said and there
            count.wrong += said and not there
            count.missed += there and not said
    count.wrong_lines = tuple(
        line
        for line in lines
        if line.text not in seen.unsure
        and not any(
            first < line.end and last > line.start for first, last in seen.things.get(line.text, ())
        )
    )
    return count


def share(part: int, whole: int) -> str:
    """Percent; a dash of nothing."""
    return f"{100 * part / whole:.0f}" if whole else "-"


def interval(counts: list[Count], *, is_recall: bool) -> str:
    """95 % of the share over clips drawn with replacement."""
    rng = np.random.default_rng(0)
    parts = np.array([one.right for one in counts])
    wholes = parts + np.array([one.missed if is_recall else one.wrong for one in counts])
    picks = rng.integers(0, len(counts), (_DRAWS, len(counts)))
    drawn = parts[picks].sum(1) / np.maximum(wholes[picks].sum(1), 1)
    low, high = np.percentile(100 * drawn, [2.5, 97.5])
    return f"{low:.0f}-{high:.0f}"


def sheet(path: Path, folder: Path) -> None:
    """Write the pictures of a clip, one a second, with what the detector sees."""
    weights = SSD_MOBILENET.folder()
    detector = Detector(str(weights / GRAPH), str(weights / LAYERS), _WEAK)
    cells = []
    small = FileSource(path, 1.0, width=SIDE, height=SIDE).frames()
    large = FileSource(path, 1.0, width=_CELL[0], height=_CELL[1]).frames()
    for squares, pictures in zip(small, large, strict=True):
        for square, picture, at in zip(
            squares.pixels, pictures.pixels, pictures.times.tolist(), strict=True
        ):
            cell = Image.fromarray(picture)
            draw = ImageDraw.Draw(cell)
            for one in detector(square):
                color = "red" if one.score >= WAYS["default"].score else "yellow"
                left, top, right, bottom = one.box or (0, 0, 1, 1)
                sides = (left * _CELL[0], top * _CELL[1])
                draw.rectangle((*sides, right * _CELL[0], bottom * _CELL[1]), outline=color)
                draw.text(sides, f"{one.name} {one.score:.2f}", fill=color)
            draw.text((2, _CELL[1] - 12), f"{at:.0f} s", fill="white")
            cells.append(cell)
    page = Image.new("RGB", (_COLUMNS * _CELL[0], -(-len(cells) // _COLUMNS) * _CELL[1]))
    for number, cell in enumerate(cells):
        page.paste(cell, (number % _COLUMNS * _CELL[0], number // _COLUMNS * _CELL[1]))
    folder.mkdir(parents=True, exist_ok=True)
    page.save(folder / f"{path.stem}.png")


def clip_rows(paths: list[Path], counts: dict[str, list[Count]]) -> Iterator[str]:
    """The table by clip, at the defaults."""
    yield "| clip | right, seconds | wrong | missed | precision % | recall % | wrong lines |"
    yield "|---|---|---|---|---|---|---|"
    for path, one in zip(paths, counts["default"], strict=True):
        said, there = one.right + one.wrong, one.right + one.missed
        lines = ", ".join(
            f"{line.text} {line.confidence:.2f} at {line.start:.0f}-{line.end:.0f} s"
            for line in one.wrong_lines
        )
        yield (
            f"| {path.stem} | {one.right} | {one.wrong} | {one.missed} | "
            f"{share(one.right, said)} | {share(one.right, there)} | {lines} |"
        )


def way_rows(counts: dict[str, list[Count]]) -> Iterator[str]:
    """The table by setting, over all clips."""
    yield "| setting | precision % | recall % | wrong lines |"
    yield "|---|---|---|---|"
    for name, ones in counts.items():
        right, wrong = sum(one.right for one in ones), sum(one.wrong for one in ones)
        missed = sum(one.missed for one in ones)
        yield (
            f"| {name} | {share(right, right + wrong)} ({interval(ones, is_recall=False)}) | "
            f"{share(right, right + missed)} ({interval(ones, is_recall=True)}) | "
            f"{sum(len(one.wrong_lines) for one in ones)} |"
        )


def report(args: argparse.Namespace) -> None:
    """Measure every clip with every setting."""
    paths = sorted(path for path in args.folder.iterdir() if path.name in TRUTH)
    if args.sheets is not None:
        for path in paths:
            sheet(path, args.sheets)
    read(paths[0])  # the network is loaded once
    readings = [read(path) for path in paths]
    counts = {
        name: [
            measure(found, way, TRUTH[path.name])
            for path, found in zip(paths, readings, strict=True)
        ]
        for name, way in WAYS.items()
    }
    looks, cpu = sum(len(one.times) for one in readings), sum(one.cpu for one in readings)
    print(
        f"{len(paths)} clips, {sum(one.end for one in readings):.0f} s, {looks} looks: "
        f"{1000 * cpu / looks:.0f} ms of CPU each, the film decoded\n"
    )
    for row in (*clip_rows(paths, counts), "", *way_rows(counts)):
        print(row)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
