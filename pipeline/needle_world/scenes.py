"""Random scenes and their questions, for the demo and the evaluation.

Knows needles and questions; no video files and no model.
"""

import numpy as np

from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES, Needle, random_needle
from pipeline.needle_world.questions import FAMILIES, NeedleQuestion, ask_one


def random_scene(rng: np.random.Generator, count: int) -> list[Needle]:
    """`count` different needles.

    The shares of the kinds are random, and half of the scenes show one shape in several colours, so
    that every question family comes up.
    """
    scene: list[Needle] = []
    if count >= 4 and rng.random() < 0.5:
        shape = str(rng.choice(SHAPES))
        colors = rng.choice(
            list(COLORS), int(rng.integers(2, min(6, count - 1) + 1)), replace=False
        )
        scene += [Needle("shape", shape, str(color)) for color in colors]
    weights = rng.dirichlet((1.0, 1.0, 1.4, 1.0))
    while len(scene) < count:
        kind = ("code", "name", "shape", "icon")[int(rng.choice(4, p=weights))]
        if sum(n.kind == kind for n in scene) >= (8 if kind == "shape" else 6):
            continue
        needle = random_needle(rng, kind)  # type: ignore[arg-type]
        if needle not in scene:
            scene.append(needle)
    return [scene[int(i)] for i in rng.permutation(count)]


def questions(
    rng: np.random.Generator, scene: list[Needle], families: tuple[str, ...] = FAMILIES
) -> list[NeedleQuestion]:
    """One question of every family that this scene offers."""
    drawn = [ask_one(rng, scene, family) for family in families]
    return [one for one in drawn if one is not None]


def demo_scene(rng: np.random.Generator) -> tuple[list[Needle], list[NeedleQuestion]]:
    """Ten needles and eleven questions: every kind, and one about something that never shows."""
    shapes = [str(s) for s in rng.permutation(SHAPES)]
    colors = [str(c) for c in rng.permutation(list(COLORS))]
    counted, single = shapes[0], shapes[1:5]
    scene = [
        random_needle(rng, "code"),
        Needle("name", str(rng.choice(NAMES))),
        Needle("icon", str(rng.choice(ICONS))),
    ]
    scene += [Needle("shape", counted, colors[i]) for i in range(3)]
    scene += [Needle("shape", shape, colors[3 + i]) for i, shape in enumerate(single)]
    scene = [scene[int(i)] for i in rng.permutation(len(scene))]
    families = (
        "code",
        "name",
        "icon",
        "color",
        "shape",
        "order",
        "count",
        "color",
        "order",
        "count",
        "not_shown",
    )
    drawn: list[NeedleQuestion] = []
    for family in families:
        one = ask_one(rng, scene, family)
        while one is None or any(one.text == other.text for other in drawn):
            one = ask_one(rng, scene, family)
        drawn.append(one)
    return scene, drawn
