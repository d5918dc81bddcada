"""Cards that name the next card: RULER (2404.06654), Needle Threading (2411.05000)."""

from dataclasses import dataclass

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import Draft, NeedleTask, Rng, Sheet, codes, pick
from pipeline.needle_world.cards import NAMES


@dataclass(frozen=True, slots=True)
class Chain(NeedleTask):
    """Two chains of three cards in random order, and two codes that no chain leads to."""

    def sheet(self, rng: Rng, room: int) -> Sheet:
        names, values = pick(rng, NAMES, 8), codes(rng, 4)
        texts = []
        for first, value in ((0, 0), (3, 1)):
            a, b, c = names[first : first + 3]
            texts += [f"{a} > {b}", f"{b} > {c}", f"{c}: {values[value]}"]
        texts += [f"{names[6]}: {values[2]}", f"{names[7]}: {values[3]}"]
        places = rng.permutation(
            len(texts)
        ).tolist()  # card i of the chains comes as number places[i]
        cards = [Card("lines", texts[places.index(i)]) for i in range(len(texts))]
        options = tuple(pick(rng, values, 4))
        question = f"Follow the cards from {names[0]}: which code stands at the end?"
        needles = tuple(sorted(places[:3]))
        return Sheet(
            tuple(cards),
            (Draft("lines", question, options, options.index(values[0]), needles),),
        )
