"""The list beside exported files: of which films, moments and questions they are.

A JSON file: `made_by`, `version`, `query`, `bank`, and `files`, each with its name, source, moment
and score. Knows no film and no search.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from pipeline.export.text_file import write_text

SUFFIX = ".json"  # behind the name of the file that it is about


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file, or one place in a file, and the moment that it shows."""

    file: str  # name of the file, in the folder of the list
    source: str  # path of the film
    video_id: str
    start: float  # seconds of video time: the moment
    end: float
    file_start: float  # seconds of video time at which the file begins and ends
    file_end: float
    score: float | None = None  # of the search
    channels: tuple[str, ...] = ()  # that found it
    words: str = ""  # that match


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was exported, and why."""

    query: str  # words or question; empty: the moment was given
    bank: str  # folder; empty: none was asked
    files: Sequence[ExportedFile]

    def write(self, path: Path) -> None:
        """Replace the list at a path. UserError where it cannot be written."""
        row = {
            "made_by": "reelbank",
            "version": version("reelbank"),
            "query": self.query,
            "bank": self.bank,
            "files": [asdict(one) for one in self.files],
        }
        write_text(path, json.dumps(row, indent=1, ensure_ascii=False) + "\n")


def manifest_path(exported: Path) -> Path:
    """Where the list about one exported file is: talk.mp4.json beside talk.mp4."""
    return exported.with_name(exported.name + SUFFIX)
