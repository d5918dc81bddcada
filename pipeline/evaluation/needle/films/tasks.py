"""The tasks: sheets of cards that share one film, with questions and exact answers.

- retrieve: one card (code, name, icon, the colour of a shape, the shape of a colour), each at a
  depth of its own
- not_shown: the same questions about what no card shows; the right answer is that it is not shown
- order, count: as VNBench; the order of 3 or 4 cards, 1 to 6 cards of a kind
- most_frequent: which name (or icon) came most often
- confuser: the shape of a colour among shapes of neighbouring colours
- multi_key: the code on the card with a given name, among such cards
- updated: the latest of three codes of one name
- chain: "Ivy > Leo", "Leo > Uma", "Uma: 4821": follow the cards from a name to a code

The embedded model knows the words of the first five; the last three need a model that reads text.

Options come first, and the right one is drawn among them uniformly; only then is the film made to
fit. So no rule over the text of the options (the third smallest number, the order closest to the
others) can beat chance. Knows no pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from encoders.errors import UserError
from pipeline.evaluation.needle.films.schema import Card
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import (
    CODE,
    COLOR,
    COUNT,
    ICON,
    NAME,
    NOT_SHOWN,
    ORDER_GIVEN,
    ORDER_ICONS,
    ORDER_NAMES,
    SHAPE,
    listed,
    plural,
)

Rng = np.random.Generator
# Colours that are easily confused: a question asks for one of them, the others show as well.
NEIGHBOURS = (("red", "orange", "yellow", "pink"), ("green", "blue", "purple", "cyan"))


@dataclass(frozen=True, slots=True)
class Draft:
    """A question whose film has no times yet; needles are numbers of the sheet's cards."""

    task: str
    family: str
    question: str
    options: tuple[str, ...]
    slot: int  # -1: not shown, no options
    needles: tuple[int, ...]

    @property
    def answer(self) -> str:
        return NOT_SHOWN if self.slot < 0 else self.options[self.slot]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The cards of one film in their order, and the questions about them.

    `at_depths`: cards that each need a depth of their own, in any order; the others lie anywhere.
    """

    cards: tuple[Card, ...]
    drafts: tuple[Draft, ...]
    at_depths: tuple[int, ...] = ()


def pick(rng: Rng, options: Sequence[str], count: int) -> list[str]:
    """`count` different options, in random order."""
    return [options[int(i)] for i in rng.permutation(len(options))[:count]]


def one_of(rng: Rng, options: Sequence[str]) -> str:
    """One option, drawn uniformly."""
    return options[int(rng.integers(len(options)))]


def codes(rng: Rng, count: int) -> list[str]:
    """Different four-digit codes."""
    return [f"{n:04d}" for n in rng.choice(10_000, count, replace=False)]


def _slot(rng: Rng) -> int:
    return int(rng.integers(4))


def retrieve(rng: Rng, room: int) -> Sheet:
    """Code, name, icon and three coloured shapes: five questions about one card, one about none."""
    drafts: list[Draft] = []
    cards: list[Card] = []
    for kind, words, templates in (
        ("code", codes(rng, 4), CODE),
        ("name", NAMES, NAME),
        ("icon", ICONS, ICON),
    ):
        options, slot = pick(rng, words, 4), _slot(rng)
        drafts.append(
            Draft("retrieve", kind, one_of(rng, templates), tuple(options), slot, (len(cards),))
        )
        cards.append(Card(kind, options[slot]))
    colors, shapes, slot = (
        pick(rng, tuple(COLORS), len(COLORS)),
        pick(rng, SHAPES, len(SHAPES)),
        _slot(rng),
    )
    # Two of the three wrong options are on other cards, so "a colour that shows" is not enough.
    question = one_of(rng, COLOR).format(shape=shapes[0])
    drafts.append(Draft("retrieve", "color", question, _rotated(colors[:4], slot), slot, (3,)))
    slot = _slot(rng)
    question = one_of(rng, SHAPE).format(color=colors[1])
    drafts.append(
        Draft(
            "retrieve",
            "shape",
            question,
            _rotated([shapes[1], shapes[0], *shapes[2:4]], slot),
            slot,
            (4,),
        )
    )
    cards += [Card("shape", shapes[i], colors[i]) for i in range(3)]
    absent = one_of(
        rng,
        (one_of(rng, COLOR).format(shape=shapes[7]), one_of(rng, SHAPE).format(color=colors[7])),
    )
    drafts.append(Draft("not_shown", "shape", absent, (), -1, ()))
    return Sheet(tuple(cards), tuple(drafts), (0, 1, 2, 3, 4))


def _rotated(words: Sequence[str], slot: int) -> tuple[str, ...]:
    """The words with the first one moved to this slot."""
    rest = list(words[1:])
    rest.insert(slot, words[0])
    return tuple(rest)


def order(rng: Rng, room: int) -> Sheet:
    """The order of names, icons and shapes that the question names; one question about none."""
    each = 4 if room >= 12 else 3
    drafts: list[Draft] = []
    groups: list[list[Card]] = []
    for kind, words in (("name", NAMES), ("icon", ICONS), ("shape", SHAPES)):
        chosen = pick(rng, words, each)
        orders = [", ".join(words) for words in permutations(chosen)]
        options, slot = pick(rng, orders, 4), _slot(rng)
        template = {"name": ORDER_NAMES, "icon": ORDER_ICONS, "shape": ORDER_GIVEN}[kind]
        question = one_of(rng, template).format(items=listed(pick(rng, chosen, each)))
        drafts.append(Draft("order", kind, question, tuple(options), slot, ()))
        colors = pick(rng, tuple(COLORS), each) if kind == "shape" else [""] * each
        groups.append(
            [Card(kind, w, c) for w, c in zip(options[slot].split(", "), colors, strict=True)]
        )
    cards, needles = _mixed(rng, groups)
    drafts = [_with(draft, places) for draft, places in zip(drafts, needles, strict=True)]
    return Sheet(tuple(cards), (*drafts, Draft("not_shown", "code", one_of(rng, CODE), (), -1, ())))


def count(rng: Rng, room: int) -> Sheet:
    """How many codes, names or icons, and shapes of one form: 1 to 6.

    The number of questions depends only on the film's room. Dropping a high number that does not
    fit would make low numbers the better guess.
    """
    kinds = pick(rng, ("code", "name", "icon", "shape"), min(3, room // 6))
    drafts: list[Draft] = []
    groups: list[list[Card]] = []
    for kind in kinds:
        options = [str(n) for n in rng.choice(np.arange(1, 7), 4, replace=False)]
        slot = _slot(rng)
        number = int(options[slot])
        if kind == "shape":
            shape = one_of(rng, SHAPES)
            groups.append([Card(kind, shape, color) for color in pick(rng, tuple(COLORS), number)])
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
                {"code": ("codes",), "name": ("secret words", "names"), "icon": ("icons",)}[kind],
            )
        drafts.append(
            Draft("count", kind, one_of(rng, COUNT).format(items=items), tuple(options), slot, ())
        )
    cards, needles = _mixed(rng, groups)
    return Sheet(
        tuple(cards),
        tuple(_with(draft, places) for draft, places in zip(drafts, needles, strict=True)),
    )


def most_frequent(rng: Rng, room: int) -> Sheet:
    """Four names (and, with room, four icons), one of which comes more often than the others."""
    drafts: list[Draft] = []
    groups: list[list[Card]] = []
    for kind, words, times in (("name", NAMES, (3, 2, 1, 1)), ("icon", ICONS, (3, 2, 2, 1))):
        if sum(map(len, groups)) + sum(times) > room:
            break
        options, slot = pick(rng, words, 4), _slot(rng)
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
                for word in pick(rng, [w for w, n in often.items() for _ in range(n)], sum(times))
            ]
        )
        question = f"Which {kind} appeared most often in the video?"
        drafts.append(Draft("most_frequent", kind, question, tuple(options), slot, ()))
    cards, needles = _mixed(rng, groups)
    return Sheet(
        tuple(cards),
        tuple(_with(draft, places) for draft, places in zip(drafts, needles, strict=True)),
    )


def confuser(rng: Rng, room: int) -> Sheet:
    """All eight colours with a shape each: which shape is orange, where others are red."""
    drafts: list[Draft] = []
    cards: list[Card] = []
    shapes = pick(rng, SHAPES, len(SHAPES))
    for group in NEIGHBOURS if room >= 8 else NEIGHBOURS[:1]:
        colors = pick(rng, group, 4)
        own, slot, base = [shapes.pop() for _ in colors], _slot(rng), len(cards)
        question = one_of(rng, SHAPE).format(color=colors[slot])
        drafts.append(Draft("confuser", "shape", question, tuple(own), slot, (base + slot,)))
        cards += [Card("shape", shape, color) for shape, color in zip(own, colors, strict=True)]
    at_depths = tuple(draft.needles[0] for draft in drafts)
    return Sheet(
        tuple(cards),
        (*drafts, Draft("not_shown", "name", one_of(rng, NAME), (), -1, ())),
        at_depths,
    )


def multi_key(rng: Rng, room: int) -> Sheet:
    """Four names with a code each; two codes are asked for."""
    names, values = pick(rng, NAMES, 4), codes(rng, 4)
    drafts = []
    for i in (0, 1):
        options = tuple(pick(rng, values, 4))
        question = f"What is the code on the card of {names[i]}?"
        drafts.append(
            Draft("multi_key", "lines", question, options, options.index(values[i]), (i,))
        )
    cards = tuple(
        Card("lines", f"{name}: {value}") for name, value in zip(names, values, strict=True)
    )
    return Sheet(cards, tuple(drafts), (0, 1))


def updated(rng: Rng, room: int) -> Sheet:
    """One name whose code changes twice, and another name."""
    (name, other), values = pick(rng, NAMES, 2), codes(rng, 4)
    options = tuple(pick(rng, values, 4))
    cards = [Card("lines", f"{name}: {value}") for value in values[:3]]
    cards.insert(int(rng.integers(4)), Card("lines", f"{other}: {values[3]}"))
    own = tuple(i for i, card in enumerate(cards) if card.text.startswith(f"{name}:"))
    question = f"What is the latest code of {name}?"
    return Sheet(
        tuple(cards), (Draft("updated", "lines", question, options, options.index(values[2]), own),)
    )


def chain(rng: Rng, room: int) -> Sheet:
    """Two chains of three cards in random order, and two codes that no chain leads to."""
    names, values = pick(rng, NAMES, 8), codes(rng, 4)
    texts = []
    for first, value in ((0, 0), (3, 1)):
        a, b, c = names[first : first + 3]
        texts += [f"{a} > {b}", f"{b} > {c}", f"{c}: {values[value]}"]
    texts += [f"{names[6]}: {values[2]}", f"{names[7]}: {values[3]}"]
    places = rng.permutation(len(texts)).tolist()  # card i of the chains comes as number places[i]
    cards = [Card("lines", texts[places.index(i)]) for i in range(len(texts))]
    options = tuple(pick(rng, values, 4))
    question = f"Follow the cards from {names[0]}: which code stands at the end?"
    needles = tuple(sorted(places[:3]))
    return Sheet(
        tuple(cards),
        (Draft("chain", "lines", question, options, options.index(values[0]), needles),),
    )


def _mixed(rng: Rng, groups: Sequence[Sequence[Card]]) -> tuple[list[Card], list[tuple[int, ...]]]:
    """Cards of several groups in one order, each group in its own; and each group's places."""
    owners = rng.permutation([g for g, cards in enumerate(groups) for _ in cards]).tolist()
    left = [list(cards) for cards in groups]
    cards = [left[owner].pop(0) for owner in owners]
    return cards, [
        tuple(i for i, owner in enumerate(owners) if owner == g) for g in range(len(groups))
    ]


def _with(draft: Draft, needles: tuple[int, ...]) -> Draft:
    return Draft(draft.task, draft.family, draft.question, draft.options, draft.slot, needles)


# "not_shown" has no sheet of its own: its questions are about films of other tasks.
SHEETS: dict[str, Callable[[Rng, int], Sheet]] = {
    "retrieve": retrieve,
    "order": order,
    "count": count,
    "most_frequent": most_frequent,
    "confuser": confuser,
    "multi_key": multi_key,
    "updated": updated,
    "chain": chain,
}
TASKS = (*SHEETS, "not_shown")


def check(tasks: Sequence[str]) -> None:
    """UserError on an unknown task."""
    for task in tasks:
        if task not in SHEETS:
            hint = (
                "; not_shown questions come with retrieve, order and confuser"
                if task == "not_shown"
                else ""
            )
            raise UserError(
                f"tasks has {task!r}, which is no task; use some of {', '.join(SHEETS)}{hint}."
            )
