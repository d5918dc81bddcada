"""Questions about numbers of cards: VNBench (arXiv 2406.09367), RULER (arXiv 2404.06654)."""

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    codes,
    mixed,
    one_of,
    pick,
    resting_on,
)
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import COUNT, plural

COUNTED = {"code": ("codes",), "name": ("secret words", "names"), "icon": ("icons",)}


@dataclass(frozen=True, slots=True)
class Count(NeedleTask):
    """How many codes, names or icons, and shapes of one form: 1 to 6.

    The number of questions depends only on the film's room. Dropping a high number that does not
    fit would make low numbers the better guess.
    """

    def sheet(self, rng: Rng, room: int) -> Sheet:
        kinds = pick(rng, ("code", "name", "icon", "shape"), min(3, room // 6))
        drafts: list[Draft] = []
        groups: list[list[Card]] = []
        for kind in kinds:
            options = [str(n) for n in rng.choice(np.arange(1, 7), 4, replace=False)]
            slot = a_slot(rng)
            number = int(options[slot])
            if kind == "shape":
                shape = one_of(rng, SHAPES)
                groups.append(
                    [Card(kind, shape, color) for color in pick(rng, tuple(COLORS), number)]
                )
                items = plural(shape)
            else:
                words = (
                    codes(rng, number)
                    if kind == "code"
                    else pick(rng, NAMES if kind == "name" else ICONS, number)
                )
                groups.append([Card(kind, word) for word in words])
                items = one_of(
                    rng,
                    COUNTED[kind],
                )
            drafts.append(
                Draft(kind, one_of(rng, COUNT).format(items=items), tuple(options), slot, ())
            )
        cards, needles = mixed(rng, groups)
        return Sheet(
            tuple(cards),
            resting_on(drafts, needles),
        )


@dataclass(frozen=True, slots=True)
class MostFrequent(NeedleTask):
    """Four names (and, with room, four icons), one of which comes more often than the others."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        drafts: list[Draft] = []
        groups: list[list[Card]] = []
        for kind, words, times in (("name", NAMES, (3, 2, 1, 1)), ("icon", ICONS, (3, 2, 2, 1))):
            if sum(map(len, groups)) + sum(times) > room:
                break
            options, slot = pick(rng, words, 4), a_slot(rng)
            often = dict(
                zip(
                    [options[slot], *(w for i, w in enumerate(options) if i != slot)],
                    times,
                    strict=True,
                )
            )
            groups.append(
                [
                    Card(kind, word)
                    for word in pick(
                        rng, [w for w, n in often.items() for _ in range(n)], sum(times)
                    )
                ]
            )
            question = f"Which {kind} appeared most often in the video?"
            drafts.append(Draft(kind, question, tuple(options), slot, ()))
        cards, needles = mixed(rng, groups)
        return Sheet(
            tuple(cards),
            resting_on(drafts, needles),
        )
