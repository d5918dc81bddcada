"""Where on the frame a needle shows, and how it moves there.

- Places: 3 x 3 places of the frame, HRScene (arXiv 2504.18406)
- Stitched: frames of n x n pictures, MMNeedle (arXiv 2406.11230)
- Motion: a direction that no single frame shows
"""

from dataclasses import dataclass

from encoders.errors import UserError
from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    Style,
    a_slot,
    codes,
    one_of,
    pick,
    rotated,
)
from pipeline.needle_world.cards import COLORS, ICONS, SHAPES, Placement
from pipeline.needle_world.questions import CODE, COLOR, ICON

DIRECTIONS = ("left", "right", "up", "down")


def in_cell(rng: Rng, n: int, row: int, column: int) -> Placement:
    """A card that almost fills one of n x n cells of the frame."""
    dark, tint = bool(rng.random() < 0.3), tuple(int(v) for v in rng.integers(-14, 15, 3))
    red, green, blue = tint
    side = 0.94 / n
    return Placement((column + 0.03) / n, (row + 0.03) / n, side, side, dark, (red, green, blue))


@dataclass(frozen=True, slots=True)
class Places(NeedleTask):
    """Eight shapes and a code, each in another of the 3 x 3 places of the frame: one question for
    each place.
    """

    def sheet(self, rng: Rng, room: int) -> Sheet:
        shapes, colors = pick(rng, SHAPES, 8), pick(rng, tuple(COLORS), 8)
        cards = [Card("shape", shape, color) for shape, color in zip(shapes, colors, strict=True)]
        drafts = []
        for number, shape in enumerate(shapes):
            others, slot = pick(rng, [c for c in colors if c != colors[number]], 3), a_slot(rng)
            options = rotated([colors[number], *others], slot)
            question = one_of(rng, COLOR).format(shape=shape)
            drafts.append(Draft("color", question, options, slot, (number,)))
        values, slot = tuple(codes(rng, 4)), a_slot(rng)
        drafts.append(Draft("code", one_of(rng, CODE), values, slot, (8,)))
        cards.append(Card("code", values[slot]))
        cells = [divmod(int(cell), 3) for cell in rng.permutation(9)]
        styles = {
            number: Style("card", in_cell(rng, 3, row, column))
            for number, (row, column) in enumerate(cells)
        }
        return Sheet(tuple(cards), tuple(drafts), tuple(range(9)), styles)


@dataclass(frozen=True, slots=True)
class Stitched(NeedleTask):
    """Frames of n x n pictures of the footage, with a card in place of one picture: what it shows,
    and where.
    """

    n: int = 2

    def __post_init__(self) -> None:
        """UserError on a grid that has no four cells."""
        if not 2 <= self.n <= 8:
            raise UserError(f"n={self.n} pictures a side do not fit; give 2 to 8.")

    def sheet(self, rng: Rng, room: int) -> Sheet:
        places = [divmod(int(cell), self.n) for cell in rng.permutation(self.n**2)]
        icons, icon_slot = tuple(pick(rng, ICONS, 4)), a_slot(rng)
        colors, color_slot = tuple(pick(rng, tuple(COLORS), 4)), a_slot(rng)
        shape, slot = one_of(rng, SHAPES), a_slot(rng)
        names = [f"row {row + 1}, column {column + 1}" for row, column in places]
        cards = (Card("icon", icons[icon_slot]), Card("shape", shape, colors[color_slot]))
        where = f"In which row and column of the grid is the {shape}?"
        drafts = (
            Draft("icon", one_of(rng, ICON), icons, icon_slot, (0,)),
            Draft("color", one_of(rng, COLOR).format(shape=shape), colors, color_slot, (1,)),
            Draft("cell", where, rotated([names[1], names[0], *names[2:4]], slot), slot, (1,)),
        )
        styles = {number: Style("card", in_cell(rng, self.n, *places[number])) for number in (0, 1)}
        return Sheet(cards, drafts, (0, 1), styles, stitched=self.n)


@dataclass(frozen=True, slots=True)
class Motion(NeedleTask):
    """Four shapes that move, each in a direction of its own; two of the directions are asked for.

    The middle of a path does not depend on its direction, so the places of a shape seen one by one
    are as likely for one direction as for the opposite one.
    """

    @property
    def needle_seconds(self) -> float:
        return 4.0

    def sheet(self, rng: Rng, room: int) -> Sheet:
        shapes, colors = pick(rng, SHAPES, 4), pick(rng, tuple(COLORS), 4)
        ways = [one_of(rng, DIRECTIONS) for _ in shapes]
        styles = {number: Style("card", *_path(rng, way)) for number, way in enumerate(ways)}
        drafts = []
        for number in (0, 1):
            options = tuple(pick(rng, DIRECTIONS, 4))
            question = f"In which direction does the {shapes[number]} move?"
            slot = options.index(ways[number])
            drafts.append(Draft("direction", question, options, slot, (number,)))
        pairs = zip(shapes, colors, strict=True)
        return Sheet(
            tuple(Card("shape", shape, color) for shape, color in pairs),
            tuple(drafts),
            (0, 1),
            styles,
        )


def _path(rng: Rng, way: str) -> tuple[Placement, Placement]:
    """Where a card begins and where it ends: 0.36 of the frame apart."""
    width, height, half = 0.5, 0.55, 0.18
    along = 0 if way in ("left", "right") else 1
    room = [1 - width, 1 - height]
    middle = [float(rng.uniform(half, room[i] - half) if i == along else rng.uniform(0, room[i]))
              for i in (0, 1)]  # fmt: skip
    dark = bool(rng.random() < 0.3)
    red, green, blue = (int(v) for v in rng.integers(-14, 15, 3))
    step = half if way in ("right", "down") else -half
    ends = []
    for sign in (-1, 1):
        x, y = (middle[i] + (sign * step if i == along else 0.0) for i in (0, 1))
        ends.append(Placement(x, y, width, height, dark, (red, green, blue)))
    return ends[0], ends[1]
