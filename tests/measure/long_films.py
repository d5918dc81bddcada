"""What questions about one long film get right, and what each answer strategy reads for them.

    python -m tests.measure.long_films --hours 10 --bank /tmp/ten

One rendered film holds cards of every kind, so it is encoded once for all questions: the order of
icons and of shapes, the most frequent name, the number of codes, single moments, and what is not
shown. Each question goes through each strategy, cold and once more with what the bank kept. The
bank stays, and the rows beside it, so a run that was cut short goes on. Seconds are CPU seconds of
this process.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from memory.schema import Question
from memory.storage import json_lines
from memory.text.findings import FOLDER
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.qa import VideoQA
from pipeline.scoring import is_right
from tests.support import measurement_page
from tests.support.long_film import PLAIN, Asked, plan

TASKS = ("order", "most_frequent", "count", "retrieve", "not_shown")


def report(options: argparse.Namespace) -> None:
    """Encode the film where it is not in the bank, ask, and print a line for each question."""
    until = math.inf if options.until is None else 3600 * options.until
    film, asked = plan(3600 * options.hours, options.seed, until)
    asked = [one for one in asked if one[0] in options.tasks]
    rows = json_lines.JsonLines(options.bank.with_suffix(".jsonl"), ascii_only=True)
    done = {row["key"] for row in rows.rows}
    for arm in options.arms:
        name, *more = arm.split(",")
        settings = [f"answer={name}", *more, *PLAIN, f"bank={options.bank}"]
        config = compose("ask", settings)
        assert isinstance(config, AskSettings)
        backbone = build_backbone(config)
        qa = build_qa(config, backbone)
        with qa.bank:
            width, height = backbone.frame_size
            source = FilmSource(film, config.fps, width=width, height=height)
            if options.until is None:
                _encode(qa, source)
            for one in asked:
                for turn in ("cold", "again"):
                    key = f"{arm} {one[1]} {turn}"
                    if key in done:
                        continue
                    if turn == "cold":
                        shutil.rmtree(options.bank / FOLDER, ignore_errors=True)
                    row = {"key": key, "arm": arm, "turn": turn} | _ask(qa, source, one, until)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    rows.close()
    _table(rows.rows)


def _encode(qa: VideoQA, source: FilmSource) -> None:
    last = 0.0

    def progress(seconds: float, nbytes: int) -> None:
        nonlocal last
        if seconds - last >= 600:
            print(f"encoded {seconds:.0f} s, {nbytes >> 20} MiB, CPU {time.process_time():.0f} s",
                  flush=True)  # fmt: skip
            last = seconds

    began = time.process_time()
    ingested = qa.ingester.ingest(source, progress)
    print(f"encoding: {time.process_time() - began:.0f} CPU s, {ingested}")


def _ask(qa: VideoQA, source: FilmSource, asked: Asked, until: float) -> dict[str, object]:
    """One answer, with what it read."""
    task, question, truth = asked
    began = time.process_time()
    answer = qa.ask(Question(question, source.info.video_id, until))
    spent = time.process_time() - began
    trace = answer.trace
    assert trace is not None
    return {
        "task": task,
        "question": question,
        "truth": truth,
        "text": answer.text,
        "right": is_right(answer.text, truth),
        "calls": len(trace.calls),
        "contexts": sum(call.contexts for call in trace.calls),
        "reused": trace.reused,
        "tokens": trace.visual_tokens,
        "text_tokens": sum(call.text_tokens for call in trace.calls),
        "cpu": round(spent, 2),
    }


def _table(rows: Sequence[json_lines.JsonRow]) -> None:
    head = ("right", "passes", "contexts", "reused", "visual tokens", "text tokens", "CPU s")
    print(f"\n| arm | task | turn | {' | '.join(head)} |\n|{'---|' * 10}")
    mean: Callable[[list[json_lines.JsonRow], str], float]
    mean = lambda own, name: sum(row[name] for row in own) / len(own)  # noqa: E731
    for arm, task, turn in dict.fromkeys((r["arm"], r["task"], r["turn"]) for r in rows):
        own = [r for r in rows if (r["arm"], r["task"], r["turn"]) == (arm, task, turn)]
        names = ("calls", "contexts", "reused", "tokens", "text_tokens")
        cells = " | ".join(f"{mean(own, name):,.1f}" for name in names)
        right = sum(row["right"] for row in own)
        print(f"| {arm} | {task} | {turn} | {right} of {len(own)} | {cells} "
              f"| {mean(own, 'cpu'):.2f} |")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--until", type=float, help="ask about so many hours, and encode no more")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--arms", nargs="*", default=["retrieve", "map_reduce", "route"])
    measurement_page.run(parser, report)
