"""The records of the needle benchmark, and their JSON lines: films with needles, items asked about them.

Knows no pixels, no model and no bank. Times are seconds of the film, spans half open; depths are per cent of the film.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.needle_world.cards import Placement

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What a needle shows. A new kind beside those of the needle world is "lines": any text, such as "Alice: 4821"."""

    kind: str  # code, name, shape, icon or lines
    text: str
    color: str = ""  # of shapes


@dataclass(frozen=True, slots=True)
class Shown:
    """A card with how, where and when it is seen."""

    card: Card
    look: str  # card, subtitle, fullscreen, picture or object: pipeline/evaluation/needle/looks.py
    place: Placement  # fractions of the frame; what truth says of the position
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Film:
    """A plan of a film; its frames follow from it alone (pipeline/evaluation/needle/film.py)."""

    name: str
    seconds: float
    seed: int  # of the footage
    footage: tuple[str, ...]  # files, in the order given; none = procedural, ("grey",) = flat grey
    shown: tuple[Shown, ...]  # in time order
    width: int
    height: int
    spliced: bool = False  # footage stops while a needle shows; False: it goes on underneath
    # where it lies as a video, relative to the folder of the benchmark; "" = rendered while it streams
    file: str = ""

    def spans(self, needles: Iterable[int]) -> Spans:
        """When these needles show."""
        return tuple((self.shown[i].start, self.shown[i].end) for i in needles)


@dataclass(frozen=True, slots=True)
class Item:
    """A question about a film with its exact truth."""

    id: str
    film: str
    task: str
    family: str  # what is asked for within the task: code, name, color, shape, icon, ...
    question: str
    answer: str
    options: tuple[str, ...]  # four, or none where the answer is that the video does not show it
    slot: int  # of the right option; -1 without options
    needles: tuple[int, ...]  # of the film, that the answer rests on
    seconds: float  # length of the film
    depth: float | None  # of the one needle asked for; None where the answer rests on several


def write_lines(path: Path, records: Sequence[Any]) -> None:
    """One JSON object a line, keys sorted: the same records are the same bytes."""
    text = "".join(json.dumps(asdict(record), sort_keys=True) + "\n" for record in records)
    half = path.with_name(path.name + ".partial")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def read_films(path: Path) -> list[Film]:
    """UserError names the line and the field that does not fit."""
    found = []
    for where, row in _objects(path):
        _check(where, row, Film)
        shown = []
        for number, one in enumerate(row["shown"]):
            _check(f"{where}, shown[{number}]", one, Shown)
            _check(f"{where}, shown[{number}].card", one["card"], Card)
            _check(f"{where}, shown[{number}].place", one["place"], Placement)
            place = Placement(**(one["place"] | {"tint": tuple(one["place"]["tint"])}))
            shown.append(Shown(Card(**one["card"]), one["look"], place, one["start"], one["end"]))
        found.append(Film(**(row | {"shown": tuple(shown), "footage": tuple(row["footage"])})))
    return found


def read_items(path: Path) -> list[Item]:
    """UserError names the line and the field that does not fit."""
    found = []
    for where, row in _objects(path):
        _check(where, row, Item)
        found.append(
            Item(**(row | {"options": tuple(row["options"]), "needles": tuple(row["needles"])}))
        )
    return found


def _objects(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); make the benchmark first, or name its folder with out=DIR."
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
