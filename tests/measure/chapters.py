"""Chapters of a summary against known borders: talks in a row, cut again by their words.

    python -m tests.measure.chapters [--set test] [--films 20] [--grid]

Talks: tests/data/quotes, joined by tests/support/quoted_films.py without a longer pause between
them. Lines are those that were written, and vectors come from MiniLM. --grid: the numbers of the
method by meaning on the set, which is then no test.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.text.mean_pooled_encoder import MeanPooledEncoder
from pipeline.summary.sentences import Sentence, sentences
from pipeline.summary.text_tiling import TextTiling
from pipeline.summary.topic_partition import TopicPartition
from pipeline.summary.word_rows import word_rows
from tests.support import measurement_page
from tests.support.quoted_films import QuotedFilm, films, joined

NEAR_S = 5.0
SHORTEST_S = 30.0  # as in the summary of a film of up to ten minutes
_SEED = 11


@dataclass(frozen=True)
class Talks:
    """Some talks in a row."""

    said: list[Sentence]
    meaning: np.ndarray  # [n, E]
    words: np.ndarray  # [n, W]
    borders: list[float]  # seconds
    end: float

    @property
    def starts(self) -> list[float]:
        return [each.start for each in self.said]

    def number(self, second: float) -> int:
        """Of the sentence that begins nearest to a second."""
        return int(np.argmin([abs(start - second) for start in self.starts]))


Find = Callable[[Talks], Sequence[float]]  # -> seconds of the borders


def make(talks: Sequence[QuotedFilm], encoder: MeanPooledEncoder) -> Talks:
    """One film of some talks."""
    film, borders = joined(talks)
    said = [each for each in sentences(film.text_lines("v")) if each.kind == "subtitle"]
    texts = [each.text for each in said]
    return Talks(said, encoder.embed(texts).numpy(), word_rows(texts), borders, film.seconds)


def arms() -> dict[str, Find]:
    """Name -> borders."""

    def found(method: TopicPartition | TextTiling, rows: Callable[[Talks], np.ndarray]) -> Find:
        return lambda film: [
            film.starts[number] for number in method.borders(rows(film), film.starts, film.end)
        ]

    def uniform(film: Talks) -> list[float]:
        parts = len(film.borders) + 1
        return [film.end * number / parts for number in range(1, parts)]

    return {
        "by meaning: `TopicPartition`": found(
            TopicPartition(SHORTEST_S), lambda film: film.meaning
        ),
        "by words: `TextTiling`": found(TextTiling(SHORTEST_S), lambda film: film.words),
        "`TextTiling` over the vectors": found(TextTiling(SHORTEST_S), lambda film: film.meaning),
        "even parts, as many as there are talks": uniform,
        "no border": lambda film: [],
    }


def scores(film: Talks, borders: Sequence[float]) -> dict[str, float]:
    """Counts of one film, its WindowDiff (Pevzner and Hearst 2002) and Pk (Beeferman 1999)."""
    left = list(film.borders)
    hits, off = 0, []
    for border in borders:
        near = min(left, key=lambda each: abs(each - border), default=None)
        if near is not None and abs(near - border) <= NEAR_S:
            left.remove(near)
            hits += 1
            off.append(abs(near - border))
    count = len(film.said)
    truth, guess = np.zeros(count), np.zeros(count)
    truth[[film.number(each) for each in film.borders]] = 1
    guess[[film.number(each) for each in borders]] = 1
    width = max(2, round(count / (len(film.borders) + 1) / 2))
    windows = range(count - width)
    inside = [
        (truth[at + 1 : at + width + 1].sum(), guess[at + 1 : at + width + 1].sum())
        for at in windows
    ]
    return {
        "hits": hits,
        "guessed": len(borders),
        "true": len(film.borders),
        "off": float(np.sum(off)),
        "window_diff": float(np.mean([a != b for a, b in inside])),
        "pk": float(np.mean([(a > 0) != (b > 0) for a, b in inside])),
    }


def figures(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of several films together."""
    total = {name: sum(row[name] for row in rows) for name in rows[0]}
    both = total["guessed"] + total["true"]
    return {
        "F1": 100 * 2 * total["hits"] / both if both else 0.0,
        "precision": 100 * total["hits"] / total["guessed"] if total["guessed"] else 0.0,
        "recall": 100 * total["hits"] / total["true"] if total["true"] else 0.0,
        "WindowDiff": total["window_diff"] / len(rows),
        "Pk": total["pk"] / len(rows),
        "seconds off": total["off"] / total["hits"] if total["hits"] else float("nan"),
    }


def intervals(rows: Sequence[dict[str, float]]) -> dict[str, str]:
    """Figure -> value with 95 % of a bootstrap over films."""
    rng = np.random.default_rng(_SEED)
    drawn = [
        figures([rows[n] for n in rng.integers(len(rows), size=len(rows))]) for _ in range(1000)
    ]
    cells = {}
    for name, value in figures(rows).items():
        digits = 2 if name in ("WindowDiff", "Pk") else 1
        if np.isnan(value):
            cells[name] = ""
            continue
        low, high = np.nanpercentile([each[name] for each in drawn], [2.5, 97.5])
        cells[name] = f"{value:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
    return cells


def report(args: argparse.Namespace) -> None:
    """Print the table, or the grid."""
    talks, encoder = films(args.set), MeanPooledEncoder()
    rng = np.random.default_rng(_SEED)
    sample = []
    for _ in range(args.films):
        count = int(rng.integers(3, min(len(talks), 6) + 1))
        sample.append(make([talks[n] for n in rng.permutation(len(talks))[:count]], encoder))
    single = [make([talk], encoder) for talk in talks]
    borders = sum(len(film.borders) for film in sample)
    print(
        f"{len(sample)} films of 3 to {min(len(talks), 6)} talks of the set `{args.set}`, "
        f"{borders} borders; a border is right within {NEAR_S:g} s\n"
    )
    if args.grid:
        _grid(sample, single)
        return
    names = list(figures([scores(sample[0], [])]))
    print("| | " + " | ".join(names) + f" | false borders in {len(single)} single talks |")
    print("|---" * (len(names) + 2) + "|")
    for arm, find in arms().items():
        cells = intervals([scores(film, find(film)) for film in sample])
        false = sum(len(find(film)) for film in single)
        print(f"| {arm} | " + " | ".join(cells[name] for name in names) + f" | {false} |")


def _grid(sample: Sequence[Talks], single: Sequence[Talks]) -> None:
    print("| cost of a chapter | shortest | F1 | precision | recall | WindowDiff | false borders |")
    print("|---" * 7 + "|")
    for cost in (1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 2.0):
        for shortest in (20.0, 30.0):
            method = TopicPartition(shortest, cost)

            def find(film: Talks, method: TopicPartition = method) -> list[float]:
                numbers = method.borders(film.meaning, film.starts, film.end)
                return [film.starts[number] for number in numbers]

            found = figures([scores(film, find(film)) for film in sample])
            false = sum(len(find(film)) for film in single)
            print(
                f"| {cost} | {shortest:g} | {found['F1']:.1f} | {found['precision']:.1f} | "
                f"{found['recall']:.1f} | {found['WindowDiff']:.3f} | {false} |"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="test", choices=("test", "calibration"))
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--grid", action="store_true")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
