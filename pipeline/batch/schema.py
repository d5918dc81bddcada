"""The records of a batch: what is asked, what was refused, what goes to a worker and what comes back. Knows no file format
and no model."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig

# of a job: what its question does not depend on
_BESIDE = ("place", "task", "duration", "group", "prompt", "rule")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Refused(Exception):
    """A row that cannot be asked. The message says what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a file, as it stands there."""

    place: str  # "jobs.csv line 17"
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that was refused."""

    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


@dataclass(frozen=True, slots=True)
class Job:
    """One question about one video."""

    id: str
    video: str  # path or URL
    question: str
    options: tuple[str, ...] = ()  # texts without letters; none = an open question
    answer: str | None = None  # text of the right option, or the right words; None = nobody told
    letter: str | None = None  # of the right option
    start: float = 0.0  # seconds of the video that the question is about
    end: float | None = None
    asked_at: float | None = None  # seconds of video time; nothing after it is seen
    task: str = ""
    duration: str = ""  # the benchmark's name for how long the video is
    group: str = ""  # rows that count as right together, such as the two claims of a pair
    evidence: tuple[tuple[float, float], ...] = ()  # seconds that the right answer rests on
    # asked with choice=parse in place of its prompt, where a benchmark's tasks are asked in different ways
    prompt: str = ""
    # "number": an open answer is right when its digits are those of `answer`; "" = when the words are
    rule: str = ""
    place: str = ""  # where the row stands

    def digest(self) -> str:
        """8 hex digits over what is asked, whichever folder the video is in: whoever resumes compares them."""
        asked = {key: value for key, value in asdict(self).items() if key not in _BESIDE}
        asked["video"] = self.video.rsplit("/", 1)[-1]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker takes at once: the questions about one video, and the bank that has it or is to have it."""

    name: str  # the video as people know it
    video: str
    start: float
    end: float | None
    bank: str
    finished: bool  # the bank has all of it
    groups: tuple[tuple[Job, ...], ...]  # asked together; they do not depend on what is left
    jobs: tuple[Job, ...]  # what is left to answer, some or all of the groups' questions

    def in_order(self) -> list[Job]:
        """What is left, as the groups have it."""
        left = {job.id for job in self.jobs}
        return [job for group in self.groups for job in group if job.id in left]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A video is in the bank. new_segments 0: it had been there before."""

    video: str
    video_id: str
    video_seconds: float
    frames: int
    new_segments: int
    nbytes: int
    seconds: float
    bank: str
    warning: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """Progress of a video: seconds of video time out of all."""

    video: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A row of answers.jsonl, also where the question failed (then `error` says why)."""

    row: dict[str, Any]


Event = Encoded | Encoding | Answered
Tell = Callable[[Event], None]


class Compute(Protocol):
    """Where the work is done."""

    def check(self, config: DictConfig) -> None:
        """UserError when the rest of the configuration does not fit; before anything is written."""

    def banks(self, bank: str) -> list[str]:
        """All banks that may hold a video of the job."""

    def __call__(
        self, config: DictConfig, tasks: Sequence[Task], downloads: Path, tell: Tell
    ) -> None:
        """Run all tasks, each question told exactly once. UserError when none can go on."""

    def write(self, path: Path, rows: Sequence[dict[str, Any]]) -> None:
        """answers.parquet, of rows as they stand in answers.jsonl."""

    def close(self) -> None:
        """Leave nothing running."""
