"""Trains the judge of quotes (pipeline/answer/quotes/line_judge.py) for one sentence encoder.

    python -m tests.measure.quote_judge [--encoder minilm] [--save]

Films and questions: the sets `training` and `calibration` of tests/data/quotes; the sets `test` and
`confirmation` are not read. Every question is asked three times more: of the film without the line
that answers (so nothing does), of the film among others, and of both. Nested cross validation by
film: the inner one picks the design, the outer one says how well that goes with films that neither
saw. --save: trains on all films and writes the weights, with a confidence and a threshold that rest
on questions about films left out.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from encoders.text.lines import SentenceEncoder, TextBlock, TextSpan, WordVectors
from encoders.text.mean_pooled_encoder import MeanPooledEncoder, MpnetEncoder
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from pipeline.answer.quotes.agreement import Agreement
from pipeline.answer.quotes.line_judge import WEIGHTS, LineJudge, write
from pipeline.answer.quotes.quoter import Quoter
from pipeline.ingest.text import embed_lines
from tests.support import measurement_page
from tests.support.quoted_films import FilmLine, FilmQuestion, QuotedFilm, films
from tests.support.records import info

# how much a question weighs in training, by its kind
WEIGHT = {"answered": 1.0, "not said": 1.5, "removed": 0.3, "long": 0.5, "long, not said": 0.75}
NATURAL = ("answered", "not said")
FOLDS, INNER_FOLDS, SEEDS = 5, 3, 3


@dataclass(frozen=True)
class Design:
    """What cross validation chooses among."""

    hidden: int  # units; 0: linear
    decay: float  # of the squared weights


DESIGNS = (Design(0, 1e-3), Design(6, 3e-3), Design(12, 3e-3))


@dataclass(frozen=True)
class Sample:
    """A question, its lines in numbers, and which of them answer."""

    film: str
    kind: str
    question: FilmQuestion
    numbers: Agreement
    gold: tuple[int, ...]  # rows of numbers.lines

    @property
    def is_answered(self) -> bool:
        return self.kind in ("answered", "long")


@dataclass(frozen=True)
class Verdict:
    """A sample and what a judge made of it that had not seen its film."""

    sample: Sample
    is_right: bool  # the best line answers
    lead: float  # of the best score over "none of them"


class ReadOnce:
    """A sentence encoder that reads each text once: films are asked in several versions."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._known: dict[str, WordVectors] = {}

    @property
    def made_with(self) -> str:
        return self._encoder.made_with

    def embed(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([one.sentence for one in self.words(texts)])

    def tokens(self, texts: Sequence[str]) -> Iterator[Tensor]:
        return self._encoder.tokens(texts)

    def words(self, texts: Sequence[str]) -> Iterator[WordVectors]:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self._encoder.words(new), strict=True))
        return (self._known[text] for text in texts)


def versions(sample: Sequence[QuotedFilm]) -> Iterator[tuple[str, str, QuotedFilm]]:
    """Each film as it is, without the line that answers a question, and among others.

    -> film, kind of its questions, version: of the name FILM-KIND-NUMBER.
    """
    chance = random.Random(7)
    for film in sample:
        yield film.name, "", film
        others = [one for one in sample if one is not film]
        added = chance.sample(others, chance.choice((1, 2, 4)))
        yield film.name, "long", replace(film, name=f"{film.name}-long", lines=_joined(film, added))
        for number, question in enumerate(film.questions):
            if question.truths:
                kept = tuple(line for line in film.lines if question.line not in line.text)
                name = f"{film.name}-without-{number}"
                yield film.name, "removed", QuotedFilm(name, kept, (question,))


def _joined(film: QuotedFilm, added: Iterable[QuotedFilm]) -> tuple[FilmLine, ...]:
    lines, after = list(film.lines), film.seconds + 20.0
    for other in added:
        lines += [replace(one, start=one.start + after, end=one.end + after) for one in other.lines]
        after += other.seconds + 20.0
    return tuple(lines)


def samples(encoder: SentenceEncoder) -> list[Sample]:
    """All questions in numbers, through the search and the encoder of an answer."""
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryBank.open(
            Path(folder) / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
        ) as bank,
    ):
        quoter = Quoter(bank, encoder)
        for film, kind, version in versions((*films("calibration"), *films("training"))):
            _store(bank, version)
            embed_lines(bank, encoder, version.name)
            for question in version.questions:
                compared = quoter.compare(
                    Question(question.text, version.name), {version.name: version.seconds}
                )
                if compared is None:
                    continue
                readings, numbers = compared
                gold = tuple(
                    at
                    for at, one in enumerate(readings)
                    if question.line and question.line in one.line.text
                )
                own = kind or "answered"
                if kind != "removed" and not question.truths:
                    own = "long, not said" if kind else "not said"
                found.append(Sample(film, own, question, numbers, gold))
    return found


def _store(bank: MemoryBank, film: QuotedFilm) -> None:
    bank.record_video(info(film.name), 1.0, finished=True)
    exact = film.text_lines(film.name)
    for extractor, kind in (("subtitles", "subtitle"), ("ocr", "ocr")):
        lines = tuple(line for line in exact if line.kind == kind)
        if lines:
            span = TextSpan(0, film.seconds, lines, True)
            bank.text.write(TextBlock(film.name, extractor, "exact", 0, span))


class Network(nn.Module):
    """Scores of lines and of "none of them", as LineJudge computes them."""

    def __init__(self, features: int, film: int, hidden: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(features))
        self.h = nn.Parameter(0.2 * torch.randn(features, hidden))
        self.b = nn.Parameter(torch.zeros(hidden))
        self.o = nn.Parameter(0.05 * torch.randn(hidden))
        self.v = nn.Parameter(torch.zeros(film))
        self.n = nn.Parameter(torch.zeros(1))

    def forward(self, lines: Tensor, film: Tensor) -> Tensor:
        """lines: [B, L, F], film: [B, G] -> [B, L + 1], the last of "none of them"."""
        scores = lines @ self.w + torch.tanh(lines @ self.h + self.b) @ self.o
        return torch.cat([scores, (self.n + film @ self.v)[:, None]], 1)


def train(chosen: Sequence[Sample], design: Design, seeds: int) -> LineJudge:
    """One judge: several networks from different beginnings, side by side."""
    known = [one for one in chosen if bool(one.gold) == one.is_answered]
    every = np.concatenate([one.numbers.lines for one in known])
    film = np.stack([one.numbers.film for one in known])
    scale = {
        "line_mean": every.mean(0),
        "line_scale": every.std(0) + 1e-6,
        "film_mean": film.mean(0),
        "film_scale": film.std(0) + 1e-6,
    }
    most = max(len(one.numbers.lines) for one in known)
    lines = torch.zeros(len(known), most, every.shape[1])
    absent = torch.ones(len(known), most + 1, dtype=torch.bool)
    target = torch.zeros(len(known), most + 1)
    for at, one in enumerate(known):
        rows = (one.numbers.lines - scale["line_mean"]) / scale["line_scale"]
        lines[at, : len(rows)] = torch.from_numpy(rows)
        absent[at, : len(rows)] = False
        target[at, list(one.gold) or most] = 1.0 / max(1, len(one.gold))
    absent[:, most] = False
    of_film = torch.from_numpy((film - scale["film_mean"]) / scale["film_scale"])
    weight = torch.tensor([WEIGHT[one.kind] for one in known])

    def one_network(seed: int) -> Network:
        torch.manual_seed(seed)
        network = Network(every.shape[1], film.shape[1], design.hidden)
        penalized = [value for name, value in network.named_parameters() if name != "n"]
        optimizer = torch.optim.LBFGS(
            network.parameters(), max_iter=80, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            scores = network(lines, of_film).masked_fill(absent, -1e9)
            each = -(target * torch.log_softmax(scores, 1)).sum(1)
            loss = (weight * each).sum() / weight.sum()
            loss = loss + design.decay * sum((value**2).sum() for value in penalized)
            loss.backward()
            return loss

        optimizer.step(closure)
        return network

    networks = [one_network(seed) for seed in range(seeds)]

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(one, name).detach() for one in networks]).mean(0)

    arrays = {
        "w": mean("w"),
        "v": mean("v"),
        "n": mean("n"),
        "h": torch.cat([one.h.detach() for one in networks], 1),
        "b": torch.cat([one.b.detach() for one in networks]),
        "o": torch.cat([one.o.detach() for one in networks]) / seeds,
    }
    weights = {name: rows.numpy() for name, rows in arrays.items()}
    return LineJudge("", {**scale, **weights}, 1.0, 0.0, 0.5)


def folds(chosen: Sequence[Sample], count: int, seed: int) -> Iterator[tuple[str, ...]]:
    """The films of each part."""
    names = sorted({one.film for one in chosen})
    random.Random(seed).shuffle(names)
    return (tuple(names[at::count]) for at in range(count))


def verdicts(judge: LineJudge, chosen: Sequence[Sample]) -> list[Verdict]:
    """What a judge makes of questions."""
    found = []
    for one in chosen:
        scores, none = judge.scores(one.numbers)
        best = int(scores.argmax())
        found.append(Verdict(one, best in one.gold, float(scores[best]) - none))
    return found


def left_out(chosen: Sequence[Sample], design: Design, count: int, seeds: int) -> list[Verdict]:
    """Every question, judged by a training without its film."""
    found = []
    for names in folds(chosen, count, seed=1):
        judge = train([one for one in chosen if one.film not in names], design, seeds)
        found += verdicts(judge, [one for one in chosen if one.film in names])
    return found


def shares(found: Sequence[Verdict], least: float) -> tuple[float, float]:
    """Of the natural questions: answered with the right line, and refused where none answers."""
    kept = [one.is_right and one.lead >= least for one in found if one.sample.kind == "answered"]
    refused = [one.lead < least for one in found if one.sample.kind == "not said"]
    return float(np.mean(kept)), float(np.mean(refused))


def balance(found: Sequence[Verdict]) -> tuple[float, float]:
    """The lead at which the smaller of both shares is greatest, and that share."""
    leads = sorted({one.lead for one in found if one.sample.kind in NATURAL})
    best = max(leads, key=lambda lead: min(shares(found, lead)))
    return best, min(shares(found, best))


def choose(chosen: Sequence[Sample]) -> Design:
    """The design that balances best on films left out."""
    return max(
        DESIGNS, key=lambda design: balance(left_out(chosen, design, INNER_FOLDS, seeds=1))[1]
    )


def fit_confidence(judge: LineJudge, found: Sequence[Verdict], lead: float) -> LineJudge:
    """The same judge, with a confidence and a threshold from questions about films left out."""
    natural = [one for one in found if one.sample.kind in NATURAL]
    x = np.column_stack([[one.lead for one in natural], np.ones(len(natural))])
    y = np.array([float(one.is_right) for one in natural])
    w = np.array([1.0, 0.0])
    for _ in range(50):  # Newton
        p = 1 / (1 + np.exp(-x @ w))
        w -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2), x.T @ (p - y))
    fitted = replace(judge, slope=float(w[0]), offset=float(w[1]))
    return replace(fitted, threshold=fitted.confidence(lead, 0.0))


def report(args: argparse.Namespace) -> None:
    """Cross validation, and with --save the weights."""
    torch.set_num_threads(1)
    encoder = ReadOnce(MpnetEncoder() if args.encoder == "mpnet" else MeanPooledEncoder())
    began = time.process_time()
    every = samples(encoder)
    natural = [one for one in every if one.kind == "answered"]
    found_line = np.mean([bool(one.gold) for one in natural])
    print(f"{len({one.film for one in every})} films, {len(every)} questions in all versions, "
          f"{len(natural)} that a line answers; it is among the candidates of "
          f"{100 * found_line:.1f} %; {time.process_time() - began:.0f} CPU s\n")  # fmt: skip
    print("| films left out | design | right line first | answered with the right line | refused |")
    print("|---|---|---|---|---|")
    outer: list[Verdict] = []
    kept: list[tuple[float, float]] = []
    for number, names in enumerate(folds(every, FOLDS, seed=2)):
        rest = [one for one in every if one.film not in names]
        design = choose(rest)
        lead, _ = balance(left_out(rest, design, INNER_FOLDS, SEEDS))
        found = verdicts(train(rest, design, SEEDS), [one for one in every if one.film in names])
        outer += found
        right = [one.is_right for one in found if one.sample.kind == "answered"]
        kept.append(shares(found, lead))
        print(f"| {number + 1} of {FOLDS} | {design} | {100 * np.mean(right):.1f} | "
              f"{100 * kept[-1][0]:.1f} | {100 * kept[-1][1]:.1f} |", flush=True)  # fmt: skip
    for words in ("", "same", "other"):
        right = [
            one.is_right
            for one in outer
            if one.sample.kind == "answered" and words in ("", one.sample.question.words)
        ]
        print(f"right line first{f', {words} words' if words else ''}: {100 * np.mean(right):.1f}")
    print(f"answered with the right line, refused, mean of the parts: "
          f"{100 * np.mean(kept, axis=0).round(3)}")  # fmt: skip
    design = choose(every)
    found = left_out(every, design, FOLDS, SEEDS)
    lead, share = balance(found)
    print(f"all films: {design}; balanced at {100 * share:.1f} %")
    for kind in WEIGHT:
        right = [one.is_right for one in found if one.sample.kind == kind]
        above = [one.lead >= lead for one in found if one.sample.kind == kind]
        print(f"{kind}: n={len(above)}, right line first {100 * np.mean(right):.1f}, "
              f"above the threshold {100 * np.mean(above):.1f}")  # fmt: skip
    if args.save:
        judge = fit_confidence(train(every, design, SEEDS), found, lead)
        path = WEIGHTS / f"{args.encoder}.json"
        path.parent.mkdir(exist_ok=True)
        write(path, replace(judge, made_with=encoder.made_with))
        print(f"wrote {path.name}: slope {judge.slope:.2f}, offset {judge.offset:.2f}, "
              f"threshold {judge.threshold:.3f}")  # fmt: skip


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="minilm", choices=("minilm", "mpnet"))
    parser.add_argument("--save", action="store_true")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
