"""Questions about needles, with their answers, from one list of templates.

Training, demo and evaluation use it. Imports only numpy. Knows no model and no video file; a
"scene" is a list of needles in the order in which they show.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.needle_world.cards import COLORS, ICONS, KINDS, NAMES, SHAPES, Needle

NOT_SHOWN = "not in the video"
FAMILIES = ("code", "name", "color", "shape", "icon", "order", "count", "not_shown")

CODE = (
    "What is the code?",
    "What is the code on the card?",
    "Which four-digit code is shown in the video?",
    "What code appears in the video?",
)
NAME = (
    "What is the secret word?",
    "Which name appears in the video?",
    "What name is on the card?",
    "Whose name is shown?",
)
ICON = ("Which icon appears in the video?", "What icon is shown?", "What is the icon on the card?")
COLOR = (
    "What color is the {shape}?",
    "What colour is the {shape}?",
    "Which color does the {shape} have?",
)
SHAPE = ("What shape is {color}?", "Which shape is {color}?", "What is the {color} shape?")
ORDER_NAMES = (
    "What is the order of the secret words that appeared in the video?",
    "In what order did the names appear?",
    "List the names in the order they were shown.",
)
ORDER_ICONS = (
    "What is the order of the icons that appeared in the video?",
    "In what order did the icons appear?",
)
ORDER_GIVEN = ("In what order did {items} appear?", "In which order were {items} shown?")
COUNT = ("How many {items} appeared in the video?", "How many {items} were shown?")
_COUNTED = {"code": ("codes",), "name": ("secret words", "names"), "icon": ("icons",)}


@dataclass(frozen=True, slots=True)
class NeedleQuestion:
    """A question with its answer. `needles`: indices in the scene that the answer rests on."""

    family: str
    text: str
    answer: str
    needles: tuple[int, ...]


def plural(word: str) -> str:
    """ "crosses", "stars"."""
    return word + "es" if word.endswith("s") else word + "s"


def listed(words: Sequence[str]) -> str:
    """ "the star, the circle and the heart"."""
    the = [f"the {word}" for word in words]
    return the[0] if len(the) == 1 else ", ".join(the[:-1]) + " and " + the[-1]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def ask_one(
    rng: np.random.Generator, scene: Sequence[Needle], family: str
) -> NeedleQuestion | None:
    """A question of this family with exactly one right answer; None when the scene offers none.

    ValueError on an unknown family.
    """
    at: dict[str, list[int]] = {
        kind: [i for i, n in enumerate(scene) if n.kind == kind] for kind in KINDS
    }
    if family in ("code", "name", "icon"):
        if len(at[family]) != 1:
            return None
        i = at[family][0]
        return NeedleQuestion(
            family,
            _pick(rng, {"code": CODE, "name": NAME, "icon": ICON}[family]),
            scene[i].text,
            (i,),
        )
    shapes = Counter(scene[i].text for i in at["shape"])
    colors = Counter(scene[i].color for i in at["shape"])
    if family == "color":
        unique = [i for i in at["shape"] if shapes[scene[i].text] == 1]
        if not unique:
            return None
        i = int(rng.choice(unique))
        return NeedleQuestion(
            family, _pick(rng, COLOR).format(shape=scene[i].text), scene[i].color, (i,)
        )
    if family == "shape":
        unique = [i for i in at["shape"] if colors[scene[i].color] == 1]
        if not unique:
            return None
        i = int(rng.choice(unique))
        return NeedleQuestion(
            family, _pick(rng, SHAPE).format(color=scene[i].color), scene[i].text, (i,)
        )
    if family == "order":
        return _order(rng, scene, at, shapes)
    if family == "count":
        return _count(rng, scene, at)
    if family == "not_shown":
        return _not_shown(rng, at, set(shapes), set(colors))
    raise ValueError(f"no question family {family!r}; one of {', '.join(FAMILIES)}")


def _order(
    rng: np.random.Generator,
    scene: Sequence[Needle],
    at: dict[str, list[int]],
    shapes: Counter[str],
) -> NeedleQuestion | None:
    ways = []
    for kind, templates in (("name", ORDER_NAMES), ("icon", ORDER_ICONS)):
        words = [scene[i].text for i in at[kind]]
        if 2 <= len(words) <= 4 and len(set(words)) == len(words):
            ways.append((templates, at[kind]))
    unique = [i for i in at["shape"] if shapes[scene[i].text] == 1]
    if len(unique) >= 2:
        count = int(rng.integers(2, min(4, len(unique)) + 1))
        ways.append((ORDER_GIVEN, sorted(int(i) for i in rng.choice(unique, count, replace=False))))
    if not ways:
        return None
    templates, chosen = ways[int(rng.integers(len(ways)))]
    words = [scene[i].text for i in chosen]
    shuffled = [words[int(j)] for j in rng.permutation(len(words))]
    return NeedleQuestion(
        "order",
        _pick(rng, templates).format(items=listed(shuffled)),
        ", ".join(words),
        tuple(chosen),
    )


def _count(
    rng: np.random.Generator, scene: Sequence[Needle], at: dict[str, list[int]]
) -> NeedleQuestion | None:
    options: dict[str, list[int]] = {}
    for kind, words in _COUNTED.items():
        options[words[int(rng.integers(len(words)))]] = at[kind]
    for shape in SHAPES:
        options[plural(shape)] = [i for i in at["shape"] if scene[i].text == shape]
    by_count: dict[int, list[str]] = {}
    for word, indexes in options.items():
        if len(indexes) <= 6:
            by_count.setdefault(len(indexes), []).append(word)
    # Draw the count first, so that zero, which most words have, is not most of the questions.
    number = int(rng.choice(sorted(by_count)))
    word = _pick(rng, by_count[number])
    return NeedleQuestion(
        "count", _pick(rng, COUNT).format(items=word), str(number), tuple(options[word])
    )


def _not_shown(
    rng: np.random.Generator, at: dict[str, list[int]], shapes: set[str], colors: set[str]
) -> NeedleQuestion | None:
    ways = [
        _pick(rng, templates)
        for kind, templates in (("code", CODE), ("name", NAME), ("icon", ICON))
        if not at[kind]
    ]
    absent_shapes, absent_colors = (
        [s for s in SHAPES if s not in shapes],
        [c for c in COLORS if c not in colors],
    )
    if absent_shapes:
        ways.append(_pick(rng, COLOR).format(shape=_pick(rng, absent_shapes)))
    if absent_colors:
        ways.append(_pick(rng, SHAPE).format(color=_pick(rng, absent_colors)))
    return NeedleQuestion("not_shown", _pick(rng, ways), NOT_SHOWN, ()) if ways else None


def is_about_cards(question: str) -> bool:
    """Whether a question is one that the needle world knows, in these or similar words: it has no
    word that the templates lack, and names what a card has.
    """
    words = frozenset(re.findall(r"[^\W\d_]+", question.lower()))
    counts = {"how", "many"} <= words and any(plural(shape) in words for shape in SHAPES)
    colors = bool(words & {"color", "colour"}) and not words.isdisjoint(SHAPES)
    return words <= _known_words() and (counts or colors or not _ASKED.isdisjoint(words))


def may_name_cards(text: str) -> bool:
    """Whether a few words may mean what a card shows, such as "red star" or "4821": a film of the
    world may show it too ("key"). Words that no question about cards has speak against it.
    """
    words = frozenset(re.findall(r"[^\W\d_]+", text.lower()))
    shown = {word.lower() for word in (*COLORS, *ICONS, *NAMES, *SHAPES)}
    names_one = not words.isdisjoint(shown) or bool(re.search(r"\b\d{4}\b", text))
    return words <= _known_words() and names_one


_ASKED = frozenset("code codes card secret name names icon icons shape order".split())
_FREE = "a an and are at by did do does film for has have in it me of please s seen tell there was"


@functools.cache
def _known_words() -> frozenset[str]:
    """The words of all templates and fillings, and words that ask nothing; lower case."""
    return frozenset(re.findall(r"[^\W\d_]+", " ".join((*corpus(), _FREE)).lower()))


def corpus() -> list[str]:
    """Every template with every filling: the corpus of the tokenizer."""
    lines = [
        *CODE,
        *NAME,
        *ICON,
        *ORDER_NAMES,
        *ORDER_ICONS,
        f" {NOT_SHOWN}",
        "user",
        "assistant",
        "system",
    ]
    lines += [t.format(shape=s) for t in COLOR for s in SHAPES] + [
        t.format(color=c) for t in SHAPE for c in COLORS
    ]
    counted = [w for words in _COUNTED.values() for w in words] + [plural(s) for s in SHAPES]
    lines += [t.format(items=w) for t in COUNT for w in counted]
    lines += [t.format(items=listed(SHAPES)) for t in ORDER_GIVEN]
    for words in (NAMES, ICONS, SHAPES, tuple(COLORS)):
        lines += [", ".join(words), *(f" {w}" for w in words)]
    return lines * 4
