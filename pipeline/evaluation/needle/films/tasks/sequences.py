"""Questions about the order of cards: as VNBench (arXiv 2406.09367)."""

from dataclasses import dataclass
from itertools import permutations

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    Style,
    a_slot,
    absent,
    mixed,
    one_of,
    pick,
    resting_on,
    rotated,
)
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES, Placement
from pipeline.needle_world.questions import CODE, ORDER_GIVEN, ORDER_ICONS, ORDER_NAMES, listed


@dataclass(frozen=True, slots=True)
class Order(NeedleTask):
    """The order of names, icons and shapes that the question names; one question about none."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        each = 4 if room >= 12 else 3
        drafts: list[Draft] = []
        groups: list[list[Card]] = []
        for kind, words in (("name", NAMES), ("icon", ICONS), ("shape", SHAPES)):
            chosen = pick(rng, words, each)
            orders = [", ".join(words) for words in permutations(chosen)]
            options, slot = pick(rng, orders, 4), a_slot(rng)
            template = {"name": ORDER_NAMES, "icon": ORDER_ICONS, "shape": ORDER_GIVEN}[kind]
            question = one_of(rng, template).format(items=listed(pick(rng, chosen, each)))
            drafts.append(Draft(kind, question, tuple(options), slot, ()))
            colors = pick(rng, tuple(COLORS), each) if kind == "shape" else [""] * each
            groups.append(
                [Card(kind, w, c) for w, c in zip(options[slot].split(", "), colors, strict=True)]
            )
        cards, needles = mixed(rng, groups)
        return Sheet(
            tuple(cards), (*resting_on(drafts, needles), absent("code", one_of(rng, CODE)))
        )


@dataclass(frozen=True, slots=True)
class Neighbours(NeedleTask):
    """Eight shapes in a row: which came right before one of them, and which right after."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        shapes, colors = pick(rng, SHAPES, len(SHAPES)), pick(rng, tuple(COLORS), len(COLORS))
        drafts = []
        for family, step in (("before", -1), ("after", 1)):
            place = int(rng.integers(1, len(shapes) - 1))
            right, named = shapes[place + step], shapes[place]
            others = pick(rng, [shape for shape in shapes if shape not in (right, named)], 3)
            slot, needles = a_slot(rng), tuple(sorted((place, place + step)))
            question = f"Which shape was shown right {family} the {named}?"
            drafts.append(Draft(family, question, rotated([right, *others], slot), slot, needles))
        cards = [Card("shape", shape, color) for shape, color in zip(shapes, colors, strict=True)]
        return Sheet(tuple(cards), tuple(drafts))


@dataclass(frozen=True, slots=True)
class Thumbnails(NeedleTask):
    """Four moments of the footage, shuffled on a card at the end: in which order did they come?"""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        orders = [", ".join(letters) for letters in permutations("ABCD")]
        options, slot = pick(rng, orders, 4), a_slot(rng)
        order = options[slot].split(", ")
        moments = [f"{{middles[{number}]:.3f}}" for number in range(4)]
        cells = " ".join(moments[order.index(letter)] for letter in "ABCD")
        cards = [*(Card("footage", moment) for moment in moments), Card("thumbnails", cells)]
        whole = Placement(0.0, 0.0, 1.0, 1.0, False, (0, 0, 0))
        question = (
            "The last card shows four moments of the video, A to D. In which order did they come?"
        )
        return Sheet(
            tuple(cards),
            (Draft("footage", question, tuple(options), slot, tuple(range(5))),),
            styles={number: Style("card", whole) for number in range(5)},
            dated=True,
            spread=True,
        )
