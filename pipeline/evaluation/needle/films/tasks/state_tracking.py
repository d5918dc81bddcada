"""Facts that follow each other, as in bAbI (arXiv 1502.05698) and BABILong (arXiv 2406.10149)."""

from dataclasses import dataclass, field

from encoders.errors import UserError
from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    one_of,
    pick,
    rotated,
)
from pipeline.needle_world.cards import NAMES

PLACES = ("kitchen", "garden", "office", "hallway", "bathroom", "bedroom")
THINGS = ("apple", "book", "football", "lamp")


@dataclass(slots=True)
class _World:
    """People, one thing, and the facts so far; `support`: numbers of facts that settle a place."""

    facts: list[str] = field(default_factory=list)
    place_of: dict[str, str] = field(default_factory=dict)
    support: dict[str, tuple[int, ...]] = field(default_factory=dict)
    carrier: str = ""
    taken: int = -1  # number of the fact that the thing was taken

    def move(self, person: str, place: str) -> None:
        self.place_of[person], self.support[person] = place, (len(self.facts),)
        self.facts.append(f"{person} went to the {place}.")

    def take(self, person: str, thing: str) -> None:
        self.carrier, self.taken = person, len(self.facts)
        self.facts.append(f"{person} took the {thing}.")

    def drop(self, thing: str) -> None:
        self.place_of[thing] = self.place_of[self.carrier]
        self.support[thing] = (*self.of_carrier(), len(self.facts))
        self.facts.append(f"{self.carrier} dropped the {thing}.")
        self.carrier = ""

    def of_carrier(self) -> tuple[int, ...]:
        return tuple(sorted({self.taken, *self.support[self.carrier]}))

    def thing_is(self, thing: str) -> tuple[str, tuple[int, ...]]:
        """Where it is, and the facts that say so."""
        if self.carrier:
            return self.place_of[self.carrier], self.of_carrier()
        return self.place_of[thing], self.support[thing]


@dataclass(frozen=True, slots=True)
class StateTracking(NeedleTask):
    """Two people move, take and drop a thing: where is one of them, and where is the thing?"""

    steps: int = 8  # facts of a film, 4 or more

    def __post_init__(self) -> None:
        """UserError when a thing cannot be taken in so few steps."""
        if self.steps < 4:
            raise UserError(f"steps={self.steps} is too few for two people; give 4 or more.")

    def sheet(self, rng: Rng, room: int) -> Sheet:
        people, thing = pick(rng, NAMES, 2), one_of(rng, THINGS)
        world = _World()
        for person in people:
            world.move(person, one_of(rng, PLACES))
        world.take(one_of(rng, people), thing)
        while len(world.facts) < self.steps:
            way, person = int(rng.integers(4)), one_of(rng, people)
            if way == 0 and world.carrier:
                world.drop(thing)
            elif way == 1 and world.place_of.get(thing) == world.place_of[person]:
                if not world.carrier:
                    world.take(person, thing)
            else:
                others = [place for place in PLACES if place != world.place_of[person]]
                world.move(person, one_of(rng, others))
        drafts = []
        person = one_of(rng, people)
        where = (world.place_of[person], world.support[person])
        for name, (place, needles) in ((person, where), (f"the {thing}", world.thing_is(thing))):
            slot = a_slot(rng)
            others = pick(rng, [other for other in PLACES if other != place], 3)
            family = "person" if name == person else "thing"
            drafts.append(
                Draft(family, f"Where is {name}?", rotated([place, *others], slot), slot, needles)
            )
        return Sheet(tuple(Card("sentence", fact) for fact in world.facts), tuple(drafts))
