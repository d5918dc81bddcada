"""What a task makes: a sheet of cards that share one film, with questions and exact answers.

Options come first, and the right one is drawn among them uniformly; only then is the film made to
fit. So no rule over the text of the options (the third smallest number, the order closest to the
others) can beat chance. Knows no pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from encoders.errors import UserError
from pipeline.evaluation.needle.films.schema import Card
from pipeline.needle_world.cards import Placement
from pipeline.needle_world.questions import NOT_SHOWN

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Draft:
    """A question whose film has no times yet; needles are numbers of the sheet's cards."""

    family: str
    question: str
    options: tuple[str, ...]
    slot: int  # -1: not shown, no options
    needles: tuple[int, ...]
    task: str = ""  # "": the task that the film is made for

    @property
    def answer(self) -> str:
        return NOT_SHOWN if self.slot < 0 else self.options[self.slot]


def absent(family: str, question: str) -> Draft:
    """A question about what no card of the film shows."""
    return Draft(family, question, (), -1, (), "not_shown")


@dataclass(frozen=True, slots=True)
class Style:
    """How a card looks and where, in place of what the settings and chance would say."""

    look: str
    place: Placement
    to: Placement | None = None  # where it is when it goes; None: it does not move


@dataclass(frozen=True, slots=True)
class Sheet:
    """The cards of one film in their order, and the questions about them.

    `at_depths`: cards that each need a depth of their own, in any order; the others lie anywhere.
    `dated`: texts of cards and questions are templates. `{middles[2]}` is the second in the middle
    of card 2, and `{pauses[2]}` a whole second, as m:ss, between card 2 and the next one.
    `spread`: the cards stand far apart, each near the middle of its own part of the film.
    """

    cards: tuple[Card, ...]
    drafts: tuple[Draft, ...]
    at_depths: tuple[int, ...] = ()
    styles: Mapping[int, Style] = field(default_factory=dict)  # card -> its style
    stitched: int = 1  # n: every frame is n x n pictures of the footage
    dated: bool = False
    spread: bool = False


@dataclass(frozen=True, slots=True)
class NeedleTask(ABC):
    """A kind of question. The same generator and room give the same sheet."""

    @property
    def needle_seconds(self) -> float:
        """How long a card shows; 0: as the setting says."""
        return 0.0

    @property
    def has_sound(self) -> bool:
        """Whether cards are heard, so that films have to be files."""
        return False

    @abstractmethod
    def sheet(self, rng: Rng, room: int) -> Sheet:
        """Cards and questions of one film. room: most cards that fit into it."""


def pick(rng: Rng, options: Sequence[str], count: int) -> list[str]:
    """`count` different options, in random order."""
    return [options[int(i)] for i in rng.permutation(len(options))[:count]]


def one_of(rng: Rng, options: Sequence[str]) -> str:
    """One option, drawn uniformly."""
    return options[int(rng.integers(len(options)))]


def codes(rng: Rng, count: int) -> list[str]:
    """Different four-digit codes."""
    return [f"{n:04d}" for n in rng.choice(10_000, count, replace=False)]


def a_slot(rng: Rng) -> int:
    """Where the right option stands."""
    return int(rng.integers(4))


def rotated(words: Sequence[str], slot: int) -> tuple[str, ...]:
    """The words with the first one moved to this slot."""
    rest = list(words[1:])
    rest.insert(slot, words[0])
    return tuple(rest)


def mixed(rng: Rng, groups: Sequence[Sequence[Card]]) -> tuple[list[Card], list[tuple[int, ...]]]:
    """Cards of several groups in one order, each group in its own; and each group's places."""
    owners = rng.permutation([g for g, cards in enumerate(groups) for _ in cards]).tolist()
    left = [list(cards) for cards in groups]
    cards = [left[owner].pop(0) for owner in owners]
    return cards, [
        tuple(i for i, owner in enumerate(owners) if owner == g) for g in range(len(groups))
    ]


def resting_on(drafts: Sequence[Draft], needles: Sequence[tuple[int, ...]]) -> tuple[Draft, ...]:
    """The questions with their needles, once these are in order."""
    pairs = zip(drafts, needles, strict=True)
    return tuple(replace(draft, needles=places) for draft, places in pairs)


def check(tasks: Sequence[str], known: Mapping[str, NeedleTask]) -> None:
    """UserError on an unknown task."""
    for task in tasks:
        if task not in known:
            hint = (
                "; not_shown questions come with retrieve, order and confuser"
                if task == "not_shown"
                else ""
            )
            raise UserError(
                f"tasks has {task!r}, which is no task; use some of {', '.join(known)}{hint}."
            )
