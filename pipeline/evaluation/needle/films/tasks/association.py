"""Questions that share no word with their card: NoLiMa (arXiv 2502.05167).

One step of knowledge about the world leads from the question to the card, and neither the words
nor the picture match it directly. The answer itself is arbitrary, so the step alone does not give
it away.
"""

from dataclasses import dataclass

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    mixed,
    pick,
    resting_on,
    rotated,
)
from pipeline.needle_world.cards import NAMES, SHAPES

# what a card names -> what a question asks for
LANDMARKS = {
    "Eiffel Tower": "Paris",
    "Colosseum": "Rome",
    "Kremlin": "Moscow",
    "Big Ben": "London",
    "Acropolis": "Athens",
    "Golden Gate": "San Francisco",
    "Sagrada Familia": "Barcelona",
    "Hagia Sophia": "Istanbul",
    "Forbidden City": "Beijing",
    "Taj Mahal": "India",
}
THINGS = {  # cyan is left out: nothing in the world has that colour and no other
    "red": "blood",
    "green": "fresh grass",
    "blue": "a clear sky",
    "yellow": "a ripe lemon",
    "orange": "a carrot",
    "purple": "an aubergine",
    "pink": "a flamingo",
}


@dataclass(frozen=True, slots=True)
class Association(NeedleTask):
    """Four names with a landmark each, and four shapes: who was in a city, what has the color of a
    thing.
    """

    def sheet(self, rng: Rng, room: int) -> Sheet:
        names, landmarks, slot = pick(rng, NAMES, 4), pick(rng, tuple(LANDMARKS), 4), a_slot(rng)
        people = [Card("lines", f"{a}: {b}") for a, b in zip(names, landmarks, strict=True)]
        who = f"Which person travelled to {LANDMARKS[landmarks[0]]}?"
        drafts = [Draft("landmark", who, rotated(names, slot), slot, ())]
        shapes, colors, slot = pick(rng, SHAPES, 4), pick(rng, tuple(THINGS), 4), a_slot(rng)
        figures = [Card("shape", a, b) for a, b in zip(shapes, colors, strict=True)]
        what = f"Which figure looks like {THINGS[colors[0]]}?"
        drafts.append(Draft("thing", what, rotated(shapes, slot), slot, ()))
        rng.shuffle(people)
        rng.shuffle(figures)
        cards, (lines, marks) = mixed(rng, [people, figures])
        needles = (
            (lines[[card.text.startswith(f"{names[0]}:") for card in people].index(True)],),
            (marks[[card.text == shapes[0] for card in figures].index(True)],),
        )
        return Sheet(
            tuple(cards), resting_on(drafts, needles), tuple(places[0] for places in needles)
        )
