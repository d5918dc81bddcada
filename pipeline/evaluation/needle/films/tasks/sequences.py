"""Questions about the order of cards: as VNBench (arXiv 2406.09367)."""

from dataclasses import dataclass
from itertools import permutations

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    absent,
    mixed,
    one_of,
    pick,
    resting_on,
)
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
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
