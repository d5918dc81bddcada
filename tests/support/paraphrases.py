"""Questions in other words than the line that answers them. Knows no bank.

The world consists of facts: somebody does something to something. Each of the three parts has two
expressions that share no word. A line states a fact in the first expressions. A question asks for
it with none, one or all of the line's three words. Every word comes in many lines, so that only all
three together identify a fact.
"""

from dataclasses import dataclass

import numpy as np

from memory.text import tokenizer

WHO = [
    ("physician", "doctor"), ("attorney", "lawyer"), ("kid", "child"), ("cop", "police officer"),
    ("professor", "university teacher"), ("mariner", "sailor"), ("chef", "cook"),
    ("monarch", "king"),
    ("burglar", "thief"), ("author", "writer"),
    ("aviator", "pilot"), ("merchant", "shopkeeper"), ("infant", "baby"), ("rancher", "farmer"),
]  # fmt: skip
DID = [
    ("purchased", "bought", "buy"), ("repaired", "fixed", "fix"), ("concealed", "hid", "hide"),
    ("discarded", "threw away", "throw away"),
    ("located", "found", "find"), ("photographed", "took a picture of", "take a picture of"),
    ("demolished", "destroyed", "destroy"),
    ("cleansed", "washed", "wash"), ("inspected", "examined", "examine"),
    ("transported", "carried", "carry"),
]  # fmt: skip
WHAT = [
    ("automobile", "car"), ("couch", "sofa"), ("vessel", "boat"), ("residence", "house"),
    ("bicycle", "two-wheeler"),
    ("television", "TV set"), ("jewel", "gemstone"), ("infirmary", "hospital"), ("rug", "carpet"),
    ("garbage", "trash"),
    ("manuscript", "handwritten book"), ("dwelling tent", "camp shelter"),
    ("spectacles", "glasses"),
    ("locomotive", "train engine"),
]  # fmt: skip
SETTINGS = [
    "last spring",
    "before the storm",
    "near the old bridge",
    "in the afternoon",
    "without any help",
    "for the second time",
]
SHARED_WORDS = {"none of the words": (), "one of three words": (0,), "all words": (0, 1, 2)}


@dataclass(frozen=True)
class Fact:
    """A line, and the question for each share of its words."""

    line: str
    questions: dict[str, str]


def facts(count: int, rng: np.random.Generator) -> tuple[list[Fact], list[str]]:
    """So many facts, and in random order their lines and those of twice as many others."""
    triples = [(who, did, what) for who in WHO for did in DID for what in WHAT]
    chosen = [triples[i] for i in rng.permutation(len(triples))[: 3 * count]]
    lines, drawn = [], []
    for number, (who, did, what) in enumerate(chosen):
        line = f"the {who[0]} {did[0]} the {what[0]} {SETTINGS[int(rng.integers(len(SETTINGS)))]}"
        lines.append(line)
        if number < count:
            drawn.append(
                Fact(
                    line,
                    {
                        name: _question(who, did, what, rng, positions)
                        for name, positions in SHARED_WORDS.items()
                    },
                )
            )
    return drawn, [lines[i] for i in rng.permutation(len(lines))]


def _question(
    who: tuple[str, ...],
    did: tuple[str, ...],
    what: tuple[str, ...],
    rng: np.random.Generator,
    positions: tuple[int, ...],
) -> str:
    some = {int(rng.integers(3))} if len(positions) == 1 else set(positions)
    subject, thing = who[0 if 0 in some else 1], what[0 if 2 in some else 1]
    past = did[0 if 1 in some else 1]
    bare = did[2]
    variants = [
        f"Who says that the {subject} {past} a {thing}?",
        f"Where do they talk about how the {thing} was one that a {subject} {past}?",
    ]
    if 1 not in some:
        variants.append(f"When did the {subject} {bare} the {thing}?")
    return variants[int(rng.integers(len(variants)))]


def shared(question: str, line: str) -> set[str]:
    """Telling words that both have."""
    return {word for term in tokenizer.query(question).terms for word in term} & set(
        tokenizer.words(line)
    )
