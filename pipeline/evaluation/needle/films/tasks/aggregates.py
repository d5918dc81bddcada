"""Database questions about cards: HoloBench (arXiv 2410.11996)."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from encoders.errors import UserError
from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    codes,
    mixed,
    pick,
    rotated,
)
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES

HIGHEST_OPTION = 8000  # options are below, so that there are codes above each of them


@dataclass(frozen=True, slots=True)
class Extremes(NeedleTask):
    """Six names with a code each: which name has the lowest code, and which the highest."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        names, values = pick(rng, NAMES, 6), codes(rng, 6)
        drafts = []
        for family, best in (("lowest", min), ("highest", max)):
            place, slot = values.index(best(values)), a_slot(rng)
            others = pick(rng, [name for name in names if name != names[place]], 3)
            options = rotated([names[place], *others], slot)
            question = f"Which name has the {family} code?"
            drafts.append(Draft(family, question, options, slot, tuple(range(6))))
        pairs = zip(names, values, strict=True)
        return Sheet(tuple(Card("lines", f"{a}: {b}") for a, b in pairs), tuple(drafts))


@dataclass(frozen=True, slots=True)
class MinimumCode(NeedleTask):
    """Six cards with a code alone: the lowest of them. Options below it are on no card."""

    cards: int = 6

    def sheet(self, rng: Rng, room: int) -> Sheet:
        options, slot = _options(rng), a_slot(rng)
        values, _ = _with_minimum(rng, options, slot, self.cards)
        needles = tuple(range(len(values)))
        question = "What is the lowest code in the video?"
        return Sheet(
            tuple(Card("code", value) for value in pick(rng, values, len(values))),
            (Draft("code", question, options, slot, needles),),
        )


@dataclass(frozen=True, slots=True)
class Density(NeedleTask):
    """The lowest code of one name, whose cards are a given share of all cards."""

    share: float = 0.5  # of cards that the answer rests on, above 0 to 1
    cards: int = 12

    def __post_init__(self) -> None:
        """UserError on a share that is none."""
        if not 0 < self.share <= 1 or self.cards < 1:
            raise UserError(
                f"share={self.share:g} cards={self.cards} does not fit; give a share above 0 and "
                "up to 1, and at least one card."
            )

    def sheet(self, rng: Rng, room: int) -> Sheet:
        relevant = max(1, round(self.share * self.cards))
        options, slot = _options(rng), a_slot(rng)
        own, lower = _with_minimum(rng, options, slot, relevant)
        name, *others = pick(rng, NAMES, 1 + self.cards - relevant)
        # lower options stand on cards of other names, where there is room for them
        free = [
            *lower,
            *(code for code in codes(rng, self.cards + 8) if code not in (*options, *own)),
        ]
        rest = zip(others, free, strict=False)
        cards, (needles, _) = mixed(
            rng,
            [
                [Card("lines", f"{name}: {value}") for value in pick(rng, own, len(own))],
                [Card("lines", f"{other}: {value}") for other, value in rest],
            ],
        )
        question = f"What is the lowest code of {name}?"
        return Sheet(tuple(cards), (Draft("lines", question, options, slot, needles),))


@dataclass(frozen=True, slots=True)
class GroupBy(NeedleTask):
    """Shapes of three colours, one to three of each: how many of each; and two icons."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        colors = pick(rng, tuple(COLORS), 3)
        counts = list(product((1, 2, 3), repeat=3))
        chosen, slot = [counts[int(i)] for i in rng.permutation(len(counts))[:4]], a_slot(rng)
        options = tuple(
            ", ".join(f"{number} {color}" for number, color in zip(each, colors, strict=True))
            for each in chosen
        )
        shapes = [
            Card("shape", shape, color)
            for number, color in zip(chosen[slot], colors, strict=True)
            for shape in pick(rng, SHAPES, number)
        ]
        order = rng.permutation(len(shapes)).tolist()
        cards, (needles, _) = mixed(
            rng, [[shapes[i] for i in order], [Card("icon", icon) for icon in pick(rng, ICONS, 2)]]
        )
        question = f"How many {colors[0]}, {colors[1]} and {colors[2]} shapes were shown?"
        return Sheet(tuple(cards), (Draft("shape", question, options, slot, needles),))


def _options(rng: Rng) -> tuple[str, ...]:
    return tuple(f"{n:04d}" for n in rng.choice(HIGHEST_OPTION, 4, replace=False))


def _with_minimum(
    rng: Rng, options: tuple[str, ...], slot: int, number: int
) -> tuple[list[str], list[str]]:
    """`number` codes whose minimum is the right option; and the options that are lower.

    Higher options are among them as far as they fit.
    """
    right = options[slot]
    higher = [option for option in options if option > right]
    free = np.setdiff1d(np.arange(int(right) + 1, 10_000), [int(option) for option in higher])
    more = [f"{n:04d}" for n in rng.choice(free, number, replace=False)]
    return [right, *higher, *more][:number], [option for option in options if option < right]
