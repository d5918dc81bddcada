"""Values that change: LongMemEval (arXiv 2410.10813)."""

from dataclasses import dataclass

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    codes,
    mixed,
    pick,
)
from pipeline.needle_world.cards import NAMES


@dataclass(frozen=True, slots=True)
class Updated(NeedleTask):
    """One name whose code changes twice, and another name."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        (name, other), values = pick(rng, NAMES, 2), codes(rng, 4)
        options = tuple(pick(rng, values, 4))
        cards = [Card("lines", f"{name}: {value}") for value in values[:3]]
        cards.insert(int(rng.integers(4)), Card("lines", f"{other}: {values[3]}"))
        own = tuple(i for i, card in enumerate(cards) if card.text.startswith(f"{name}:"))
        question = f"What is the latest code of {name}?"
        return Sheet(
            tuple(cards), (Draft("lines", question, options, options.index(values[2]), own),)
        )


@dataclass(frozen=True, slots=True)
class AsOf(NeedleTask):
    """A name with four codes in turn and another with two: the code at a moment, and the last but
    one.
    """

    def sheet(self, rng: Rng, room: int) -> Sheet:
        (name, other), values = pick(rng, NAMES, 2), codes(rng, 6)
        groups = ((name, values[:4]), (other, values[4:]))
        cards, (own, _) = mixed(
            rng, [[Card("lines", f"{who}: {code}") for code in each] for who, each in groups]
        )
        valid = int(rng.integers(4))  # number of the code that holds at the moment
        last = own[valid + 1] - 1 if valid < 3 else len(cards) - 1
        card = int(rng.integers(own[valid], last + 1))  # the moment comes before the next code
        then, before = tuple(pick(rng, values[:4], 4)), tuple(pick(rng, values[:4], 4))
        return Sheet(
            tuple(cards),
            (
                Draft(
                    "as_of",
                    f"What was the code of {name} at {{pauses[{card}]}} of the video?",
                    then,
                    then.index(values[valid]),
                    own[: valid + 1],
                ),
                Draft(
                    "previous",
                    f"Which code of {name} was replaced by the latest one?",
                    before,
                    before.index(values[2]),
                    own,
                ),
            ),
            dated=True,
        )
