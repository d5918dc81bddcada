"""How much of the exact attention the frames hold that a search chooses, and what the others cost.

    python -m pipeline.evaluation.attention_recall [--films 10] [--seconds 60] [--budgets 4 8 16]
        [--arms "kv" "clip" ...] [--made small] [--clips ../shared/data/clips]
        [--out runs/attention-recall] [SETTING=VALUE ...]

Films with cards are encoded once; every arm ranks all frames for every question. Columns, for each
number of frames that may be read:

- held: per cent of the question's attention over all frames that the first frames of the ranking
  hold, mean over layers and heads (pipeline/evaluation/question_attention.py). Interval 95 %,
  bootstrapped over films.
- error: |x - x'| / |x| of a layer's attention without the other frames, in per cent, mean over
  layers; the layers below are dense.
- as read: the same where only these frames are laid out, as an answer reads them: with their new
  positions, and with the errors of the layers below. Not for arms whose layers read frames of
  their own.

"best" needs no search: the frames with the most attention, for all layers, for each layer, and for
each head. No search can hold more.

--made: a random LLaVA-OneVision with the sizes of conf/bench_preset/NAME.yaml in place of the
embedded model. It says what attention without any training does, and nothing of a trained model.
Questions that have rows in results.jsonl are not asked again.
"""

import argparse
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from memory.schema import Evidence, Question
from memory.storage.json_lines import JsonLines, JsonRow
from pipeline.answer.schema import Reader, local
from pipeline.build import AnyModel, build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.embedded.footage import clips
from pipeline.evaluation.question_attention import QuestionAttention, frames_mask
from pipeline.evaluation.speed import model as random_model
from pipeline.needle_world import video
from pipeline.needle_world.scenes import questions, random_scene
from pipeline.runtime.stage_timer import StageTimer
from pipeline.scoring import cell

SEED = 25_030_540  # of the films; those of training and of the other tables have others
SIZE = (480, 270)
NEEDLES = 6  # of a film
ALL_TOKENS = 1 << 40  # a budget that holds every frame
ARMS: dict[str, tuple[str, ...]] = {
    "uniform": ("retriever=uniform",),
    "clip": ("retriever=clip",),
    "fused": ("retriever=fused",),
    "kv": ("retriever=kv",),
    "kv, sums of a layer": ("retriever=kv", "retriever.normalize=layer"),
    "kv, soft vote": ("retriever=kv", "retriever.normalize=softmax"),
    "kv per layer": ("retriever=kv", "retriever.per_layer=true"),
    "kv per head": ("retriever=kv", "retriever.per_head=true", "retriever.top=1"),
    "kv per head, each token": (
        "retriever=kv",
        "retriever.per_head=true",
        "retriever.top=1",
        "query_pool=tokens",
    ),
    "kv per head, all keys": (
        "retriever=kv",
        "retriever.per_head=true",
        "retriever.top=1",
        "block_score=kmeans",
        "block_score.count=64",
        "block_score.keep=1",
        "retriever.normalize=softmax",
        "query_pool=tokens",
    ),
    "retrieval heads": ("retriever=kv", "retriever.heads=model"),
    "retrieval heads, soft vote": (
        "retriever=kv",
        "retriever.heads=model",
        "retriever.normalize=softmax",
    ),
    "last token": ("retriever=kv", "query_pool=last"),
    "activation bias": ("retriever=kv", "query_pool=activation_bias"),
    "each token": ("retriever=kv", "query_pool=tokens"),
    "representative": ("retriever=kv", "block_score=representative"),
    "kmeans": ("retriever=kv", "block_score=kmeans"),
    "kmeans, soft vote": (
        "retriever=kv",
        "block_score=kmeans",
        "retriever.normalize=softmax",
        "query_pool=tokens",
    ),
    "all keys, soft vote": (
        "retriever=kv",
        "block_score=kmeans",
        "block_score.count=64",
        "block_score.keep=1",
        "retriever.normalize=softmax",
        "query_pool=tokens",
    ),
    "all keys, windows of 16": (
        "retriever=kv",
        "block_score=kmeans",
        "block_score.count=64",
        "block_score.keep=1",
        "retriever.normalize=softmax",
        "retriever.scan_frames=16",
        "retriever.scan_keep=8",
        "query_pool=tokens",
    ),
    "mean key, soft vote, windows of 16": (
        "retriever=kv",
        "retriever.normalize=softmax",
        "retriever.scan_frames=16",
        "retriever.scan_keep=8",
    ),
    "channels": ("retriever=kv", "block_score=channel_subset"),
    "hadamard": ("retriever=kv", "block_score=hadamard"),
    "hadamard, dot": ("retriever=kv", "block_score=hadamard", "block_score.distance=dot"),
}
BEST = {"best": "model", "best per layer": "layer", "best per head": "head"}


def films(
    count: int, seconds: float, footage: list[Path], out: Path, first: int = 0
) -> Iterator[Path]:
    """The seeded films from number `first` on, written once; every second one has real footage if
    there is any."""
    for number in range(first, first + count):
        path = out / f"{number:03d}-{seconds:g}s.mp4"
        rng = np.random.default_rng((SEED, number))
        placed = video.plan(rng, random_scene(rng, NEEDLES), seconds)
        if not path.exists():
            seed = int(rng.integers(1 << 30))
            real = bool(footage) and number % 2 == 1
            source = (
                video.clip_footage(footage, seed, SIZE)
                if real
                else video.procedural_footage(seed, SIZE)
            )
            video.write(path, placed, seconds, source, size=SIZE)
        yield path


def texts(number: int) -> list[str]:
    """The questions about a film, each text once."""
    rng = np.random.default_rng((SEED, number))
    scene = random_scene(rng, NEEDLES)
    return list(dict.fromkeys(one.text for one in questions(rng, scene)))


def measure_arms(
    arms: dict[str, tuple[str, ...]],
    budgets: Sequence[int],
    footage: Sequence[Path],
    base: Sequence[str],
    out: Path,
) -> list[JsonRow]:
    """Rows of every arm, question and budget, old ones too."""
    rows = JsonLines(out / "results.jsonl")
    with closing(rows):
        done = {(row["film"], row["arm"], row["frames"]) for row in rows.rows}
        names = [*arms, *BEST]
        model: AnyModel | None = None
        for number, path in enumerate(footage):
            todo = [(arm, k) for arm in names for k in budgets if (path.stem, arm, k) not in done]
            if not todo:
                continue
            model = model or build_backbone(_config(base, path, out))
            for row in _film_rows(arms, todo, number, path, base, out, model):
                rows.append(row)
            print(f"{path.stem}: {len(todo)} pairs of arm and budget", flush=True)
        return rows.rows


def _config(base: Sequence[str], path: Path, out: Path, *overrides: str) -> AskSettings:
    common = [f"bank={out / 'bank'}", "question=-", "text=none", "recent_frames=0", "clip=embedded"]
    config = compose("ask", ["video=-", *common, *base, *overrides])
    config.video = str(path)
    return config


def _film_rows(
    arms: dict[str, tuple[str, ...]],
    todo: Sequence[tuple[str, int]],
    number: int,
    path: Path,
    base: Sequence[str],
    out: Path,
    model: AnyModel,
) -> list[JsonRow]:
    """All rows of one film, so that a film is either measured or not."""
    wanted = dict.fromkeys(arm for arm, _ in todo)
    rankings: dict[tuple[str, str], Tensor] = {}  # arm, question -> [k], [L, 1, k] or [L, Hq, k]
    for arm in [name for name in wanted if name in arms] or list(arms)[:1]:
        config = _config(base, path, out, *arms[arm])
        qa = build_qa(config, model)
        with qa.bank:
            source = build_source(config, qa.backbone)
            qa.ingest(source)
            for text in texts(number):
                timer = StageTimer()
                asked = Question(text, source.info.video_id)
                hits = qa.answerer.recall(asked, timer, ALL_TOKENS).hits
                own = hits.frames if hits.per_layer is None else hits.per_layer[:, None]
                own = own if hits.per_head is None else hits.per_head
                rankings[arm, text] = own
    rows: list[JsonRow] = []
    qa = build_qa(_config(base, path, out), model)
    with qa.bank:
        reader = local(qa.answerer.reader, "the recall of attention")
        for text in texts(number):
            asked = Question(text, source.info.video_id)
            everything = qa.answerer.recall(asked, StageTimer(), ALL_TOKENS)
            dense = QuestionAttention.of(reader, everything)
            for arm, count in todo:
                if arm in BEST:
                    chosen = dense.best(count, BEST[arm])
                else:
                    chosen = frames_mask(rankings[arm, text][..., :count], dense.frames)
                rows.append(
                    {"film": path.stem, "arm": arm, "frames": count, "question": text}
                    | _measured(reader, everything, dense, chosen)
                )
    return rows


def _measured(
    reader: Reader, everything: Evidence, dense: QuestionAttention, chosen: Tensor
) -> JsonRow:
    """What the chosen frames hold, and the errors without the others."""
    recall = dense.recall(chosen)  # [L, Hq]
    as_read = None
    if chosen.dim() == 1:
        runs = tuple(run for run in everything.runs if bool(chosen[list(run.ordinals)].all()))
        part = QuestionAttention.of(reader, replace(everything, runs=runs))
        as_read = round(float(dense.errors_of(part).mean()), 5)
    return {
        "held": round(float(recall.mean()), 5),
        "held_of_heads": [[round(value, 4) for value in own] for own in recall.tolist()],
        "errors": [round(value, 5) for value in dense.errors(chosen).tolist()],
        "as_read": as_read,
        "of_frames": dense.frames,
    }


def table(rows: Sequence[JsonRow], arms: Sequence[str], budgets: Sequence[int]) -> list[str]:
    """Markdown: an arm and a number of frames a line."""
    lines = [
        "| search | frames read | attention held (%) | least head (%) | error (%) | as read (%) |",
        "|---" * 6 + "|",
    ]
    for arm in arms:
        for count in budgets:
            own = [row for row in rows if row["arm"] == arm and row["frames"] == count]
            if not own:
                continue
            held = cell([(row["film"], row["held"]) for row in own])
            heads = np.array([row["held_of_heads"] for row in own]).mean(0)
            error = np.mean([row["errors"] for row in own])
            read = [row["as_read"] for row in own if row["as_read"] is not None]
            as_read = f"{100 * np.mean(read):.1f}" if read else "-"
            lines.append(
                f"| {arm} | {count} of {own[0]['of_frames']} | {held} | {100 * heads.min():.1f} "
                f"| {100 * error:.1f} | {as_read} |"
            )
    return lines


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a film")
    parser.add_argument("--budgets", type=int, nargs="+", default=[4, 8, 16], help="frames read")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--made", default="", help="a random model of this bench_preset")
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/clips"))
    parser.add_argument("--out", type=Path, default=Path("runs/attention-recall"))
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_args()
    register()
    args.out.mkdir(parents=True, exist_ok=True)
    base = list(args.settings)
    if args.made:
        sizes = compose("bench", [f"bench_preset={args.made}"])
        if sizes.made is None:
            parser.error(f"bench_preset={args.made} makes no model")
        folder = args.out / args.made
        if not (folder / "config.json").exists():
            random_model.make(sizes.made, folder, str(sizes.backbone["dtype"]), SEED)
        base = [f"backbone.path={folder}", f"backbone.dtype={sizes.backbone['dtype']}", *base]
    footage = clips(args.clips, held_out=True) if args.clips.is_dir() else []
    paths = list(films(args.films, args.seconds, footage, args.out))
    arms = {name: ARMS[name] for name in args.arms}
    rows = measure_arms(arms, args.budgets, paths, base, args.out)
    names = {path.stem for path in paths}
    lines = table([row for row in rows if row["film"] in names], [*BEST, *arms], args.budgets)
    asked = len({(row["film"], row["question"]) for row in rows if row["film"] in names})
    head = (
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; seed "
        f"{SEED}; {asked} questions about {len(paths)} films of {args.seconds:g} seconds; "
        f"settings: {' '.join(args.settings) or 'none'}; model: {args.made or 'as set'}."
    )
    print("\n".join([head, "", *lines]))
    (args.out / "attention.md").write_text("\n".join([head, "", *lines]) + "\n")


if __name__ == "__main__":
    main()
