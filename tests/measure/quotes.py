"""Answers in a film's own words: the right line first, the truth in the answer, and refusals.

    python -m tests.measure.quotes [--set test] [--source exact] [--encoders minilm] [--fit]

Films and questions: tests/data/quotes (tests/support/quoted_films.py). An arm for each sentence
encoder, and one where lines are found by words alone. --source exact: the lines as written;
extract: subtitle files and print by the real extractors; speech: espeak-ng says the talks and
text=asr hears them. --fit: fits the confidence by words on the set, which is then no test. --rows:
each question, which nobody who changes the judge may see of the sets test and confirmation.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from encoders.sources.container import inspect
from encoders.text.lines import (
    SentenceEncoder,
    TextBlock,
    TextExtractor,
    TextLine,
    TextSpan,
    VideoFile,
)
from encoders.text.mean_pooled_encoder import MeanPooledEncoder, MpnetEncoder
from encoders.text.ocr import Ocr
from encoders.text.speech.asr import Asr
from encoders.text.subtitles import Subtitles
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from memory.text import tokenizer
from pipeline.answer.quotes.quoter import Calibration, Features, Quoter
from pipeline.ingest.text import embed_lines
from tests.support import measurement_page
from tests.support.quoted_films import FilmQuestion, QuotedFilm, films
from tests.support.records import info
from tests.support.voices import film_with_sound, speak

ENCODERS: dict[str, Callable[[], SentenceEncoder]] = {
    "minilm": MeanPooledEncoder,
    "mpnet": MpnetEncoder,
}
Lines = dict[str, tuple[TextLine, ...]]  # extractor -> lines
SETS = ("test", "confirmation", "calibration", "training", "other_languages")


@dataclass(frozen=True)
class Outcome:
    """A question and what came back."""

    film: str
    question: FilmQuestion
    text: str  # of the best quotation, said or not
    right_line: bool
    confidence: float
    is_said: bool
    features: Features | None
    seconds: float  # CPU

    @property
    def has_truth(self) -> bool:
        return self.question.is_answered_by(self.text.partition(" ")[2])


@contextmanager
def bank_of(
    sample: Sequence[QuotedFilm], lines: Sequence[Lines], source: str
) -> Iterator[MemoryBank]:
    """A bank with the lines of the films."""
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryBank.open(
            Path(folder) / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
        ) as bank,
    ):
        for film, found in zip(sample, lines, strict=True):
            bank.record_video(info(film.name), 1.0, finished=True)
            for extractor, of_film in found.items():
                span = TextSpan(0, film.seconds, of_film, True)
                bank.text.write(TextBlock(film.name, extractor, source, 0, span))
        yield bank


def lines_of(film: QuotedFilm, source: str, folder: Path) -> Lines:
    """Extractor -> lines."""
    if source == "exact":
        exact = film.text_lines(film.name)
        kinds = {"subtitles": "subtitle", "ocr": "ocr"}
        by_kind = {
            name: tuple(line for line in exact if line.kind == kind) for name, kind in kinds.items()
        }
        return {name: lines for name, lines in by_kind.items() if lines}
    path = folder / f"{film.name}.mp4"
    extractors: list[TextExtractor] = []
    if source == "speech":
        film_with_sound(path, *spoken(film, folder))
        extractors.append(Asr())
    else:
        film.write(path)
        extractors += [Subtitles(), *([Ocr()] if film.has_slides else [])]
    video = VideoFile(film.name, path, duration=float(inspect(path).duration))
    return {
        extractor.name: tuple(line for span in extractor.spans(video) for line in span.lines)
        for extractor in extractors
    }


def spoken(film: QuotedFilm, folder: Path) -> tuple[np.ndarray, int]:
    """[n] int16 samples of espeak-ng saying the talk, and their rate."""
    parts, rate = [], 0
    for line in film.lines:
        if line.kind == "subtitle":
            samples, rate = speak(line.text, folder)
            parts += [samples, np.zeros(round(0.45 * rate), np.int16)]
    return np.concatenate(parts), rate


def is_right(words: str, gold: str) -> bool:
    """Whether a quotation has most words of the line that answers; a recognizer may err."""
    own, other = set(tokenizer.words(gold)), set(tokenizer.words(words))
    return len(own & other) >= 0.6 * len(own)


def ask(
    bank: MemoryBank, encoder: SentenceEncoder | None, sample: Sequence[QuotedFilm]
) -> list[Outcome]:
    """Every question of the films."""
    quoter, outcomes = Quoter(bank, encoder), []
    for film in sample:
        for question in film.questions:
            began = time.process_time()
            asked, durations = Question(question.text, film.name), {film.name: film.seconds}
            quotation = quoter.quote(asked, durations)
            spent = time.process_time() - began
            features = None if encoder else quoter.features(asked, durations)
            if quotation is None:
                outcomes.append(Outcome(film.name, question, "", False, 0.0, False, None, spent))
                continue
            words = " ".join(line.text for line in quotation.lines)
            gold = {
                line.text for line in film.lines if question.line and question.line in line.text
            }
            outcomes.append(
                Outcome(
                    film.name,
                    question,
                    f"{quotation.lines[0].start:.0f} {words}",
                    any(is_right(words, line) for line in gold),
                    quotation.confidence,
                    quotation.is_said,
                    features,
                    spent,
                )
            )
    return outcomes


def fit(outcomes: Sequence[Outcome], l2: float = 0.05) -> Calibration:
    """Logistic regression of "the film says it"; both classes weigh the same."""
    known = [one for one in outcomes if one.features is not None]
    x = np.array([[f.agreement, f.margin, f.missing] for f in (one.features for one in known) if f])
    y = np.array([float(bool(one.question.truths)) for one in known])
    weight = np.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    mean, deviation = x.mean(0), x.std(0) + 1e-9
    z = np.column_stack([np.ones(len(x)), (x - mean) / deviation])
    w = np.zeros(4)
    ridge = np.diag([0.0, *[2 * l2 * len(x)] * 3])
    for _ in range(50):  # Newton
        p = 1 / (1 + np.exp(-z @ w))
        gradient = z.T @ (weight * (p - y)) + ridge @ w
        hessian = (z * (weight * p * (1 - p))[:, None]).T @ z + ridge
        w -= np.linalg.solve(hessian, gradient)
    raw = w[1:] / deviation
    agreement, margin, missing = (float(each) for each in raw)
    found = Calibration(float(w[0] - raw @ mean), agreement, margin, missing, 0.5)
    scores = np.array([found.confidence(one.features) for one in known if one.features])
    levels = np.sort(scores)
    best = max(levels, key=lambda t: min((scores[y > 0] >= t).mean(), (scores[y < 1] < t).mean()))
    below = scores[scores < best].max(initial=0.0)
    return replace(found, threshold=float(best + below) / 2)


def left_out(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Shares kept and refused where each film is judged by a fit on the others."""
    kept: list[bool] = []
    refused: list[bool] = []
    for film in dict.fromkeys(one.film for one in outcomes):
        found = fit([one for one in outcomes if one.film != film])
        for one in outcomes:
            if one.film == film:
                is_said = (
                    one.features is not None and found.confidence(one.features) >= found.threshold
                )
                (kept if one.question.truths else refused).append(is_said)
    return float(np.mean(kept)), 1 - float(np.mean(refused))


def interval(hits: Sequence[tuple[str, bool]]) -> str:
    """Per cent, n, and 95 % of a bootstrap that draws whole films."""
    rng = np.random.default_rng(7)
    names = sorted({film for film, _ in hits})
    by_film = {name: np.array([hit for film, hit in hits if film == name]) for name in names}
    means = []
    for _ in range(4000):
        drawn = [by_film[names[i]] for i in rng.integers(len(names), size=len(names))]
        means.append(np.concatenate(drawn).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    share = float(np.mean([hit for _, hit in hits]))
    return f"{100 * share:.1f} ({100 * low:.1f}-{100 * high:.1f}), n={len(hits)}"


def report(args: argparse.Namespace) -> None:
    """Ask both arms and print a table."""
    sample = films(args.set)
    if args.source == "speech":
        sample = tuple(film for film in sample if not film.has_slides)
    columns: dict[str, Callable[[Outcome], bool]] = {
        "right line first": lambda one: one.right_line,
        "truth in the best quotation": lambda one: one.has_truth,
        "answered": lambda one: one.is_said,
        "answered with the truth": lambda one: one.is_said and one.has_truth,
    }
    with tempfile.TemporaryDirectory() as folder:
        lines = [lines_of(film, args.source, Path(folder)) for film in sample]
    arms = {}
    for name in args.encoders:  # a bank has vectors of one encoder
        encoder = ENCODERS[name]()
        with bank_of(sample, lines, args.source) as bank:
            for film in sample:
                embed_lines(bank, encoder, film.name)
            arms[f"words + meaning (dense={name})"] = ask(bank, encoder, sample)
    with bank_of(sample, lines, args.source) as bank:
        arms["words (dense=none)"] = ask(bank, None, sample)
    print(f"{len(sample)} films of the set `{args.set}`, lines: {args.source}\n")
    print("| | " + " | ".join([*columns, "not said: refused", "CPU s a question"]) + " |")
    print("|---" * (len(columns) + 3) + "|")
    for arm, outcomes in arms.items():
        for words in ("", "same", "other"):
            rows = [
                one for one in outcomes if one.question.truths and words in ("", one.question.words)
            ]
            cells = [
                interval([(one.film, is_hit(one)) for one in rows]) for is_hit in columns.values()
            ]
            absent = [(one.film, not one.is_said) for one in outcomes if not one.question.truths]
            cells += [interval(absent) if not words else ""]
            cells += [f"{np.mean([one.seconds for one in outcomes]):.3f}" if not words else ""]
            print(f"| {arm}{f', {words} words' if words else ''} | " + " | ".join(cells) + " |")
    if args.fit:
        outcomes = arms["words (dense=none)"]
        print(f"\nby words: {fit(outcomes)}; left out: kept, refused {left_out(outcomes)}")
    if args.rows:
        for arm, outcomes in arms.items():
            print(f"\n{arm}:")
            for one in outcomes:
                mark = "said" if one.is_said else "-"
                judged = "" if not one.question.truths else f"{one.right_line:d}{one.has_truth:d}"
                print(
                    f"{one.film} | {one.question.words} | {judged} | {mark} {one.confidence:.2f} | "
                    f"{one.question.text} | {one.text}"
                )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="test", choices=SETS)
    parser.add_argument("--source", default="exact", choices=("exact", "extract", "speech"))
    parser.add_argument("--encoders", nargs="*", default=["minilm"], choices=tuple(ENCODERS))
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--rows", action="store_true")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
