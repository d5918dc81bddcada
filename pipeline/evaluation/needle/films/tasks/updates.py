"""Values that change: LongMemEval (arXiv 2410.10813)."""

from dataclasses import dataclass

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import Draft, NeedleTask, Rng, Sheet, codes, pick
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
