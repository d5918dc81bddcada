"""Retrieval of lines by words, by vectors and by tokens, for questions in other words than the
line.

    python -m tests.measure.meaning [--facts 150] [--path DIR]

One bank holds generated lines (tests/support/paraphrases.py), one for each moment, too far apart to
be neighbors. A question counts as answered if its line is the first moment, or one of the first
five. It takes six minutes, nearly all of them for tokens.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from encoders.text.lines import TextBlock, TextLine, TextSpan
from encoders.text.mean_pooled_encoder import MeanPooledEncoder
from memory.bank import MemoryBank
from memory.retrieval.fusion import fuse
from memory.retrieval.uniform import UniformRetriever
from pipeline.ingest.text import embed_lines
from pipeline.moments.finder import Finder
from tests.support import measurement_page
from tests.support.paraphrases import SHARED_WORDS, facts, shared
from tests.support.records import info

ARMS = {  # channels that are fused
    "words (BM25)": ("subtitle",),
    "vectors": ("dense",),
    "tokens (MaxSim of the best 50)": ("late",),
    "words + vectors": ("subtitle", "dense"),
    "words + vectors + tokens": ("subtitle", "dense", "late"),
}


def interval(hits: list[bool], rng: np.random.Generator) -> str:
    """Per cent, with 95 % over questions."""
    drawn = rng.choice(hits, (2000, len(hits))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{100 * float(np.mean(hits)):.1f} ({100 * low:.1f}-{100 * high:.1f})"


def report(args: argparse.Namespace) -> None:
    """Fill a bank, ask, and print recall of every arm."""
    rng = np.random.default_rng(7)
    sample, lines = facts(args.facts, rng)
    assert not any(shared(fact.questions["none of the words"], fact.line) for fact in sample)
    encoder = MeanPooledEncoder(args.path)
    results: dict[str, defaultdict[str, dict[str, list[bool]]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryBank.open(
            Path(folder) / "bank", {"model": "m"}, UniformRetriever(), recent_frames=0
        ) as bank,
    ):
        bank.record_video(info("v"), 1.0, finished=True)
        rows = tuple(
            TextLine("v", 60.0 * i, 60.0 * i + 3, "subtitle", line, 0.0)
            for i, line in enumerate(lines)
        )
        bank.text.write(
            TextBlock("v", "subtitles", "made up", 0, TextSpan(0, 60.0 * len(rows), rows, True))
        )
        embed_lines(bank, encoder, "v")
        finder = Finder(bank, ("subtitle",), encoder, late_lines=50)
        for fact in sample:
            for name, question in fact.questions.items():
                plan, limits = finder.plan(question)
                rankings = finder.rankings(plan, None, limits)
                for arm, channels in ARMS.items():
                    best = fuse({each: rankings.get(each, []) for each in channels}, plan.weights)[
                        :5
                    ]
                    first = [fact.line in [line.text for line in moment.lines] for moment in best]
                    row = results.setdefault(arm, defaultdict(lambda: {"first": [], "five": []}))[
                        name
                    ]
                    row["first"].append(any(first[:1]))
                    row["five"].append(any(first))
    print(f"{len(lines)} lines, n={len(sample)} questions of each kind; {encoder.made_with}")
    print("| " + " | ".join(["", *(f"{name}: first | among five" for name in SHARED_WORDS)]) + " |")
    print("|---" * (2 * len(SHARED_WORDS) + 1) + "|")
    for arm, by_name in results.items():
        cells = [
            interval(by_name[name][which], rng)
            for name in SHARED_WORDS
            for which in ("first", "five")
        ]
        print("| " + " | ".join([arm, *cells]) + " |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=150)
    parser.add_argument("--path", default="")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
