"""Answers before and after `reelbank bank compact`, from the same bank.

    python -m tests.measure.compacted_answers --seed 2742 --work runs/compacted

Films of one minute of the needle benchmark as real H.264 files, the embedded model, `reader=kv`.
All questions are asked of the exact bank, then of a copy whose segments are all compacted to int8,
then of one in int4. At most `--read-tokens` visual tokens an answer. Resumable: --work keeps all.
"""

import argparse
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from memory.schema import Question
from memory.storage.json_lines import JsonLines, JsonRow
from memory.storage.retention import Rule
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.build import build_backbone, build_qa, open_video
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.evaluation.needle.films.film import write
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.scoring import cell, difference, is_right
from tests.support import measurement_page
from tests.support.long_film import PLAIN
from tests.support.needle_films import films_of

FORMS = ("as made", "int8", "int4")


def report(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    films, items = films_of(options.tasks, options.films, options.seed)
    rows = JsonLines(options.work / "rows.jsonl", ascii_only=True)
    for film in films:
        path = options.work / f"{film.name}.mp4"
        if not path.exists():
            write(film, path)
    for form in FORMS:
        _ask(options, form, films, [item for item in items if item.options], rows)
    rows.close()
    _table(rows.rows)


def _ask(
    options: argparse.Namespace,
    form: str,
    films: Sequence[Film],
    items: Sequence[Item],
    rows: JsonLines,
) -> None:
    """Rows of one form of the bank."""
    done = {row["key"] for row in rows.rows}
    todo = [item for item in items if f"{form} {item.id}" not in done]
    exact, folder = options.work / "bank-as-made", options.work / f"bank-{form.replace(' ', '-')}"
    if not todo:
        return
    if not folder.exists() and form != FORMS[0]:
        shutil.copytree(exact, folder)
    more = [*PLAIN, f"bank={folder}", f"read_tokens={options.read_tokens}", "reader=kv"]
    config = compose("ask", more)
    assert isinstance(config, AskSettings)
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank:
        if form != FORMS[0]:
            qa.bank.compaction.run(Rule(before=math.inf), StorageFormat(form, form))
        for film in films:
            source = open_video(config, backbone, str(options.work / f"{film.name}.mp4"))
            qa.ingester.ingest(source)
            segments = qa.bank.catalog.segments(source.info.video_id)
            for item in (item for item in todo if item.film == film.name):
                answer = qa.ask(Question(item.question, source.info.video_id))
                rows.append(
                    {
                        "key": f"{form} {item.id}", "form": form, "item": item.id,
                        "film": film.name, "text": answer.text,
                        "right": is_right(answer.text, item.answer),
                        "spans": [list(span) for span in answer.spans],
                        "hour": sum(row.nbytes for row in segments) * 3600 / segments[-1].end,
                    }
                )  # fmt: skip
    print(f"{form}: {len(todo)} questions", flush=True)


def _table(rows: Sequence[JsonRow]) -> None:
    head = "MB an hour | right, % | more than as made, points | same text, % | same citations, %"
    print(f"\n| segments | {head} |\n|{'---|' * 6}")
    exact = {row["item"]: row for row in rows if row["form"] == FORMS[0]}
    for form in FORMS:
        own = [row for row in rows if row["form"] == form]
        hour = sum(row["hour"] for row in own) / len(own) / 1e6
        mine = [(row["film"], bool(row["right"])) for row in own]
        before = [(row["film"], bool(exact[row["item"]]["right"])) for row in own]
        mean, low, high, _ = difference(mine, before)
        more = (
            "-"
            if form == FORMS[0]
            else f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        )
        same = [
            sum(row[name] == exact[row["item"]][name] for row in own) / len(own)
            for name in ("text", "spans")
        ]
        print(
            f"| {form} | {hour:.1f} | {cell(mine)} | {more} | {100 * same[0]:.1f} "
            f"| {100 * same[1]:.1f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--films", type=int, default=3, help="of each task")
    parser.add_argument("--read-tokens", type=int, default=256)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=["retrieve", "order", "count", "confuser"])
    measurement_page.run(parser, report)
