"""What the frames of earlier rounds do to the answers of a conversation, whole or the coarser the
older.

    python -m tests.measure.conversation_rounds --seed 5311 --work runs/rounds

One conversation about each film of one minute of the needle benchmark: its questions in turn, with
a history. All arms read visual tokens (`reader=tokens`) within the same budget, from one bank.
`history_tokens` of the budget are for frames that earlier rounds cited: none, whole ones
(`resolution=uniform`), or coarser ones (`resolution=round_decay`). Resumable by arm: --work keeps
the bank and the rows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from memory.schema import Question
from memory.storage.json_lines import JsonLines, JsonRow
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.conversation.history import History
from pipeline.conversation.round import Round
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.scoring import cell, difference, is_right
from tests.support import measurement_page
from tests.support.long_film import PLAIN
from tests.support.needle_films import films_of

ARMS = {
    "no history": ("history_tokens=0",),
    "whole frames": ("history_tokens={share}",),
    "round_decay": ("history_tokens={all}", "resolution=round_decay"),
    "round_decay, half": (
        "history_tokens={all}",
        "resolution=round_decay",
        "resolution.history_share=0.5",
    ),
}


def report(options: argparse.Namespace) -> None:
    """Encode the films, hold the conversations, and print the table."""
    options.work.mkdir(parents=True, exist_ok=True)
    films, items = films_of(["retrieve"], options.films, options.seed)
    rows = JsonLines(options.work / "rows.jsonl", ascii_only=True)
    sizes = {"share": options.read_tokens // 4, "all": options.read_tokens}
    for arm, settings in ARMS.items():
        if any(row["arm"] == arm for row in rows.rows):
            continue
        more = [each.format(**sizes) for each in settings]
        config = compose(
            "ask",
            [
                "reader=tokens",
                f"read_tokens={options.read_tokens}",
                *more,
                *PLAIN,
                f"bank={options.work / 'bank'}",
            ],
        )
        assert isinstance(config, AskSettings)
        for row in _conversations(config, arm, films, items):
            rows.append(row)
    rows.close()
    _table(rows.rows)


def _conversations(
    config: AskSettings, arm: str, films: Sequence[Film], items: Sequence[Item]
) -> list[JsonRow]:
    """One row for each round of each film's conversation."""
    rows: list[JsonRow] = []
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    with qa.bank:
        for film in films:
            width, height = backbone.frame_size
            source = FilmSource(film, config.fps, width=width, height=height)
            qa.ingester.ingest(source)
            history = History(backbone, config.history_tokens)
            own = [item for item in items if item.film == film.name and item.options]
            for number, item in enumerate(own):
                question = history.carry(Question(item.question, source.info.video_id))
                answer = qa.ask(question)
                assert not answer.warning, answer.warning
                history.add(Round.of(answer))
                rows.append(
                    {
                        "arm": arm,
                        "item": item.id,
                        "film": film.name,
                        "round": number,
                        "right": is_right(answer.text, item.answer),
                        "carried": len(question.keep),
                        "frames": answer.frames_read,
                        "tokens": answer.visual_tokens,
                    }
                )
    print(f"{arm}: {len(rows)} rounds", flush=True)
    return rows


def _table(rows: Sequence[JsonRow]) -> None:
    head = "right, % | more than no history, points | earlier frames offered | frames read | tokens"
    print(f"\n| arm | {head} |\n|{'---|' * 6}")
    first = {row["item"]: bool(row["right"]) for row in rows if row["arm"] == "no history"}
    for arm in ARMS:
        own = [row for row in rows if row["arm"] == arm]
        right = cell([(row["film"], float(row["right"])) for row in own])
        mean, low, high, _ = difference(
            [(row["film"], bool(row["right"])) for row in own],
            [(row["film"], first[row["item"]]) for row in own],
        )
        means = (
            sum(row[key] for row in own) / max(1, len(own))
            for key in ("carried", "frames", "tokens")
        )
        more = f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        print(f"| {arm} | {right} | {more} | {' | '.join(f'{each:.1f}' for each in means)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--films", type=int, default=12)
    parser.add_argument("--read-tokens", type=int, default=128)
    parser.add_argument("--work", type=Path, required=True)
    measurement_page.run(parser, report)
