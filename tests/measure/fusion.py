"""Fused retrieval against every single channel, for answers in speech, in print and in pictures.

    python -m tests.measure.fusion FOLDER [--films 4] [--seconds 180]

The program makes needle films: cards with names, codes and colored shapes over moving scenes, with
subtitle files of a talk. It encodes them into one bank with the embedded models and
text=[subtitles,ocr], and asks each question of its film. A question counts as answered if one of
the first five moments lies where the card was on screen or the fact was spoken. It takes several
minutes.
"""

import argparse
import contextlib
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from memory.bank import MemoryBank
from memory.retrieval.fusion import NEAR_S, Moment, fuse
from memory.storage.manifest import open_manifest
from pipeline import cli
from pipeline.config.compose import compose
from pipeline.config.parts import instantiate
from pipeline.frame_embedder import build_clip
from pipeline.moments.finder import Finder
from pipeline.moments.frame_channels import Embedders, frame_channels
from pipeline.needle_world import video
from pipeline.needle_world.cards import COLORS, NAMES, SHAPES, Needle, random_needle
from pipeline.query import plan as planner
from tests.support import measurement_page
from tests.support.talks import talks

TOP = 5


@dataclass(frozen=True)
class LocatedQuestion:
    """A question with where its answer is."""

    kind: str  # said, written, shown
    text: str
    film: str
    start: float
    end: float


def mean_of_scores(
    rankings: Mapping[str, Sequence[Moment]], near_s: float = NEAR_S
) -> list[Moment]:
    """The baseline: scores of each channel scaled to 0..1 and averaged over all channels."""
    scaled: dict[str, list[Moment]] = {}
    for channel, moments in rankings.items():
        scores = [moment.score for moment in moments]
        low, high = min(scores, default=0.0), max(scores, default=0.0)
        scaled[channel] = [
            replace(m, share=(m.score - low) / (high - low) if high > low else 1.0) for m in moments
        ]
    flat = fuse(scaled, {}, k0=1e9, near_s=near_s)  # so flat that the rank makes no difference
    return [replace(moment, score=moment.score * 1e9 / max(len(rankings), 1)) for moment in flat]


def make(folder: Path, number: int, seconds: float) -> list[LocatedQuestion]:
    """One film, its subtitles and its questions."""
    rng = np.random.default_rng((20_261_121, number))
    pairs = zip(rng.permutation(SHAPES)[:5], rng.permutation(list(COLORS)), strict=False)
    shapes = [Needle("shape", str(shape), str(color)) for shape, color in pairs]
    names = [Needle("name", str(name)) for name in rng.permutation(NAMES)[:4]]
    needles = [*shapes, *names, *(random_needle(rng, "code") for _ in range(3))]
    needles = [needles[i] for i in rng.permutation(len(needles))]
    placed = video.plan(rng, needles, seconds)
    path = folder / f"talk{number}.mp4"
    if not path.exists():
        part = path.with_suffix(".part.mp4")
        video.write(
            part, placed, seconds, video.procedural_footage(number, (480, 270)), size=(480, 270)
        )
        part.rename(path)
    questions = []
    for one in placed:
        text = {
            "shape": f"What color is the {one.needle.text}?",
            "name": f"Where is the name {one.needle.text} written?",
            "code": f"On which card is the number {one.needle.text}?",
        }[one.needle.kind]
        questions.append(
            LocatedQuestion(
                "shown" if one.needle.kind == "shape" else "written",
                text,
                path.name,
                one.start,
                one.end,
            )
        )
    return questions


def hit(moments: list[Moment], question: LocatedQuestion) -> bool:
    return any(m.start < question.end + 0.5 and m.end > question.start - 0.5 for m in moments[:TOP])


def report(args: argparse.Namespace) -> None:
    """Make the films, ask, and print recall of every arm."""
    args.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    spoken = talks(args.folder, args.films, rng, args.seconds)
    questions = [
        LocatedQuestion("said", text, f"{film}.mp4", at, at + 3) for text, film, at in spoken
    ]
    for number in range(args.films):
        path = args.folder / f"talk{number}.mp4"
        if not path.stat().st_size:
            path.unlink()
        questions += make(args.folder, number, args.seconds)
        options = [f"video={path}", f"bank={args.folder / 'bank'}", "text=[subtitles,ocr]"]
        with contextlib.redirect_stdout(sys.stderr):  # the command's own lines are not of the page
            cli.run("ingest", options)
    config = compose("find", ["query=-", f"bank={args.folder / 'bank'}"])
    frames = frame_channels(
        config.bank,
        open_manifest(args.folder / "bank", None, create=False),
        (*planner.CHANNELS, planner.KV),
        embedders=lambda: Embedders(build_clip(config), "embedded", {}),
        backbone=lambda: instantiate("backbone", config.backbone),
    )
    ranked: dict[str, defaultdict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with MemoryBank.open(args.folder / "bank", None, frames.retriever, recent_frames=0) as bank:
        ids = {Path(row.info.path).name: row.info.video_id for row in bank.catalog.videos()}
        finder = Finder(bank, frames.channels, queries=frames.queries)
        for question in questions:
            plan = planner.plan(question.text)
            rankings = finder.rankings(plan, ids[question.film])
            alone = ("subtitle", "ocr", "picture", "kv")
            arms = {channel: fuse({channel: rankings.get(channel, [])}, {}) for channel in alone}
            arms["all fused, with kv"] = fuse(rankings, plan.weights)
            rankings.pop("kv")
            arms["fused, planner's weights"] = fuse(rankings, plan.weights)
            arms["fused, equal weights"] = fuse(rankings, {})
            arms["mean of scores"] = mean_of_scores(rankings)
            for arm, moments in arms.items():
                ranked[arm][question.kind].append(hit(moments, question))
                ranked[arm]["all"].append(hit(moments, question))
    kinds = ("said", "written", "shown", "all")
    print(
        "| recall@5 | "
        + " | ".join(f"{kind} (n={len(ranked['ocr'][kind])})" for kind in kinds)
        + " |"
    )
    print("|---" * (len(kinds) + 1) + "|")
    for arm, results in ranked.items():
        print(
            f"| {arm} | "
            + " | ".join(f"{100 * float(np.mean(results[kind])):.1f}" for kind in kinds)
            + " |"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=180.0)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
