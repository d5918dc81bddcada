"""What a still camera costs with compressors that merge near-duplicates: bytes, and answers.

    python -m tests.measure.still_camera --seed 2741 --work runs/still

Films of needle cards as real H.264 files over three kinds of footage: one picture of a real clip
with the noise of a sensor, drawn scenes that move, and real clips one after another. The embedded
model, one bank for each compressor and kind, at most `--read-tokens` visual tokens an answer.
Resumable: --work keeps films, banks and rows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from memory.schema import Question
from memory.storage.json_lines import JsonLines, JsonRow
from pipeline.build import build_backbone, build_qa, open_video
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.embedded.footage import clips
from pipeline.needle_world import video
from pipeline.needle_world.questions import NeedleQuestion
from pipeline.needle_world.scenes import questions, random_scene
from pipeline.needle_world.video import Footage
from pipeline.scoring import cell, difference, is_right
from tests.support import measurement_page
from tests.support.long_film import PLAIN

SIZE = (480, 270)
ARMS = {
    "none": ("compressor=none",),
    "merge": ("compressor=merge",),
    "carry": ("compressor=carry",),
    "carry, 60 segments": ("compressor=carry", "compressor.segments=60"),
}
Asked = tuple[str, Path, Sequence[NeedleQuestion]]  # name and file of a film, and its questions


def still(picture: Image.Image, seed: int, fps: int) -> Footage:
    """One picture, with noise of two grey levels that differs in every frame."""
    pixels = np.asarray(picture, np.float32)

    def at(t: float) -> Image.Image:
        noise = np.random.default_rng((seed, round(t * fps))).normal(0, 2, pixels.shape)
        return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))

    return at


def films_of(options: argparse.Namespace, kind: str) -> list[Asked]:
    """The seeded films of a kind, written once."""
    own, made = clips(options.clips, held_out=True), list[Asked]()
    for number in range(options.films):
        rng = np.random.default_rng((options.seed, ["still", "drawn", "real"].index(kind), number))
        needles = random_scene(rng, options.cards) if options.cards else []
        placed = video.plan(rng, needles, options.seconds) if needles else ()
        asked = questions(rng, needles) if needles else []
        seed = int(rng.integers(1 << 30))
        path = options.work / f"{kind}-{number}.mp4"
        if not path.exists():
            real = video.clip_footage(own, seed, SIZE)
            footage = {"drawn": video.procedural_footage(seed, SIZE), "real": real}
            picked = still(real(0.0), seed, options.fps) if kind == "still" else footage[kind]
            video.write(path, placed, options.seconds, picked, fps=options.fps, size=SIZE)
        made.append((path.stem, path, asked))
    return made


def report(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    rows = JsonLines(options.work / "rows.jsonl", ascii_only=True)
    for kind in options.kinds:
        films = films_of(options, kind)
        for arm in options.arms:
            _ask(options, kind, arm, films, rows)
    rows.close()
    _table(rows.rows)


def _ask(
    options: argparse.Namespace, kind: str, arm: str, films: Sequence[Asked], rows: JsonLines
) -> None:
    """Rows of one arm about all films of a kind."""
    folder = options.work / f"bank-{kind}-{arm.replace(', ', '-').replace(' ', '-')}"
    more = [*ARMS[arm], *PLAIN, f"bank={folder}", f"read_tokens={options.read_tokens}"]
    config = compose("ask", [*more, "reader=tokens"])
    assert isinstance(config, AskSettings)
    done = {row["key"] for row in rows.rows}
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank:
        for name, path, asked in films:
            if f"{arm} {name}" in done:
                continue
            source = open_video(config, backbone, str(path))
            qa.ingester.ingest(source)
            segments = qa.bank.catalog.segments(source.info.video_id)
            own = []
            for one in asked:
                answer = qa.ask(Question(one.text, source.info.video_id))
                own.append([one.family, is_right(answer.text, one.answer), answer.visual_tokens])
            rows.append(
                {
                    "key": f"{arm} {name}", "arm": arm, "kind": kind, "film": name, "answers": own,
                    "bytes": sum(row.nbytes for row in segments), "seconds": segments[-1].end,
                    "tokens": int(sum(row.tokens.sum() for row in segments)),
                    "whole": int(sum((row.tokens > 1).sum() for row in segments)),
                    "frames": sum(row.frames for row in segments),
                }
            )  # fmt: skip
    print(f"{kind}, {arm}", flush=True)


def _table(rows: Sequence[JsonRow]) -> None:
    head = "MB an hour | tokens a frame | whole frames, % | right, % | more than none, points"
    print(f"\n| footage | compressor | {head} |\n|{'---|' * 7}")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = {row["key"]: row for row in rows if row["kind"] == kind}
        for arm in dict.fromkeys(row["arm"] for row in of.values()):
            own = [row for row in of.values() if row["arm"] == arm]
            seconds, frames = (sum(row[name] for row in own) for name in ("seconds", "frames"))
            hour = sum(row["bytes"] for row in own) * 3600 / seconds / 1e6
            tokens, whole = (sum(row[name] for row in own) / frames for name in ("tokens", "whole"))
            mine = _answers(own)
            before = _answers([of[f"none {row['film']}"] for row in own])
            mean, low, high, _ = difference(mine, before)
            more = (
                "-"
                if arm == "none" or not mine
                else f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            )
            print(
                f"| {kind} | {arm} | {hour:.1f} | {tokens:.2f} | {100 * whole:.1f} | {cell(mine)} "
                f"| {more} |"
            )


def _answers(rows: Sequence[JsonRow]) -> list[tuple[str, bool]]:
    return [(row["film"], bool(right)) for row in rows for _, right, _ in row["answers"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--films", type=int, default=4, help="of each kind")
    parser.add_argument("--seconds", type=float, default=120.0, help="of a film")
    parser.add_argument("--cards", type=int, default=6, help="of a film; 0: bytes alone")
    parser.add_argument("--fps", type=int, default=8, help="pictures a second of a film")
    parser.add_argument("--read-tokens", type=int, default=128)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clips", type=Path, default=Path("../shared/data/clips"))
    parser.add_argument("--kinds", nargs="*", default=["still", "drawn", "real"])
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    measurement_page.run(parser, report)
