"""Every answer strategy at every threshold of abstention, on what films show and do not show.

    python -m tests.measure.strategies_and_absence --seed 1805 --work /tmp/absence
    python -m tests.measure.strategies_and_absence --seed 1805 --work /tmp/noisy --noise 0.1

One-minute films of the needle benchmark, the embedded model, and one bank for all arms. --noise
adds normal noise to each weight matrix, as a share of its standard deviation: a stand-in for a
model that is less decided than the embedded one, and nothing else. False positives: answers to what
no card shows. False refusals: "not in the video" where a card shows it. Resumable: --work keeps the
bank and the rows.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from encoders.errors import UserError
from memory.schema import Question
from memory.storage.json_lines import JsonLines, JsonRow
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.scoring import cell, is_right
from tests.support import measurement_page
from tests.support.long_film import PLAIN
from tests.support.needle_films import films_of

TASKS = ("retrieve", "order", "confuser")  # those with questions about what is not shown
STRATEGIES = ("retrieve", "full", "map_reduce", "route", "iterative", "dual", "second_look")
ABSTENTIONS = ("none", "instruction", "0.05", "0.3", "0.7")  # numbers: thresholds of first_token


def report(options: argparse.Namespace) -> None:
    """Encode, ask, and print the tables."""
    options.work.mkdir(parents=True, exist_ok=True)
    more = [f"backbone.path={_noisy(options.work, options.noise)}"] if options.noise else []
    more += options.overrides
    films, items = films_of(options.tasks, options.films, options.seed)
    rows = JsonLines(options.work / "rows.jsonl", ascii_only=True)
    done = {row["key"] for row in rows.rows}
    for strategy in options.strategies:
        for abstention in options.abstentions:
            name = abstention if abstention[0].isalpha() else "first_token"
            settings = [f"answer={strategy}", f"abstention={name}", *PLAIN, *more]
            if name == "first_token":
                settings.append(f"abstention.threshold={abstention}")
            settings.append(f"bank={options.work / 'bank'}")
            config = compose("ask", settings)
            assert isinstance(config, AskSettings)
            try:
                _ask(config, f"{strategy} {abstention}", films, items, rows, done)
            except UserError as error:
                print(f"{strategy} {abstention}: {error}", flush=True)
    rows.close()
    _tables(rows.rows)


def _noisy(work: Path, noise: float) -> Path:
    """A copy of the embedded model with noise in its weight matrices; made once."""
    folder = work / "model"
    if not folder.is_dir():
        config = compose("ask", list(PLAIN))
        assert isinstance(config, AskSettings)
        made = Path(tempfile.mkdtemp(dir=work))
        shutil.copytree(build_backbone(config).path, made, dirs_exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        for file in made.glob("*.safetensors"):
            weights = load_file(file)
            for name, weight in weights.items():
                if weight.dim() > 1 and weight.is_floating_point() and "language_model" in name:
                    values = torch.randn(weight.shape, generator=generator)
                    spread = float(weight.float().std())
                    weights[name] = (weight.float() + noise * spread * values).to(weight.dtype)
            save_file(weights, file, metadata={"format": "pt"})
        made.rename(folder)
    return folder


def _ask(
    config: AskSettings,
    arm: str,
    films: Sequence[Film],
    items: Sequence[Item],
    rows: JsonLines,
    done: set[str],
) -> None:
    """Rows of one arm about all films."""
    todo = [item for item in items if f"{arm} {item.id}" not in done]
    if not todo:
        return
    backbone = build_backbone(config)
    qa = build_qa(config, backbone)
    width, height = backbone.frame_size
    with qa.bank:
        for film in films:
            source = FilmSource(film, config.fps, width=width, height=height)
            qa.ingester.ingest(source)
            for item in (item for item in todo if item.film == film.name):
                qa.bank.findings.forget(source.info.video_id)
                answer = qa.ask(Question(item.question, source.info.video_id))
                trace = answer.trace
                assert trace is not None
                rows.append(
                    {
                        "key": f"{arm} {item.id}",
                        "arm": arm,
                        "film": film.name,
                        "task": item.task,
                        "shown": answer.shown,
                        "right": is_right(answer.text, item.answer),
                        "absent": not item.options,
                        "tokens": trace.visual_tokens,
                    }
                )
    print(f"{arm}: {len(todo)} questions", flush=True)


def _tables(rows: Sequence[JsonRow]) -> None:
    head = "false positives, % | false refusals, % | right, %"
    print(f"\n| strategy | threshold | {head} | visual tokens |\n|{'---|' * 6}")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        absent = [row for row in own if row["absent"]]
        present = [row for row in own if not row["absent"]]
        cells = (
            cell([(row["film"], float(row["shown"])) for row in absent]),
            cell([(row["film"], float(not row["shown"])) for row in present]),
            cell([(row["film"], float(row["right"])) for row in present]),
            f"{sum(row['tokens'] for row in own) / len(own):,.0f}",
        )
        print(f"| {' | '.join(arm.split())} | {' | '.join(cells)} |")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    print(f"\n| right, %, without abstention | {' | '.join(tasks)} |\n|{'---|' * (len(tasks) + 1)}")
    for arm in dict.fromkeys(row["arm"] for row in rows if row["arm"].endswith(" none")):
        own = [row for row in rows if row["arm"] == arm]
        shares = (
            cell([(r["film"], float(r["right"])) for r in own if r["task"] == task])
            for task in tasks
        )
        print(f"| {arm.split()[0]} | {' | '.join(shares)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--films", type=int, default=4, help="of each task")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--overrides", nargs="*", default=[], help="such as read_tokens=128")
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--abstentions", nargs="*", default=list(ABSTENTIONS))
    measurement_page.run(parser, report)
