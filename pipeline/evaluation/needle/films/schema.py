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

# fields that records did not always have, with their defaults
LATER: dict[str, Any] = {"digest": "", "to": None, "stitched": 1}
Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """What a needle shows.

    Kinds are those of the needle world, and:
    - lines: any text, such as "Alice: 4821"; sentence: a longer one, in several lines
    - pictured: a name beside the picture of a thing; the text is "Alice: boat"
    - speech: a sentence that is heard and not seen
    - footage: the film's own picture at the second that the text says; nothing is drawn
    - thumbnails: four such pictures as A to D; the text has their seconds
    - picture, clip: the user's file whose path the text is
    """

    kind: str
    text: str
    color: str = ""  # of shapes
    digest: str = ""  # of the content of a user's file


@dataclass(frozen=True, slots=True)
class Appearance:
    """A card with its look, place and time."""

    card: Card
    look: str  # card, subtitle, fullscreen, picture or object: looks.py
    place: Placement  # fractions of the frame
    start: float
    end: float
    to: Placement | None = None  # where it has moved when it ends; None: it stays


@dataclass(frozen=True, slots=True)
class Film:
    """The plan of a film; its frames follow from it alone (film.py)."""

    name: str
    seconds: float
    seed: int  # of the footage
    # files, in the order given; none = procedural; "grey" first = flat grey, which hides the others
    footage: tuple[str, ...]
    shown: tuple[Appearance, ...]  # in time order
    width: int
    height: int
    spliced: bool = False  # True: footage stops while a needle shows; else it goes on underneath
    # its video file, relative to the benchmark's folder; "" = rendered while it streams
    file: str = ""
    stitched: int = 1  # n: every frame is n x n pictures of the footage

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


def plain(record: Any) -> dict[str, Any]:
    """A record as a dictionary, without later fields at their defaults: what a film was before it
    could have them, it stays to the byte.
    """

    def without(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: without(value)
                for key, value in node.items()
                if key not in LATER or value != LATER[key]
            }
        return [without(one) for one in node] if isinstance(node, (list, tuple)) else node

    result: dict[str, Any] = without(asdict(record))
    return result


def write_lines(path: Path, records: Sequence[Any]) -> None:
    """One JSON object a line, keys sorted: the same records give the same bytes."""
    text = "".join(json.dumps(plain(record), sort_keys=True) + "\n" for record in records)
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
            places = {"place": _placement(one["place"])}
            if one.get("to") is not None:
                _check(f"{where}, shown[{number}].to", one["to"], Placement)
                places["to"] = _placement(one["to"])
            appearances.append(Appearance(**(one | {"card": Card(**one["card"])} | places)))
        films.append(
            Film(**(row | {"shown": tuple(appearances), "footage": tuple(row["footage"])}))
        )
    return films


def _placement(row: Mapping[str, Any]) -> Placement:
    return Placement(**{**row, "tint": tuple(row["tint"])})


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
        if field.name not in row and field.name not in LATER:
            raise UserError(
                f"{where} has no field {field.name!r}; add it, or make the benchmark again."
            )
    unknown = sorted(set(row) - {field.name for field in fields(record)})
    if unknown:
        raise UserError(
            f"{where} has a field {unknown[0]!r} that {record.__name__} does not have; take it out."
        )
