"""Cards that name the next card: RULER (2404.06654), Needle Threading (2411.05000)."""

from dataclasses import dataclass
from itertools import pairwise, permutations

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
)
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


@dataclass(frozen=True, slots=True)
class Threads(NeedleTask):
    """Interleaved threads of cards, each of which names the next one or ends in a code."""

    threads: int = 4
    length: int = 3  # cards of a thread
    direction: str = "forward"  # backward: the card that comes next is shown before
    queried: int = 1  # threads that the question asks for

    def __post_init__(self) -> None:
        """UserError on what is no such film."""
        names = self.threads * self.length
        fits = names <= len(NAMES) and self.length >= 1 and 1 <= self.queried <= self.threads
        if not fits or self.threads < 4 or self.direction not in ("forward", "backward"):
            raise UserError(
                f"threads={self.threads} length={self.length} direction={self.direction} "
                f"queried={self.queried} does not fit; give 4 threads or more, at most "
                f"{len(NAMES)} cards, forward or backward, and no more queried than threads."
            )

    def sheet(self, rng: Rng, room: int) -> Sheet:
        names, values = pick(rng, NAMES, self.threads * self.length), codes(rng, self.threads)
        ends = [", ".join(p) for p in permutations(values, self.queried)]
        options, slot = pick(rng, ends, 4), a_slot(rng)
        own = options[slot].split(", ")
        own += pick(rng, [value for value in values if value not in own], len(values) - len(own))
        groups = []
        for number, code in enumerate(own):
            thread = names[number * self.length : (number + 1) * self.length]
            links = [f"{a} > {b}" for a, b in pairwise(thread)] + [f"{thread[-1]}: {code}"]
            ordered = links if self.direction == "forward" else links[::-1]
            groups.append([Card("lines", text) for text in ordered])
        cards, places = mixed(rng, groups)
        needles = tuple(sorted(sum(places[: self.queried], ())))
        begins = [names[number * self.length] for number in range(self.queried)]
        question = (
            f"Follow the cards from {begins[0]}: which code stands at the end?"
            if self.queried == 1
            else f"Follow the cards from {' and from '.join(begins)}: which codes stand at the "
            "ends, in this order?"
        )
        return Sheet(tuple(cards), (Draft("lines", question, tuple(options), slot, needles),))
