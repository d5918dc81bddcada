"""One question to a bank of a thousand films: is the right film found, and how long does it take?

    python -m tests.measure.library runs/library [FILMS]

100 films of 32 seconds show one card each; the rest are copies of 20 films without cards, under
names of their own. A card's question is asked about all films but those that show another card of
its kind, and then about its film alone. Times are CPU seconds of this process, the median of all
questions; the first question, which reads the rows of all films, is told apart.
"""

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from memory.schema import Question
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.qa import VideoQA
from pipeline.scoring import share
from tests.support.measurement_page import head
from tests.support.painted_films import PaintedFilm, copy_film

SECONDS, PLAIN, CARDS = 32, 20, 100


def cards() -> list[tuple[str, str, str]]:
    """(card, question, answer) of each film with a card; the kinds take turns."""
    rng, made = np.random.default_rng(7), []
    for number in range(CARDS):
        at = int(rng.integers(2, SECONDS - 4))
        code = str(rng.integers(1000, 9999))
        color, shape = str(rng.choice(list(COLORS))), str(rng.choice(SHAPES))
        icon, name = str(rng.choice(ICONS)), str(rng.choice(NAMES))
        made.append(
            (
                (f"code:{code}@{at}", "What is the code on the card?", code),
                (f"name:{name}@{at}", "What name is on the card?", name),
                (f"icon:{icon}@{at}", "What is the icon on the card?", icon),
                (f"shape:{color} {shape}@{at}", f"What color is the {shape}?", color),
            )[number % 4]
        )
    return made


def fill(qa: VideoQA, films: int, size: tuple[int, int]) -> None:
    """Encode the films that the bank lacks, and copy those without cards."""
    for number, (card, _, _) in enumerate(cards()):
        qa.ingest(PaintedFilm(f"card-{number:04d}", number, size, card))
    for number in range(PLAIN):
        qa.ingest(PaintedFilm(f"plain-{number:04d}", 1000 + number, size))
    bank = qa.bank
    for number in range(PLAIN, films - CARDS):
        name = f"plain-{number:04d}"
        if bank.catalog.video(name) is None:
            copy_film(bank, f"plain-{number % PLAIN:04d}", bank, name)
    bank.end_writing()


def main() -> None:
    out = Path(sys.argv[1])
    films = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    out.mkdir(parents=True, exist_ok=True)
    overrides = ["video=x", f"bank={out / 'bank'}", "question=x", "text=none", "dense=none"]
    config = compose("ask", overrides)
    backbone = build_backbone(config)
    filling = build_qa(config, backbone)
    with filling.bank:
        fill(filling, films, backbone.frame_size)
    qa = build_qa(config, backbone)  # opened again, as a command does
    with qa.bank:
        report(qa, films)


def report(qa: VideoQA, films: int) -> None:
    asked = cards()
    ids = [row.info.video_id for row in qa.bank.catalog.videos()]
    names = ("film", "span", "answer", "answer of one film")
    right: dict[str, list[tuple[str, bool]]] = {name: [] for name in names}
    whole, alone = [], []
    began = time.process_time()
    qa.ask(Question("What is the code on the card?", ids))
    first = time.process_time() - began
    for number, (card, text, answer) in enumerate(asked):
        own, at = f"card-{number:04d}", float(card.rsplit("@", 1)[1])
        same = {f"card-{i:04d}" for i, other in enumerate(asked) if other[1] == text}
        videos = [each for each in ids if each == own or each not in same]
        began = time.process_time()
        found = qa.ask(Question(text, videos))
        whole.append(time.process_time() - began)
        qa.ask(
            Question(text, own)
        )  # its rows are now in memory, as they are for the question above
        began = time.process_time()
        one = qa.ask(Question(text, own))
        alone.append(time.process_time() - began)
        is_film = found.video_id == own and bool(found.spans)
        is_span = is_film and any(a < at + 2 and b > at for a, b in found.spans)
        outcomes = (is_film, is_span, found.text == answer, one.text == answer)
        for name, outcome in zip(names, outcomes, strict=True):
            right[name].append((own, outcome))
    print(head())
    print(f"{len(ids)} films, {len(asked)} questions\n")
    print("| what | right | interval |\n|---|---|---|")
    for what, results in right.items():
        mean, low, high, count = share(results)
        print(f"| {what} | {100 * mean:.0f} % of {count} | {100 * low:.0f}-{100 * high:.0f} |")
    print(
        f"\nCPU seconds of a question: {median(whole):.3f} about all, {median(alone):.3f} about "
        f"one film, ratio {median(whole) / median(alone):.2f}; the first about all: {first:.2f}"
    )
    print(f"rows in RAM: {qa.bank.in_memory()['index'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
