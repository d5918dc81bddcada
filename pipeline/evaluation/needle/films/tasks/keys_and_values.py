"""Cards with a name and a code, as keys and values of RULER (arXiv 2404.06654).

`PicturedValue` has a picture in place of the code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

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
)
from pipeline.needle_world.cards import ICONS, NAMES


@dataclass(frozen=True, slots=True)
class MultiKey(NeedleTask):
    """Four names with a code each; two codes are asked for."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        names, values = pick(rng, NAMES, 4), codes(rng, 4)
        drafts = []
        for i in (0, 1):
            options = tuple(pick(rng, values, 4))
            question = f"What is the code on the card of {names[i]}?"
            drafts.append(Draft("lines", question, options, options.index(values[i]), (i,)))
        cards = tuple(
            Card("lines", f"{name}: {value}") for name, value in zip(names, values, strict=True)
        )
        return Sheet(cards, tuple(drafts), (0, 1))


@dataclass(frozen=True, slots=True)
class MultiValue(NeedleTask):
    """One name with three codes and another with two; all codes of the first are the answer."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        (name, other), values = pick(rng, NAMES, 2), codes(rng, 5)
        options, slot = pick(rng, [", ".join(p) for p in permutations(values, 3)], 4), a_slot(rng)
        own = options[slot].split(", ")
        rest = [value for value in values if value not in own]
        cards, (needles, _) = mixed(rng, [_cards(name, own), _cards(other, rest)])
        question = f"What are the codes of {name}, in the order in which they are shown?"
        return Sheet(tuple(cards), (Draft("lines", question, tuple(options), slot, needles),))


@dataclass(frozen=True, slots=True)
class MultiQuery(NeedleTask):
    """Six names with a code each; one question asks for the codes of three."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        names, values = pick(rng, NAMES, 6), codes(rng, 6)
        options, slot = pick(rng, [", ".join(p) for p in permutations(values, 3)], 4), a_slot(rng)
        own = options[slot].split(", ")
        code_of = dict(
            zip(names, [*own, *(value for value in values if value not in own)], strict=True)
        )
        shown = pick(rng, names, len(names))
        needles = tuple(sorted(shown.index(name) for name in names[:3]))
        question = f"What are the codes of {names[0]}, {names[1]} and {names[2]}, in this order?"
        return Sheet(
            tuple(Card("lines", f"{name}: {code_of[name]}") for name in shown),
            (Draft("lines", question, tuple(options), slot, needles),),
        )


@dataclass(frozen=True, slots=True)
class PicturedValue(NeedleTask):
    """Four names with the picture of a thing each; two things are asked for.

    The text-and-image needles of Document Haystack (arXiv 2507.15882): the key is text, and no
    text says the value.
    """

    def sheet(self, rng: Rng, room: int) -> Sheet:
        names, things = pick(rng, NAMES, 4), pick(rng, ICONS, 4)
        cards = tuple(
            Card("pictured", f"{name}: {thing}") for name, thing in zip(names, things, strict=True)
        )
        drafts = []
        for i in (0, 1):
            options = tuple(pick(rng, things, 4))
            question = f"Which thing is beside the name {names[i]}?"
            drafts.append(Draft("icon", question, options, options.index(things[i]), (i,)))
        return Sheet(cards, tuple(drafts), (0, 1))


def _cards(name: str, values: Sequence[str]) -> list[Card]:
    return [Card("lines", f"{name}: {value}") for value in values]
