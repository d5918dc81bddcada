"""Films of the needle world with their questions as a job file, for tests of batches.

Half of the questions that allow it come with four options, the others are open. Of a batch this
knows only the columns.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.needle_world import video
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import FAMILIES, NOT_SHOWN, ask_one
from pipeline.needle_world.scenes import random_scene

_WORDS: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "color": tuple(COLORS),
    "shape": SHAPES,
    "icon": ICONS,
}


def make(
    folder: Path,
    count: int,
    seconds: float,
    questions_per_film: int,
    *,
    needles: int = 3,
    size: tuple[int, int] = (480, 270),
    seed: int = 7,
) -> Path:
    """Write film-00.mp4, film-01.mp4, ... and jobs.jsonl with so many questions for each. Returns
    the path of the job file.
    """
    rows: list[dict[str, Any]] = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        scene = random_scene(rng, needles)
        path = folder / f"film-{number:02d}.mp4"
        if not path.exists():
            placed = video.plan(rng, scene, seconds)
            video.write(path, placed, seconds, video.procedural_footage(number, size), size=size)
        # the same questions, whether or not the film was there
        rng = np.random.default_rng((seed, number, 1))
        texts = set[str]()
        while len(texts) < questions_per_film:
            one = ask_one(rng, scene, FAMILIES[int(rng.integers(len(FAMILIES)))])
            if one is None or one.text in texts:
                continue
            texts.add(one.text)
            row: dict[str, Any] = {
                "id": f"{number:02d}-{len(texts)}",
                "video": path.name,
                "question": one.text,
                "answer": one.answer,
            }
            if one.family in _WORDS and rng.random() < 0.5:
                others = [word for word in (*_WORDS[one.family], NOT_SHOWN) if word != one.answer]
                options = [
                    one.answer,
                    *(others[int(i)] for i in rng.choice(len(others), 3, replace=False)),
                ]
                row["options"] = [options[int(i)] for i in rng.permutation(4)]
            rows.append(row | {"task": one.family})
    (folder / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "jobs.jsonl"
