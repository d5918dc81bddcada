"""Questions about one card: retrieve as VNBench (arXiv 2406.09367), and colours that are near."""

from dataclasses import dataclass

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    absent,
    codes,
    one_of,
    pick,
    rotated,
)
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import CODE, COLOR, ICON, NAME, SHAPE

# Colours that are easily confused: a question asks for one of them, the others show as well.
NEIGHBOURS = (("red", "orange", "yellow", "pink"), ("green", "blue", "purple", "cyan"))


@dataclass(frozen=True, slots=True)
class Retrieve(NeedleTask):
    """Code, name, icon and three coloured shapes: five questions about one card, one about none."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        drafts: list[Draft] = []
        cards: list[Card] = []
        for kind, words, templates in (
            ("code", codes(rng, 4), CODE),
            ("name", NAMES, NAME),
            ("icon", ICONS, ICON),
        ):
            options, slot = pick(rng, words, 4), a_slot(rng)
            drafts.append(Draft(kind, one_of(rng, templates), tuple(options), slot, (len(cards),)))
            cards.append(Card(kind, options[slot]))
        colors, shapes, slot = (
            pick(rng, tuple(COLORS), len(COLORS)),
            pick(rng, SHAPES, len(SHAPES)),
            a_slot(rng),
        )
        # Two of the three wrong options are on other cards, so "a colour that shows" is not enough.
        question = one_of(rng, COLOR).format(shape=shapes[0])
        drafts.append(Draft("color", question, rotated(colors[:4], slot), slot, (3,)))
        slot = a_slot(rng)
        question = one_of(rng, SHAPE).format(color=colors[1])
        drafts.append(
            Draft(
                "shape", question, rotated([shapes[1], shapes[0], *shapes[2:4]], slot), slot, (4,)
            )
        )
        cards += [Card("shape", shapes[i], colors[i]) for i in range(3)]
        nothing = one_of(
            rng,
            (
                one_of(rng, COLOR).format(shape=shapes[7]),
                one_of(rng, SHAPE).format(color=colors[7]),
            ),
        )
        drafts.append(absent("shape", nothing))
        return Sheet(tuple(cards), tuple(drafts), (0, 1, 2, 3, 4))


@dataclass(frozen=True, slots=True)
class Confuser(NeedleTask):
    """All eight colours with a shape each: which shape is orange, where others are red."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        drafts: list[Draft] = []
        cards: list[Card] = []
        shapes = pick(rng, SHAPES, len(SHAPES))
        for group in NEIGHBOURS if room >= 8 else NEIGHBOURS[:1]:
            colors = pick(rng, group, 4)
            own, slot, base = [shapes.pop() for _ in colors], a_slot(rng), len(cards)
            question = one_of(rng, SHAPE).format(color=colors[slot])
            drafts.append(Draft("shape", question, tuple(own), slot, (base + slot,)))
            cards += [Card("shape", shape, color) for shape, color in zip(own, colors, strict=True)]
        at_depths = tuple(draft.needles[0] for draft in drafts)
        return Sheet(
            tuple(cards),
            (*drafts, absent("name", one_of(rng, NAME))),
            at_depths,
        )
