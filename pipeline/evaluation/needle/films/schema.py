"""The records of the needle benchmark and their JSON lines: films with needles, items about them.

Times are seconds of the film, spans half open; depths are per cent of the film. Knows no pixels,
no model and no bank.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage.atomic import replacing
from pipeline.needle_world.cards import Placement

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What a needle shows.

    Kinds are those of the needle world, and "lines": any text, such as "Alice: 4821".
    """

    kind: str  # code, name, shape, icon or lines
    text: str
    color: str = ""  # of shapes


@dataclass(frozen=True, slots=True)
class Appearance:
    """A card with its look, place and time."""

    card: Card
    look: str  # card, subtitle, fullscreen, picture or object: looks.py
    place: Placement  # fractions of the frame
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Film:
    """The plan of a film; its frames follow from it alone (film.py)."""

    name: str
    seconds: float
    seed: int  # of the footage
    footage: tuple[str, ...]  # files, in the order given; none = procedural, ("grey",) = flat grey
    shown: tuple[Appearance, ...]  # in time order
    width: int
    height: int
    spliced: bool = False  # True: footage stops while a needle shows; else it goes on underneath
    # its video file, relative to the benchmark's folder; "" = rendered while it streams
    file: str = ""

    def spans(self, needles: Iterable[int]) -> Spans:
        """When these needles show."""
        return tuple((self.shown[i].start, self.shown[i].end) for i in needles)


@dataclass(frozen=True, slots=True)
class Item:
    """A question about a film, with its exact answer."""

    id: str
    film: str
    task: str
    family: str  # kind of answer within the task: code, name, color, shape, icon, ...
    question: str
    answer: str
    options: tuple[str, ...]  # four, or none if the answer is "not in the video"
    slot: int  # of the right option; -1 without options
    needles: tuple[int, ...]  # numbers of the film's needles that the answer rests on
    seconds: float  # length of the film
    depth: float | None  # of the answer's only needle; None with several or none


def write_lines(path: Path, records: Sequence[Any]) -> None:
    """One JSON object a line, keys sorted: the same records give the same bytes."""
    text = "".join(json.dumps(asdict(record), sort_keys=True) + "\n" for record in records)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_films(path: Path) -> list[Film]:
    """UserError names the line and the field that does not fit."""
    films = []
    for where, row in _objects(path):
        _check(where, row, Film)
        appearances = []
        for number, one in enumerate(row["shown"]):
            _check(f"{where}, shown[{number}]", one, Appearance)
            _check(f"{where}, shown[{number}].card", one["card"], Card)
            _check(f"{where}, shown[{number}].place", one["place"], Placement)
            place = Placement(**(one["place"] | {"tint": tuple(one["place"]["tint"])}))
            appearances.append(
                Appearance(Card(**one["card"]), one["look"], place, one["start"], one["end"])
            )
        films.append(
            Film(**(row | {"shown": tuple(appearances), "footage": tuple(row["footage"])}))
        )
    return films


def read_items(path: Path) -> list[Item]:
    """UserError names the line and the field that does not fit."""
    items = []
    for where, row in _objects(path):
        _check(where, row, Item)
        items.append(
            Item(**(row | {"options": tuple(row["options"]), "needles": tuple(row["needles"])}))
        )
    return items


def _objects(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); make the benchmark first, or name its folder with "
            "out=DIR."
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, row {number} is no JSON ({error.msg}); make the benchmark again."
            ) from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number} is no JSON object; make the benchmark again.")
        yield f"{path}, row {number}", row


def _check(where: str, row: Mapping[str, Any], record: type) -> None:
    for field in fields(record):
        if field.name not in row:
            raise UserError(
                f"{where} has no field {field.name!r}; add it, or make the benchmark again."
            )
    unknown = sorted(set(row) - {field.name for field in fields(record)})
    if unknown:
        raise UserError(
            f"{where} has a field {unknown[0]!r} that {record.__name__} does not have; take it out."
        )
