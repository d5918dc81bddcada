"""A rendered film of any length with cards of every kind, and questions about it, so that one
encoding serves all of them."""

import math

import numpy as np

from pipeline.evaluation.needle.films import looks
from pipeline.evaluation.needle.films.make import GAP_S, MARGIN_S
from pipeline.evaluation.needle.films.schema import Appearance, Card, Film
from pipeline.evaluation.needle.films.tasks.sheet import codes, one_of, pick
from pipeline.needle_world.cards import COLORS, ICONS, NAMES, SHAPES
from pipeline.needle_world.questions import (
    COLOR,
    COUNT,
    NOT_SHOWN,
    ORDER_GIVEN,
    ORDER_ICONS,
    SHAPE,
    listed,
)

Asked = tuple[str, str, str]  # task, question, answer
NEEDLE_S = 2.0
# cards are searched with the embedded frame embedder alone, so no other one has to see the film
PLAIN = ("clip=embedded", "text=none", "threads=1")


def plan(seconds: float, seed: int, until: float = math.inf) -> tuple[Film, list[Asked]]:
    """A film of this length with 16 to 21 cards, and nine questions about it.

    until: the answers are those at this second of the film.
    """
    rng = np.random.default_rng((seed, round(seconds)))
    names, icons = pick(rng, NAMES, 4), pick(rng, ICONS, 4)
    shapes, colors = pick(rng, SHAPES, 5), pick(rng, tuple(COLORS), 5)
    number = int(rng.integers(1, 7))
    groups = [
        [
            Card("name", name)
            for name in pick(rng, [*names[:1] * 3, *names[1:2] * 2, *names[2:]], 7)
        ],
        [Card("icon", icon) for icon in icons],
        [Card("shape", *pair) for pair in zip(shapes[:4], colors[:4], strict=True)],
        [Card("code", code) for code in codes(rng, number)],
    ]
    owners = rng.permutation([g for g, cards in enumerate(groups) for _ in cards]).tolist()
    left = [list(cards) for cards in groups]
    cards = [left[owner].pop(0) for owner in owners]
    step = NEEDLE_S + GAP_S
    free = seconds - 2 * MARGIN_S - step * len(cards)
    starts = MARGIN_S + np.sort(rng.uniform(0, free, len(cards))) + step * np.arange(len(cards))
    shown = tuple(
        Appearance(
            card, "card", looks.place(rng, card, "card"), round(s, 3), round(s + NEEDLE_S, 3)
        )
        for card, s in zip(cards, starts.tolist(), strict=True)
    )
    film = Film(f"{seconds / 3600:g}h-{seed}", seconds, seed, (), shown, 192, 108)
    given = listed(pick(rng, shapes[:4], 4))
    seen = [one.card.text for one in shown if one.end <= until]
    icons, drawn = [t for t in icons if t in seen], [t for t in shapes[:4] if t in seen]
    number = sum(text.isdigit() for text in seen)
    color_of = dict(zip(shapes, colors, strict=True))
    often = [max(names, key=seen.count)]
    often += [name for name in names if seen.count(name) == seen.count(often[0])]
    asked: list[Asked] = [
        ("order", one_of(rng, ORDER_ICONS), ", ".join(icons)),
        ("order", one_of(rng, ORDER_GIVEN).format(items=given), ", ".join(drawn)),
        (
            "most_frequent",
            "Which name appeared most often in the video?",
            ", ".join(dict.fromkeys(often)),
        ),
        ("count", one_of(rng, COUNT).format(items="codes"), str(number)),
        ("count", one_of(rng, COUNT).format(items="icons"), str(len(icons))),
        ("retrieve", one_of(rng, COLOR).format(shape=drawn[0]), color_of[drawn[0]]),
        ("retrieve", one_of(rng, SHAPE).format(color=color_of[drawn[-1]]), drawn[-1]),
        ("not_shown", one_of(rng, COLOR).format(shape=shapes[4]), NOT_SHOWN),
        ("not_shown", one_of(rng, SHAPE).format(color=colors[4]), NOT_SHOWN),
    ]
    return film, asked
