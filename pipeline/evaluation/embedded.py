"""Accuracy of the embedded model on seeds and footage that training never saw.

    python -m pipeline.evaluation.embedded [--clips ../shared/data/clips] [--short 100] [--long 12]
        [--out runs/evaluate]

Takes the user's way: real H.264 files, decord, the bank on disk, recall, reader. Two parts:

- short: videos of 16 seconds (16 frames); everything is read, no retrieval
- long: videos of ten minutes with ten needles; 24 frames' worth of tokens are read, by uniform
  sampling as well

Half of the videos have procedural footage, half real clips held out from training (all procedural
without --clips). Prints Markdown; results.jsonl holds every question.
Results: docs/measurements/2026-11_embedded-accuracy_epyc-2core.md.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from memory.schema import Question
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.embedded.footage import clips
from pipeline.needle_world import video
from pipeline.needle_world.questions import FAMILIES, NeedleQuestion
from pipeline.needle_world.scenes import questions, random_scene
from pipeline.needle_world.scoring import ScoredAnswer, cites_all, on_needles
from pipeline.scoring import cell, is_right

SEED = 424_242  # of the held-out videos; training and its checks use others
# name, file, needles, questions
Video = tuple[str, Path, tuple[video.PlacedNeedle, ...], list[NeedleQuestion]]
LONG_ARMS: dict[str, tuple[str, ...]] = {
    "fused, kv reader": ("retriever=fused", "reader=kv"),
    "fused, tokens reader": ("retriever=fused", "reader=tokens"),
    "clip, kv reader": ("retriever=clip", "reader=kv"),
    "kv, kv reader": ("retriever=kv", "reader=kv"),
    "uniform, kv reader": ("retriever=uniform", "reader=kv"),
}
SHORT_ARMS: dict[str, tuple[str, ...]] = {
    "kv reader": ("reader=kv",),
    "tokens reader": ("reader=tokens",),
}


def make_videos(
    part: str, count: int, footage: list[Path], out: Path, first_seed: int = SEED
) -> Iterator[Video]:
    """The seeded videos of a part, written once; every second one has real footage if any."""
    seconds, size = (16.0, (480, 270)) if part == "short" else (600.0, (480, 270))
    for i in range(count):
        rng = np.random.default_rng((first_seed, part == "long", i))
        needles = random_scene(rng, int(rng.integers(1, 5)) if part == "short" else 10)
        placed = video.plan(rng, needles, seconds)
        scene_questions = questions(rng, needles)
        real = bool(footage) and i % 2 == 1
        name = f"{part}-{i:03d}-{'real' if real else 'procedural'}"
        path = out / f"{name}.mp4"
        if not path.exists():
            seed = int(rng.integers(1 << 30))
            source = (
                video.clip_footage(footage, seed, size)
                if real
                else video.procedural_footage(seed, size)
            )
            video.write(path, placed, seconds, source, size=size)
        yield name, path, placed, scene_questions


def run_part(
    part: str, arms: dict[str, tuple[str, ...]], videos: list[Video], out: Path
) -> dict[str, list[ScoredAnswer]]:
    """Encode each video once and ask its questions in every arm."""
    base = [f"bank={out / ('bank-' + part)}", "video=-", "question=-", "text=none"]
    if part == "short":
        base.append("read_tokens=4096")
    results: dict[str, list[ScoredAnswer]] = {}
    with (out / "results.jsonl").open("a") as log:
        for arm, overrides in arms.items():
            config = compose("ask", [*base, *overrides])
            backbone = build_backbone(config)
            qa = build_qa(config, backbone)
            began = time.time()
            for name, path, placed, questions_ in videos:
                config.video = str(path)
                source = build_source(config, backbone)
                qa.ingest(source)
                for one in questions_:
                    answer = qa.ask(Question(one.text, source.info.video_id))
                    right = is_right(answer.text, one.answer)
                    truth = [placed[i] for i in one.needles]
                    cited = cites_all(answer.spans, truth)
                    spans = on_needles(answer.spans, truth)
                    results.setdefault(arm, []).append(
                        ScoredAnswer(name, one.family, right, cited, spans)
                    )
                    row = {
                        "part": part,
                        "arm": arm,
                        "video": name,
                        "truth": one.answer,
                        "right": right,
                        "found": cited,
                    }
                    log.write(json.dumps(row | {"family": one.family} | asdict(answer)) + "\n")
            qa.bank.close()
            print(f"{part}: {arm}: {time.time() - began:.0f} s", flush=True)
    return results


def _of_family(family: str, scored: list[ScoredAnswer]) -> list[tuple[str, bool]]:
    return [(r.video, r.right) for r in scored if r.family == family]


def _of_footage(kind: str, scored: list[ScoredAnswer]) -> list[tuple[str, bool]]:
    return [(r.video, r.right) for r in scored if r.video.endswith(kind)]


def _all_needles(scored: list[ScoredAnswer]) -> list[tuple[str, bool]]:
    return [(r.video, r.cited) for r in scored if r.right and r.cited is not None]


def _spans(scored: list[ScoredAnswer]) -> list[tuple[str, bool]]:
    return [(r.video, hit) for r in scored if r.right and r.cited is not None for hit in r.spans]


def table(results: dict[str, list[ScoredAnswer]]) -> list[str]:
    """Markdown: families down, arms across, then citations of right answers, then by footage."""
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]

    def row(name: str, pick: Callable[[list[ScoredAnswer]], list[tuple[str, bool]]]) -> None:
        cells = [cell(pick(scored)) for scored in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    for family in FAMILIES:
        row(family.replace("_", " "), partial(_of_family, family))
    row("**all**", lambda s: [(r.video, r.right) for r in s])
    for kind in ("procedural", "real"):
        row(f"all, {kind} footage", partial(_of_footage, kind))
    cited = [
        ("right answers: every needle lies in a cited span", _all_needles),
        ("their cited spans: hold a needle", _spans),
    ]
    for name, pick in cited:
        row(name, pick)
    for family in FAMILIES:
        if any(_all_needles(_in(family, scored)) for scored in results.values()):
            name = family.replace("_", " ")
            row(f"{name}: every needle lies in a cited span", partial(_of, family, _all_needles))
            row(f"{name}: cited spans hold a needle", partial(_of, family, _spans))
    return lines


def _in(family: str, scored: list[ScoredAnswer]) -> list[ScoredAnswer]:
    return [one for one in scored if one.family == family]


def _of(
    family: str,
    pick: Callable[[list[ScoredAnswer]], list[tuple[str, bool]]],
    scored: list[ScoredAnswer],
) -> list[tuple[str, bool]]:
    return pick(_in(family, scored))


def main() -> None:
    """Run both parts and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/clips"))
    parser.add_argument("--short", type=int, default=100, help="videos of 16 seconds")
    parser.add_argument("--long", type=int, default=12, help="videos of ten minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluate"))
    args = parser.parse_args()
    register()
    args.out.mkdir(parents=True, exist_ok=True)
    footage = clips(args.clips, held_out=True) if args.clips.is_dir() else []
    cores = os.cpu_count()
    print(
        f"machine: {platform.machine()}, {cores} cores, torch {torch.__version__}; seed {SEED}; "
        f"held-out clips: {len(footage)}"
    )
    report: list[str] = []
    for part, count, arms in (("short", args.short, SHORT_ARMS), ("long", args.long, LONG_ARMS)):
        if not count:
            continue
        videos = list(make_videos(part, count, footage, args.out))
        title = (
            "16-frame clips, everything read"
            if part == "short"
            else "Ten-minute videos, ten needles"
        )
        report += [
            f"**{title}** ({count} videos)",
            "",
            *table(run_part(part, arms, videos, args.out)),
            "",
        ]
    print("\n".join(report))
    (args.out / "table.md").write_text("\n".join(report))


if __name__ == "__main__":
    main()
