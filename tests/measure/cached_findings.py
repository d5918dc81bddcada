"""What a question about a whole film costs with no finding in the bank, and again with them.

    python -m tests.measure.cached_findings --minutes 10

The embedded model and answer=map_reduce on rendered films of the needle benchmark. Each question is
asked twice of the same bank: the first time it reads every segment, unless a question of the same
form came before; the second time it reads what was kept. Seconds are CPU seconds of this process.
"""

import argparse
import tempfile
import time
from pathlib import Path

from memory.schema import Question
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.config.tasks.question_settings import AskSettings
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.scoring import is_right
from tests.support import measurement_page
from tests.support.needle_films import films_of


def report(options: argparse.Namespace) -> None:
    """Print a line for each question."""
    every, items = films_of(
        ("count", "order"), options.films, options.seed, minutes=options.minutes, depths=(50,)
    )
    print("\n| film | question | pass | right | passes | contexts | reused | tokens | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        config = compose("ask", ["answer=map_reduce", "threads=1", f"bank={Path(folder) / 'bank'}"])
        assert isinstance(config, AskSettings)
        backbone = build_backbone(config)
        qa = build_qa(config, backbone)
        width, height = backbone.frame_size
        with qa.bank:
            for film in every:
                source = FilmSource(film, config.fps, width=width, height=height)
                qa.ingest(source)
                own = [item for item in items if item.film == film.name and item.options]
                for item in own:
                    for name in ("first", "again"):
                        began = time.process_time()
                        answer = qa.ask(Question(item.question, source.info.video_id))
                        spent = time.process_time() - began
                        trace = answer.trace
                        assert trace is not None
                        contexts = sum(call.contexts for call in trace.calls)
                        cells = (
                            film.name, item.question, name, is_right(answer.text, item.answer),
                            len(trace.calls), contexts, trace.reused, trace.visual_tokens,
                            f"{spent:.2f}",
                        )  # fmt: skip
                        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--films", type=int, default=2)
    parser.add_argument("--seed", type=int, default=41)
    measurement_page.run(parser, report)
