"""The user's own needles: pictures and clips of a folder, with a table of questions.

The table is `needles.csv`, `needles.json` (a list of objects) or `needles.jsonl`. Its columns:
- file: a picture or a video in the folder
- question, answer: what is asked, and the right answer
- options: four answers with the right one among them, divided by | in a CSV file; optional

Without options, three other answers of the table stand beside the right one, where there are as
many. As V-NIAH (arXiv 2406.16852) and NIAVH (arXiv 2409.01071). Knows no model.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from encoders.errors import UserError
from encoders.sources.container import check_file, inspect
from encoders.sources.file import FileSource
from encoders.sources.pictures import display_ratio
from pipeline.evaluation.needle.films.schema import Card
from pipeline.evaluation.needle.films.tasks.sheet import (
    Draft,
    NeedleTask,
    Rng,
    Sheet,
    a_slot,
    pick,
    rotated,
)

TABLES = ("needles.csv", "needles.json", "needles.jsonl")
COLUMNS = ("file", "question", "answer")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CLIP_FPS, CLIP_HEIGHT = 8.0, 270
TASK = "own"


@dataclass(frozen=True, slots=True)
class OwnNeedle(NeedleTask):
    """One row of the table: a picture or a clip, and a question about it."""

    card: Card
    question: str
    answer: str
    options: tuple[str, ...]  # right and wrong ones as the user gave them, or none
    others: tuple[str, ...]  # other answers of the table
    clip_seconds: float = 0.0  # 0: a picture

    @property
    def needle_seconds(self) -> float:
        return self.clip_seconds

    def sheet(self, rng: Rng, room: int) -> Sheet:
        wrong = [option for option in self.options if option != self.answer]
        if not self.options:
            wrong = pick(rng, self.others, 3)
        slot = a_slot(rng)
        options = rotated([self.answer, *pick(rng, wrong, 3)], slot)
        draft = Draft(self.card.kind, self.question, options, slot, (0,), TASK)
        return Sheet((self.card,), (draft,), (0,))


class OwnPictures:
    """The pictures of user's needles, read once. Clips are read at 8 frames a second."""

    def __init__(self, cards: Iterable[Card]) -> None:
        """UserError on a file that is no longer what the plan was made of."""
        self._frames: dict[str, list[Image.Image]] = {}
        for card in cards:
            if card.kind in ("picture", "clip"):
                if digest_of(Path(card.text)) != card.digest:
                    raise UserError(
                        f"{card.text} has changed since the films were made; make them again."
                    )
                self._frames[card.text] = _frames(Path(card.text), card.kind)

    def at(self, card: Card, second: float) -> Image.Image:
        """The picture of a needle, or of a clip at this second of its own."""
        frames = self._frames[card.text]
        return frames[min(int(second * CLIP_FPS), len(frames) - 1)]


def own_tasks(folder: Path) -> dict[str, NeedleTask]:
    """A task for each row of a folder's table. UserError names the row that does not fit."""
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) != 1:
        raise UserError(
            f"needles={folder} needs one table of questions ({', '.join(TABLES)}) and has "
            f"{len(tables)}; see docs/guides/needle-benchmark.md."
        )
    table = tables[0]
    rows = [_checked(f"{table}, row {number}", row) for number, row in _rows(table)]
    if not rows:
        raise UserError(f"{table} has no rows; give file, question and answer of each needle.")
    answers = list(dict.fromkeys(row["answer"] for _, row in rows))
    tasks: dict[str, NeedleTask] = {}
    for number, (where, row) in enumerate(rows, start=1):
        others = tuple(answer for answer in answers if answer != row["answer"])
        options = _options(where, row)
        if not options and len(others) < 3:
            raise UserError(
                f"{where} has no options, and the table has {len(others)} other answers; give four "
                "options, or rows with other answers."
            )
        card, seconds = _card(where, folder / row["file"])
        tasks[f"{TASK}_{number}"] = OwnNeedle(
            card, row["question"], row["answer"], options, others, seconds
        )
    return tasks


def digest_of(path: Path) -> str:
    """16 hex digits of a file's content. UserError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); name a file that is there.") from error


def _rows(table: Path) -> list[tuple[int, Any]]:
    """(number as an editor shows it, row) of every row."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table} cannot be read ({error}); save it as UTF-8.") from error
    if table.suffix == ".csv":
        return list(enumerate(csv.DictReader(text.splitlines()), start=2))
    try:
        if table.suffix == ".jsonl":
            lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
            return [(number, json.loads(line)) for number, line in lines]
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{table} is no JSON ({error.msg} in line {error.lineno}); correct it."
        ) from error
    if not isinstance(rows, list):
        raise UserError(f"{table} holds no list; give a list of objects, one for each needle.")
    return list(enumerate(rows, start=1))


def _checked(where: str, row: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(row, dict):
        raise UserError(f"{where} is no object; give {', '.join(COLUMNS)}.")
    for name in COLUMNS:
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise UserError(f"{where} has no {name}; rows have {', '.join(COLUMNS)}, options.")
    return where, row | {name: row[name].strip() for name in COLUMNS}


def _options(where: str, row: dict[str, Any]) -> tuple[str, ...]:
    given = row.get("options") or ()
    parts: Sequence[Any] = given.split("|") if isinstance(given, str) else given
    options = tuple(str(part).strip() for part in parts)
    if options and (len(set(options)) != 4 or row["answer"] not in options):
        raise UserError(
            f"{where} needs four different options with the answer {row['answer']!r} among them, "
            f"and has {', '.join(options)}."
        )
    return options


def _card(where: str, path: Path) -> tuple[Card, float]:
    """A needle's card, and the seconds of a clip; 0 for a picture."""
    if not path.is_file():
        raise UserError(f"{where} names {path}, which is not there; correct its file.")
    is_picture = path.suffix.lower() in PICTURES
    try:
        if is_picture:
            with Image.open(path) as picture:
                picture.verify()
            seconds = 0.0
        else:
            check_file(path)
            seconds = inspect(path).duration
    except (UserError, UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(
            f"{where} names {path}, which is neither a picture nor a video ({error})."
        ) from error
    kind = "picture" if is_picture else "clip"
    return Card(kind, str(path.resolve()), digest=digest_of(path)), round(seconds, 3)


def _frames(path: Path, kind: str) -> list[Image.Image]:
    if kind == "picture":
        with Image.open(path) as picture:
            return [picture.convert("RGB")]
    width = max(2, round(CLIP_HEIGHT * (display_ratio(path) or 1.0)))
    source = FileSource(path, CLIP_FPS, width=width, height=CLIP_HEIGHT)
    return [Image.fromarray(one) for frames in source.frames() for one in frames.pixels]
