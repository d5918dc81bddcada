"""Does a question to four weeks of streams need a coarse index of time? Flat search against one.

    python -m tests.measure.time_index runs/week --seeds 31 32 33 [--weeks 4]

Rows are frame embeddings of real banks (tests/measure/week_of_streams.py). Those of frames without
a card are repeated with noise until they are a frame each second of so many weeks; those of the
cards are put in at random seconds, each once. The queries are embeddings of questions about cards.

`flat` compares all rows. The coarse indexes hold means of stretches of each hour, take the best
hours by these, and compare the rows of these hours alone, as EgoRAG chooses days, then hours, then
clips. Recall is the share of the 20 best rows of the flat search that are found.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from tests.measure.week_of_streams import PLAIN, week
from tests.support import measurement_page

HOUR = 3600
BEST = 20
TEXTS = (
    "What is the code on the card?",
    "What name is on the card?",
    "What is the icon on the card?",
)


def rows_of(bank: MemoryBank, seed: int, minutes: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """[N, E] unit rows of the frames without a card, and the rows of each card."""
    segments = [
        bank.catalog.read_segment("camera", row.number) for row in bank.catalog.segments("camera")
    ]
    rows = np.concatenate([segment.clip.float().numpy() for segment in segments])
    times = np.concatenate([segment.times.numpy() for segment in segments])
    is_card, cards = np.zeros(len(rows), bool), []
    for own in week(seed, minutes):
        for card in own.cards:
            start, end = own.video_second + card.start, own.video_second + card.end
            shows = (times >= start) & (times < end)
            is_card |= shows
            cards.append(rows[shows])
    return rows[~is_card], cards


def stream(
    plain: np.ndarray, cards: Sequence[np.ndarray], hours: int, rng: np.random.Generator
) -> np.ndarray:
    """[hours * 3600, E] float32 unit rows."""
    rows = np.empty((hours * HOUR, plain.shape[1]), np.float32)
    for hour in range(hours):
        first = int(rng.integers(len(plain)))
        own = plain[(first + np.arange(HOUR)) % len(plain)]
        own = own + rng.normal(0, 0.02, own.shape).astype(np.float32)
        rows[hour * HOUR : (hour + 1) * HOUR] = own / np.linalg.norm(own, axis=1, keepdims=True)
    for card in cards:
        at = int(rng.integers(len(rows) - 10))
        rows[at : at + len(card)] = card
    return rows


def coarse(rows: np.ndarray, per_hour: int) -> np.ndarray:
    """[hours, per_hour, E]: means of equal stretches of each hour."""
    stretches = rows.reshape(-1, per_hour, HOUR // per_hour, rows.shape[1])
    return stretches.mean(axis=2)


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the best scores."""
    count = min(count, len(scores))
    return np.argpartition(-scores, count - 1)[:count]


def report(arguments: argparse.Namespace) -> None:
    """Print the table."""
    folders = {seed: arguments.folder / f"camera-{seed}" for seed in arguments.seeds}
    first = next(iter(folders.values()))
    config = compose("ask", [f"bank={first}", *PLAIN])
    qa = build_qa(config, build_backbone(config))
    with qa.bank:
        queries = [qa.ingester.clip.embed_text(text).float().numpy() for text in TEXTS]
    plain, cards = list[np.ndarray](), list[np.ndarray]()
    for seed, folder in folders.items():
        with MemoryBank.open(folder, None, UniformRetriever(), recent_frames=0) as bank:
            own, shown = rows_of(bank, seed, arguments.minutes)
            plain.append(own)
            cards += shown
    rng = np.random.default_rng(5)
    rows = stream(np.concatenate(plain), cards, arguments.weeks * 7 * 24, rng)
    print(f"{len(cards)} cards in {len(rows):,} frames")
    hours = len(rows) // HOUR
    print(
        f"{len(rows):,} rows of width {rows.shape[1]}, {rows.nbytes / 1e6:.0f} MB, {hours} hours\n"
    )
    truth, began = [], time.process_time()
    for query in queries:
        truth.append(set(best(rows @ query, BEST).tolist()))
    flat = (time.process_time() - began) / len(queries)
    print("| search | vectors of an hour | hours read | rows compared | CPU ms | recall of 20 |")
    print("|---|---|---|---|---|---|")
    print(f"| flat | - | {hours} | {len(rows):,} | {1e3 * flat:.0f} | 100 % |")
    for per_hour in (1, 12, 60, 450):
        vectors = coarse(rows, per_hour)
        for read in (6, 24, 96):
            found, began = 0, time.process_time()
            for query, right in zip(queries, truth, strict=True):
                chosen = np.sort(best((vectors @ query).max(axis=1), read))
                places = (chosen[:, None] * HOUR + np.arange(HOUR)).ravel()
                scores = np.concatenate(
                    [rows[hour * HOUR : (hour + 1) * HOUR] @ query for hour in chosen]
                )
                found += len(right & set(places[best(scores, BEST)].tolist()))
            spent = (time.process_time() - began) / len(queries)
            compared = hours * per_hour + read * HOUR
            share = found / (BEST * len(queries))
            print(
                f"| coarse | {per_hour} | {read} | {compared:,} | {1e3 * spent:.0f} "
                f"| {100 * share:.0f} % |"
            )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33])
    parser.add_argument("--minutes", type=float, default=2.0, help="of a recording")
    parser.add_argument("--weeks", type=int, default=4)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
