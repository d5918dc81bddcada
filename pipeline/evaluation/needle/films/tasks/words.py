"""Needles in the words of a film: said in its sound, or printed on its frames.

As MM-NIAH (arXiv 2406.07230) and Document Haystack (arXiv 2507.15882) put text beside pictures.
`text=asr` and `text=ocr` find the words; no frame embedder has to.
"""

from dataclasses import dataclass

from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    pick,
)

# sentence, question, what may stand in the sentence
FACTS = (
    ("The captain's favourite fruit is the {}.", "What is the captain's favourite fruit?",
     ("banana", "cherry", "lemon", "melon", "orange", "peach")),
    ("The spare key lies under the {}.", "What does the spare key lie under?",
     ("carpet", "bottle", "blanket", "basket", "pillow", "ladder")),
    ("The meeting was moved to {}.", "To which day was the meeting moved?",
     ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")),
    ("The new teacher comes from {}.", "Where does the new teacher come from?",
     ("Canada", "Brazil", "Portugal", "Norway", "Japan", "Australia")),
    ("Our neighbour plays the {} at night.", "Which instrument does our neighbour play at night?",
     ("piano", "trumpet", "violin", "guitar", "drum", "flute")),
    ("The old bridge was built of {}.", "What was the old bridge built of?",
     ("wood", "iron", "stone", "brick", "glass", "steel")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Printed(NeedleTask):
    """Four sentences on cards, each with a question."""

    @property
    def needle_seconds(self) -> float:
        return 6.0  # text=ocr reads a frame every four seconds

    def sheet(self, rng: Rng, room: int) -> Sheet:
        return self._sheet(rng, "sentence")

    def _sheet(self, rng: Rng, kind: str) -> Sheet:
        drafts, cards = [], []
        for number, fact in enumerate(rng.permutation(len(FACTS))[:4].tolist()):
            sentence, question, words = FACTS[fact]
            options, slot = tuple(pick(rng, words, 4)), a_slot(rng)
            drafts.append(Draft(kind, question, options, slot, (number,)))
            cards.append(Card(kind, sentence.format(options[slot])))
        return Sheet(tuple(cards), tuple(drafts), tuple(range(len(cards))))


@dataclass(frozen=True, slots=True)
class Spoken(Printed):
    """The same sentences, said in the sound of the film and on no frame."""

    @property
    def has_sound(self) -> bool:
        return True

    def sheet(self, rng: Rng, room: int) -> Sheet:
        return self._sheet(rng, "speech")
