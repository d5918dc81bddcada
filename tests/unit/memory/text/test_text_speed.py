"""How long a search takes over 1,000 videos with 1,000,000 lines; slow, prints what it measured.

Words are drawn as they are in speech: a few make up most of what is said (Zipf), names are rare. A tenth of the lines is print.
"""

import statistics
import time

import numpy as np
import pytest

from encoders.schema import VideoInfo
from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.storage.catalog import VideoRow
from memory.store import DiskStore
from memory.text import nearest
from memory.text.bm25 import LineFilter, search
from memory.text.tokenizer import STOP, query

VIDEOS, LINES, WORDS = 1000, 1000, 50_000
WIDTH = 384
LIMIT_MS = 100.0
SMALL_WORDS = sorted(STOP)[:60]


def vocabulary(rng: np.random.Generator) -> np.ndarray:
    """Made-up words, the first ones ordinary small words."""
    parts = [
        "ba",
        "do",
        "ke",
        "li",
        "mu",
        "na",
        "po",
        "ri",
        "sa",
        "tu",
        "ve",
        "zo",
        "gra",
        "ster",
        "lin",
        "mor",
    ]
    made = dict.fromkeys(SMALL_WORDS)
    while len(made) < WORDS:
        made["".join(parts[i] for i in rng.integers(0, len(parts), int(rng.integers(2, 5))))] = None
    return np.array(list(made))


def fill(store: DiskStore, words: np.ndarray, videos: int) -> None:
    rng = np.random.default_rng(1)
    share = 1.0 / np.arange(1, len(words) + 1)
    steps = np.cumsum(share / share.sum())
    for number in range(videos):
        video_id = f"v{number:04d}"
        store.record(
            VideoRow(VideoInfo(video_id, f"{video_id}.mp4", 4.0 * LINES, "decord"), 1.0, True)
        )
        drawn = words[
            np.searchsorted(steps, rng.random((LINES, 9)), side="right").clip(max=len(words) - 1)
        ]
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


def questions(
    words: np.ndarray, rng: np.random.Generator
) -> dict[str, list[tuple[str, LineFilter]]]:
    """By what makes them easy or hard."""

    def some(low: int, high: int, count: int = 3) -> str:
        return " ".join(words[rng.integers(low, high, count)])

    def made(
        low: int,
        high: int,
        wanted: LineFilter = LineFilter(),  # noqa: B008
    ) -> list[tuple[str, LineFilter]]:
        return [(some(low, high), wanted) for _ in range(20)]

    telling = len(SMALL_WORDS)
    return {
        "rare words": made(5000, WORDS),
        "a rare and two usual words": [
            (f"{some(5000, WORDS, 1)} {some(telling, 500, 2)}", LineFilter()) for _ in range(20)
        ],
        "the commonest words that tell anything": made(telling, telling + 10),
        "small words alone": made(0, telling),
        "a whole sentence": [
            (f"what did they say about {some(0, 3000, 9)}?", LineFilter()) for _ in range(20)
        ],
        "a quoted phrase of common words": [
            (f'"{some(telling, telling + 10, 2)}"', LineFilter()) for _ in range(20)
        ],
        "print alone": made(telling, 3000, LineFilter(kinds=("ocr",))),
        "one video": made(telling, 3000, LineFilter(video_id="v0500")),
        "one video, asked in the middle": made(
            telling, 3000, LineFilter(video_id="v0500", asked_at=2000.0)
        ),
        "the second half hour": made(telling, 3000, LineFilter(start=1800.0)),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("million")
    opened = DiskStore(root)
    begun = time.perf_counter()
    fill(opened, vocabulary(np.random.default_rng(0)), VIDEOS)
    size = (root / "catalog.sqlite").stat().st_size / 1e6
    print(
        f"\n{VIDEOS * LINES:,} lines of {VIDEOS:,} videos written in {time.perf_counter() - begun:.0f} s; catalog {size:.0f} MB"
    )
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_million_lines_in_a_tenth_of_a_second(store: DiskStore) -> None:
    """Held to the limit: the median, and the longest in CPU time, which does not depend on what else the machine does. What is
    printed is for docs/measurements."""
    words = vocabulary(np.random.default_rng(0))
    medians, spent = [], []
    for name, asked in questions(words, np.random.default_rng(2)).items():
        took, cpu, found = [], [], 0
        for text, wanted in asked:
            begun, used = time.perf_counter(), time.thread_time()
            found += len(search(store.text.rows, query(text), wanted))
            took.append(1e3 * (time.perf_counter() - begun))
            cpu.append(1e3 * (time.thread_time() - used))
        spent.append(max(cpu))
        medians.append(statistics.median(took))
        longest = f"longest {max(took):.0f} ms, {max(cpu):.0f} ms of CPU time"
        print(
            f"{name}: median {medians[-1]:.0f} ms, {longest} (n={len(took)}), {found} lines found"
        )
    assert max(medians) < LIMIT_MS and max(spent) < LIMIT_MS


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_million_vectors_in_a_tenth_of_a_second(store: DiskStore) -> None:
    """Random vectors, as a search reads all of them whatever they are; questions near a line. Embedding the question comes on
    top, and is the model's."""
    rng = np.random.default_rng(3)
    vectors, picked = store.text.vectors, []
    begun = time.perf_counter()
    for video in store.catalog.videos():
        for run, row in list(vectors.missing(video.info.video_id)):
            rows = rng.standard_normal((row.lines, WIDTH)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            vectors.put(run, row, rows, "random")
            picked.append((row.first_id, rows[0]))
    written = time.perf_counter() - begun
    begun = time.perf_counter()
    count = vectors.count()
    print(
        f"\n{count:,} vectors of {WIDTH} written in {written:.0f} s, read at the first question in "
        f"{time.perf_counter() - begun:.1f} s; {vectors.nbytes / 1e6:.0f} MB in RAM"
    )
    medians = []
    for name, wanted in {
        "all": LineFilter(),
        "print alone": LineFilter(kinds=("ocr",)),
        "the second half hour": LineFilter(start=1800.0),
        "one video": LineFilter("v0500"),
    }.items():
        took, right = [], 0
        for number in rng.integers(0, len(picked), 20):
            id_, near = picked[number]
            near = near + 0.05 * rng.standard_normal(WIDTH).astype(np.float32)
            near /= np.linalg.norm(near)
            begun = time.perf_counter()
            found = nearest.search(store.text.rows, vectors, near, wanted, 50)
            took.append(1e3 * (time.perf_counter() - begun))
            right += bool(found) and found[0].line == store.text.rows.lines([id_])[id_]
        medians.append(statistics.median(took))
        print(
            f"vectors, {name}: median {medians[-1]:.0f} ms, longest {max(took):.0f} ms (n={len(took)}), {right} found first"
        )
        assert name != "all" or right == len(took)
    assert max(medians) < LIMIT_MS
