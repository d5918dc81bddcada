"""Films and rows for tests of the needle benchmark: a small grid, and results as published."""

import json
from collections.abc import Sequence
from dataclasses import replace

from encoders.schema import Frames, join_frames
from pipeline.config.compose import compose
from pipeline.evaluation.needle.films import vnbench
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.evaluation.needle.films.make import Grid, known_tasks, make
from pipeline.evaluation.needle.films.schema import Film, Item
from tests.support.paths import ROOT

FIXTURE = [
    json.loads(line)
    for line in (ROOT / "tests" / "support" / "vnbench_rows.jsonl").read_text().splitlines()
]
TASKS = known_tasks(compose("needle", []).needle_task)
FIRST_TASKS = (  # whose films have golden digests
    "retrieve", "order", "count", "most_frequent", "confuser", "multi_key", "updated", "chain",
)  # fmt: skip
GRID = Grid(
    (1.0,), (5.0, 25.0, 50.0, 75.0, 95.0), FIRST_TASKS, (3,), ("card",), 2.0, 0, (), False, 96, 54,
    TASKS,
)  # fmt: skip


def films_of(
    tasks: Sequence[str],
    films: int,
    seed: int,
    *,
    minutes: float = 1.0,
    depths: Sequence[float] = GRID.depths,
) -> tuple[list[Film], list[Item]]:
    """Films of a measurement, as many of each task, with cards of two seconds in 192x108 pixels;
    and the questions about them."""
    grid = replace(
        GRID, tasks=tuple(tasks), films=(films,), seed=seed, minutes=(minutes,),
        depths=tuple(depths), width=192, height=108,
    )  # fmt: skip
    return make(grid)


PUBLISHED = {
    "ret_edit1": 133, "ret_insert2": 131, "ret_insert1": 83, "ord_edit1": 105, "ord_insert1": 75,
    "ord_insert2": 56,
    "cnt_edit1": 62, "cnt_edit2": 13, "cnt_insert1": 41,
}  # fmt: skip
SINGLE = 3391  # of 5,400 tries


def published() -> list[dict[str, object]]:
    """5,400 rows in the published form, with the published number of right videos of each type and
    of right tries. Which of them are right is not published, and does not change a score.
    """
    spare = SINGLE - 4 * sum(PUBLISHED.values())
    rows = []
    for type_, whole in PUBLISHED.items():
        for video in range(150):
            hits = 4
            if video >= whole:  # up to three tries of the other videos, until all are given away
                hits = min(3, spare) if spare > 0 else 0
                spare -= hits
            for row in vnbench.tries(
                f"./VNBench/{video}_{type_}.mp4", type_, "?", "wxyz", video % 4, [1.0], 60.0
            ):
                right = row["gt_option"]
                pred = right if row["try"] < hits else "ABCD"["ABCD".index(right) - 1]
                rows.append(
                    {
                        "video_path": row["video"],
                        "task_type": type_,
                        "gt": right,
                        "pred": pred,
                        "try": row["try"],
                    }
                )
    assert spare == 0 and len(rows) == 5400
    return rows


def frames(film: Film, fps: float = 1.0, start: float = 0.0) -> Frames:
    """What a bank gets of a planned film."""
    return join_frames(list(FilmSource(film, fps, width=96, height=54).frames(start)))
