"""How much print OCR finds, and at which cost, for several ways to choose frames.

    python -m tests.measure.ocr FOLDER [--phrases 210]

The program writes lectures (tests/support/lectures.py) to a real H.264 file, reads it as `text=ocr`
does, and prints a table. A frame that several ways choose is read once. A phrase counts as found if
a line begins within two seconds of its first appearance and differs in at most a fifth of its
letters. It takes minutes, most of them for writing the film and for reading.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from encoders.sources.file import FileSource
from encoders.text import ocr_worker
from encoders.text.keyframe_selector import KeyframeSelector
from encoders.text.line_tracker import LineTracker, edit_distance
from encoders.text.lines import TextLine, VideoFile
from encoders.text.ocr import CREDIT, Ocr, credit_per_second, size_of
from encoders.text.picture_reader import SPAN_S
from tests.support import measurement_page
from tests.support.lectures import Lecture, Phrase, plan

WAYS = {
    "change, one in 4 s": Ocr(),
    "change, one in 8 s": Ocr(every=8.0),
    "steady, one in 4 s": Ocr(policy="steady"),
    "steady, one in 8 s": Ocr(policy="steady", every=8.0),
    "scene, one in 4 s": Ocr(policy="scene"),
}
SOON_S = 2.0


def recognition(phrase: Phrase, lines: list[TextLine]) -> tuple[bool, bool, bool]:
    """Whether a phrase is found at all, soon, and letter by letter."""
    mine = [
        line
        for line in lines
        if line.start < phrase.end and line.end > phrase.start and line.start >= phrase.start - 0.5
    ]
    alike = [line for line in mine if edit_distance(line.text, phrase.text) <= 0.2]
    soon = [line for line in alike if line.known <= phrase.start + SOON_S]
    return bool(alike), bool(soon), any(line.text == phrase.text for line in soon)


def interval(hits: list[bool], slides: list[int]) -> tuple[float, float]:
    """95 %, resampling slides: phrases of one slide are found or missed together."""
    rng, groups = np.random.default_rng(0), {}  # type: ignore[var-annotated]
    for hit, slide in zip(hits, slides, strict=True):
        groups.setdefault(slide, []).append(hit)
    parts = list(groups.values())
    shares = []
    for _ in range(2000):
        drawn = [hit for i in rng.integers(0, len(parts), len(parts)) for hit in parts[i]]
        shares.append(100 * float(np.mean(drawn)))
    return float(np.percentile(shares, 2.5)), float(np.percentile(shares, 97.5))


def report(args: argparse.Namespace) -> None:
    """Make and read the lecture, and print the table."""
    args.folder.mkdir(parents=True, exist_ok=True)
    phrases = plan(args.phrases)
    lecture = Lecture(phrases)
    path = args.folder / f"lecture-{len(phrases)}.mp4"
    if not path.exists():
        begun = time.perf_counter()
        lecture.write(path.with_suffix(".part.mp4"), fps=2.5)
        path.with_suffix(".part.mp4").rename(path)
        print(
            f"film: {lecture.seconds:.0f} s, made in {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
    video = VideoFile("lecture", path)
    width, height = size_of(video, 720)
    readings: dict[float, list[ocr_worker.OcrText]] = {}
    took: list[float] = []
    states: dict[str, tuple[KeyframeSelector, LineTracker, int]] = {}
    lines: dict[str, list[TextLine]] = {name: [] for name in WAYS}
    calls = dict.fromkeys(WAYS, 0)
    looking = dict.fromkeys(WAYS, 0.0)
    stretch, last = -1, 0.0
    for batch in FileSource(path, 2.0, width=width, height=height, batch=4).frames():
        for picture, at in zip(batch.pixels, batch.times.tolist(), strict=True):
            if int(at // SPAN_S) != stretch:  # as encoders/text/picture_reader.py begins anew
                for name, (_, repeats, _) in states.items():
                    lines[name] += repeats.finish(int(at // SPAN_S) * SPAN_S)
                stretch = int(at // SPAN_S)
                states = {
                    name: (
                        KeyframeSelector(
                            credit_per_second(way.every), CREDIT, way.policy, refresh=way.refresh
                        ),
                        LineTracker("lecture", way.alike, way.confidence),
                        0,
                    )
                    for name, way in WAYS.items()
                }
            for name in WAYS:
                chosen, repeats, _ = states[name]
                begun = time.process_time()
                is_chosen = chosen.wants(picture, at)
                looking[name] += time.process_time() - begun
                if not is_chosen:
                    continue
                if at not in readings:
                    begun = time.process_time()
                    readings[at] = ocr_worker.read(picture)
                    took.append(time.process_time() - begun)
                calls[name] += 1
                repeats.take(at, readings[at], chosen.changed_at or at)
                chosen.changed_at = None
            last = at
    for name, (_, repeats, _) in states.items():
        lines[name] += repeats.finish(last + 0.5)
    seconds = lecture.seconds
    print(
        f"{len(phrases)} phrases, {phrases[-1].slide + 1} slides, {seconds:.0f} s; a reading: "
        f"{np.median(took):.2f} s of CPU"
    )
    print(
        "| frames read | one call in | found within 2 s | to the letter | found at all | CPU s a "
        "minute of video |"
    )
    print("|---|---|---|---|---|---|")
    for name in WAYS:
        results = [recognition(phrase, lines[name]) for phrase in phrases]
        slides = [phrase.slide for phrase in phrases]
        soon = [each[1] for each in results]
        low, high = interval(soon, slides)
        shares = [100 * float(np.mean([each[i] for each in results])) for i in range(3)]
        cost = (calls[name] * float(np.mean(took)) + looking[name]) / seconds * 60
        print(
            f"| {name} | {seconds / calls[name]:.1f} s | {shares[1]:.1f} ({low:.1f}-{high:.1f}) | "
            f"{shares[2]:.1f} | "
            f"{shares[0]:.1f} | {cost:.1f} |"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--phrases", type=int, default=210)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
