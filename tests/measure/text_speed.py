"""How long a search takes over 1,000 videos with 1,000,000 lines, by words and by vectors.

    python -m tests.measure.text_speed

Words are drawn as they are in speech: a few make up most of a talk (Zipf's law), and names are
rare. A tenth of the lines is print. Vectors are random, because a search reads all of them anyway,
and each question lies near a line. Embedding the question is the model's time and does not count.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.schema import VideoInfo
from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.storage.catalog import VideoRow
from memory.store import DiskStore
from memory.text import nearest
from memory.text.bm25 import LineFilter, search
from memory.text.tokenizer import STOP, query
from tests.support import measurement_page

VIDEOS, LINES, WORDS = 1000, 1000, 50_000  # LINES: of each video
WIDTH = 384
SEARCHES = 20  # of each kind
SMALL_WORDS = sorted(STOP)[:60]
SYLLABLES = "ba do ke li mu na po ri sa tu ve zo gra ster lin mor".split()


@dataclass(frozen=True)
class Timing:
    """Searches of one kind; milliseconds, one number for each search."""

    kind: str
    wall: list[float]
    cpu: list[float]
    hits: int  # by words: lines of all searches; by vectors: searches with the right line first

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    def row(self) -> str:
        return (
            f"| {self.kind} | {self.median:.0f} | {max(self.wall):.0f} | {max(self.cpu):.0f} | "
            f"{self.hits} | {len(self.wall)} |"
        )


def vocabulary(rng: np.random.Generator) -> np.ndarray:
    """Words of made-up syllables; the first ones are ordinary stop words."""
    words = dict.fromkeys(SMALL_WORDS)
    while len(words) < WORDS:
        picks = rng.integers(0, len(SYLLABLES), int(rng.integers(2, 5)))
        words["".join(SYLLABLES[i] for i in picks)] = None
    return np.array(list(words))


def fill(store: DiskStore, words: np.ndarray, videos: int) -> None:
    """Write the lines of that many videos."""
    rng = np.random.default_rng(1)
    share = 1.0 / np.arange(1, len(words) + 1)
    steps = np.cumsum(share / share.sum())
    for number in range(videos):
        video_id = f"v{number:04d}"
        store.record(
            VideoRow(VideoInfo(video_id, f"{video_id}.mp4", 4.0 * LINES, "decord"), 1.0, True)
        )
        picks = np.searchsorted(steps, rng.random((LINES, 9)), side="right")
        drawn = words[picks.clip(max=len(words) - 1)]
        for extractor, kind, part in (
            ("subtitles", "subtitle", slice(0, 900)),
            ("ocr", "ocr", slice(900, None)),
        ):
            lines = tuple(
                TextLine(
                    video_id,
                    4.0 * i,
                    4.0 * i + 3.5,
                    kind,
                    " ".join(row[: int(rng.integers(4, 10))]),
                    4.0 * i + 3.5,
                )
                for i, row in enumerate(drawn[part])
            )
            store.text.put(
                TextBlock(video_id, extractor, "made up", 0, TextSpan(0, 4.0 * LINES, lines, True))
            )


def create(root: Path) -> DiskStore:
    """A store with a million lines. Prints how long writing takes."""
    store = DiskStore(root)
    began = time.perf_counter()
    fill(store, vocabulary(np.random.default_rng(0)), VIDEOS)
    size = (root / "catalog.sqlite").stat().st_size / 1e6
    print(
        f"{VIDEOS * LINES:,} lines of {VIDEOS:,} videos written in "
        f"{time.perf_counter() - began:.0f} s; catalog {size:.0f} MB\n"
    )
    return store


def questions(
    words: np.ndarray, rng: np.random.Generator
) -> dict[str, list[tuple[str, LineFilter]]]:
    """(text, filter) of each search, by what makes a kind easy or hard."""

    def some(low: int, high: int, count: int = 3) -> str:
        return " ".join(words[rng.integers(low, high, count)])

    def searches(
        low: int,
        high: int,
        limits: LineFilter = LineFilter(),  # noqa: B008
    ) -> list[tuple[str, LineFilter]]:
        return [(some(low, high), limits) for _ in range(SEARCHES)]

    first = len(SMALL_WORDS)  # word that is not a stop word
    return {
        "rare words": searches(5000, WORDS),
        "a rare and two usual words": [
            (f"{some(5000, WORDS, 1)} {some(first, 500, 2)}", LineFilter()) for _ in range(SEARCHES)
        ],
        "the commonest words that are not stop words": searches(first, first + 10),
        "stop words alone": searches(0, first),
        "a whole sentence": [
            (f"what did they say about {some(0, 3000, 9)}?", LineFilter()) for _ in range(SEARCHES)
        ],
        "a quoted phrase of common words": [
            (f'"{some(first, first + 10, 2)}"', LineFilter()) for _ in range(SEARCHES)
        ],
        "print alone": searches(first, 3000, LineFilter(kinds=("ocr",))),
        "one video": searches(first, 3000, LineFilter(video_id="v0500")),
        "one video, asked in the middle": searches(
            first, 3000, LineFilter(video_id="v0500", asked_at=2000.0)
        ),
        "the second half hour": searches(first, 3000, LineFilter(start=1800.0)),
    }


def by_words(store: DiskStore) -> list[Timing]:
    """Search the store by words, 20 times for each kind."""
    timings = []
    words = vocabulary(np.random.default_rng(0))
    for kind, searches in questions(words, np.random.default_rng(2)).items():
        wall, cpu, lines = [], [], 0
        for text, limits in searches:
            began, used = time.perf_counter(), time.thread_time()
            lines += len(search(store.text.rows, query(text), limits))
            wall.append(1e3 * (time.perf_counter() - began))
            cpu.append(1e3 * (time.thread_time() - used))
        timings.append(Timing(kind, wall, cpu, lines))
    return timings


def by_vectors(store: DiskStore) -> list[Timing]:
    """Give every line a random vector and search near some of them, 20 times for each kind."""
    rng = np.random.default_rng(3)
    vectors, picked = store.text.vectors, []
    began = time.perf_counter()
    for video in store.catalog.videos():
        for run, row in list(vectors.missing(video.info.video_id)):
            rows = rng.standard_normal((row.lines, WIDTH)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            vectors.put(run, row, rows, "random")
            picked.append((row.first_id, rows[0]))
    written = time.perf_counter() - began
    began = time.perf_counter()
    count = vectors.count()
    print(
        f"\n{count:,} vectors of {WIDTH} written in {written:.0f} s, read at the first question in "
        f"{time.perf_counter() - began:.1f} s; {vectors.nbytes / 1e6:.0f} MB in RAM\n"
    )
    timings = []
    for kind, limits in {
        "vectors": LineFilter(),
        "vectors, print alone": LineFilter(kinds=("ocr",)),
        "vectors, the second half hour": LineFilter(start=1800.0),
        "vectors, one video": LineFilter("v0500"),
    }.items():
        wall, cpu, right = [], [], 0
        for number in rng.integers(0, len(picked), SEARCHES):
            line_id, near = picked[number]
            near = near + 0.05 * rng.standard_normal(WIDTH).astype(np.float32)
            near /= np.linalg.norm(near)
            began, used = time.perf_counter(), time.thread_time()
            lines = nearest.search(store.text.rows, vectors, near, limits, 50)
            wall.append(1e3 * (time.perf_counter() - began))
            cpu.append(1e3 * (time.thread_time() - used))
            right += bool(lines) and lines[0].line == store.text.rows.lines([line_id])[line_id]
        timings.append(Timing(kind, wall, cpu, right))
    return timings


def table(timings: list[Timing], hits: str) -> str:
    """Timings as Markdown; `hits` is the head of that column."""
    head = f"| query | median ms | longest ms | longest CPU ms | {hits} | n |"
    return "\n".join([head, "|---" * 6 + "|", *(timing.row() for timing in timings)])


def report(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = create(Path(folder))
        print(table(by_words(store), "lines"), flush=True)
        print(table(by_vectors(store), "right line first"))
        store.close()


def main() -> None:
    """Read the command line."""
    measurement_page.run(argparse.ArgumentParser(description=__doc__), report)


if __name__ == "__main__":
    main()
