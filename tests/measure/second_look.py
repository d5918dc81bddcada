"""What decoding the film again is worth: `answer=second_look` from stored frames and from the film.

    python -m tests.measure.second_look --seed 2911 --work runs/second-look

Films of one minute of the needle benchmark as real H.264 files, the embedded model, one bank for
each compressor. Arms: stored frames; the film at the bank's rate; the film at twice that. All arms
answer the same questions from the same bank. Resumable: --work keeps films, banks and rows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from memory.schema import Question
from memory.storage.json_lines import JsonLines, JsonRow
from pipeline.build import build_backbone, build_qa, open_video
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.evaluation.needle.films.film import write
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.scoring import cell, difference, is_right
from tests.support import measurement_page
from tests.support.long_film import PLAIN
from tests.support.needle_films import films_of

COMPRESSORS = {
    "none": ("compressor=none",),
    "shrink": ("compressor=shrink",),
    "pool to 1": ("compressor=pool", "compressor.size=1"),
}
ARMS = {
    "stored": ("answer.from_film=false",),
    "film, same rate": (),
    "film, twice the rate": ("answer.fps=2",),
}


def report(options: argparse.Namespace) -> None:
    """Write the films, encode, ask, and print the table."""
    options.work.mkdir(parents=True, exist_ok=True)
    films, items = films_of(options.tasks, options.films, options.seed)
    rows = JsonLines(options.work / "rows.jsonl", ascii_only=True)
    for film in films:
        path = options.work / f"{film.name}.mp4"
        if not path.exists():
            write(film, path)
    for compressor in options.compressors:
        for arm, settings in ARMS.items():
            folder = options.work / f"bank-{compressor.replace(' ', '-')}"
            more = [*COMPRESSORS[compressor], *settings, *PLAIN, f"bank={folder}"]
            config = compose("ask", ["answer=second_look", *more])
            assert isinstance(config, AskSettings)
            _ask(config, options.work, (compressor, arm), films, items, rows)
    rows.close()
    _table(rows.rows)


def _ask(
    config: AskSettings,
    work: Path,
    arm: tuple[str, str],
    films: Sequence[Film],
    items: Sequence[Item],
    rows: JsonLines,
) -> None:
    """Rows of one arm about all films."""
    done = {row["key"] for row in rows.rows}
    todo = [item for item in items if f"{arm} {item.id}" not in done and item.options]
    if not todo:
        return
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank:
        for film in films:
            source = open_video(config, backbone, str(work / f"{film.name}.mp4"))
            qa.ingester.ingest(source)
            for item in (item for item in todo if item.film == film.name):
                answer = qa.ask(Question(item.question, source.info.video_id))
                assert not answer.warning, answer.warning
                rows.append(
                    {
                        "key": f"{arm} {item.id}",
                        "compressor": arm[0],
                        "arm": arm[1],
                        "item": item.id,
                        "film": film.name,
                        "task": item.task,
                        "right": is_right(answer.text, item.answer),
                        "tokens": answer.visual_tokens,
                    }
                )
    print(f"{arm}: {len(todo)} questions", flush=True)


def _table(rows: Sequence[JsonRow]) -> None:
    head = "right, % | more than stored, points | visual tokens"
    print(f"\n| compressor | second look | {head} |\n|{'---|' * 5}")
    for compressor in dict.fromkeys(row["compressor"] for row in rows):
        of = [row for row in rows if row["compressor"] == compressor]
        stored = {row["item"]: bool(row["right"]) for row in of if row["arm"] == "stored"}
        for arm in dict.fromkeys(row["arm"] for row in of):
            own = [row for row in of if row["arm"] == arm]
            right = cell([(row["film"], float(row["right"])) for row in own])
            tokens = sum(row["tokens"] for row in own) / len(own)
            more = "-"
            if arm != "stored":
                mine = [(row["film"], bool(row["right"])) for row in own]
                before = [(row["film"], stored[row["item"]]) for row in own]
                mean, low, high, _ = difference(mine, before)
                more = f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            print(f"| {compressor} | {arm} | {right} | {more} | {tokens:,.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--films", type=int, default=8, help="of each task")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=["retrieve", "confuser"])
    parser.add_argument("--compressors", nargs="*", default=list(COMPRESSORS))
    measurement_page.run(parser, report)
