"""The numbered moments of the last search or answer, for `@2` in a later command.

One file in the user's state folder: the newest search of any bank and any terminal counts. It holds
questions, so that nobody else may read it. Knows no bank and no film.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from encoders.errors import UserError
from pipeline.config.default_bank import state_folder


@dataclass(frozen=True, slots=True)
class ListedMoment:
    """A moment that was found or cited."""

    video_id: str
    path: str  # of the film
    start: float  # seconds of video time
    end: float
    score: float | None = None  # of a search
    channels: tuple[str, ...] = ()  # that found it
    words: str = ""  # that match


@dataclass(frozen=True, slots=True)
class MomentList:
    """The moments of one search or answer, best or first one first, numbered from 1."""

    query: str
    bank: str
    moments: tuple[ListedMoment, ...]

    @classmethod
    def of(cls, query: str, bank: str, moments: Sequence[ListedMoment]) -> "MomentList":
        """The moments of a search or an answer. bank: its folder; empty: none was asked."""
        return cls(query, str(Path(bank).absolute()) if bank else "", tuple(moments))

    @classmethod
    def last(cls) -> "MomentList":
        """The newest list. UserError where there is none."""
        try:
            row = json.loads(_path().read_text(encoding="utf-8"))
            moments = tuple(
                ListedMoment(**one | {"channels": tuple(one["channels"])}) for one in row["moments"]
            )
            return cls(row["query"], row["bank"], moments)
        except (OSError, ValueError, TypeError, KeyError):
            raise UserError(
                "There is no hit yet, so @1 means nothing; say `reelbank find` or `reelbank ask` "
                "first"
            ) from None

    def save(self) -> None:
        """Make this the newest list. A folder that cannot be written is no reason to fail."""
        path = _path()
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(asdict(self)).encode(errors="backslashreplace")
            with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                file.write(text)
            os.replace(temporary, path)

    def numbered(self, number: str) -> ListedMoment:
        """The moment of "@2". UserError where there is none."""
        digits = number.removeprefix("@")
        if not digits.isdecimal() or not 1 <= int(digits) <= len(self.moments):
            hits = f"1 to {len(self.moments)}" if self.moments else "none"
            raise UserError(
                f'{number} is no hit of the last search, "{self.query}", which has {hits}; '
                "search again, or give another number"
            )
        return self.moments[int(digits) - 1]


def _path() -> Path:
    return state_folder() / "moments.json"
