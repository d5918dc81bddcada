"""Cards with a name and a code, as keys and values of RULER (arXiv 2404.06654)."""

from dataclasses import dataclass

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import Draft, NeedleTask, Rng, Sheet, codes, pick
from pipeline.needle_world.cards import NAMES


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
