"""The records of a batch: jobs, rejected rows, tasks for workers, and their events.

Knows no file format and no model.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.tasks.evaluation_settings import BatchSettings
from pipeline.engine import ALL

# fields of a job that its question does not depend on
_NOT_IN_DIGEST = (
    "place",
    "task",
    "category",
    "duration",
    "group",
    "pair",
    "accepted",
    "prompt",
    "rule",
)
# fields that a question has only where they are set: older runs have digests without them
_IF_SET = tuple(
    "also query subtitles subtitles_from control picture candidates watch evidence_video".split()
)
RETRIEVE = "retrieve"  # action=: moments are ranked, and nothing is answered
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class RowError(Exception):
    """A row that cannot be asked. The message says what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a file, as written there."""

    place: str  # "jobs.csv line 17"
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be asked, and why."""

    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


@dataclass(frozen=True, slots=True)
class Watch:
    """A question that is answered when its moment comes: from `asked_at` on, the model is asked
    every `every` seconds whether the time has come, until it says yes or `until` is over. Its
    answer is right if it comes at most `tolerance` seconds before or after `due`."""

    prompt: str  # whether the time has come, a question of yes or no
    due: float  # video seconds
    until: float
    every: float = 1.0
    tolerance: float = 2.0


@dataclass(frozen=True, slots=True)
class Job:
    """One question about one video, about several together, or about the whole bank."""

    id: str
    video: str  # path or URL; ALL: every video of the bank
    question: str
    options: tuple[str, ...] = ()  # texts without letters; none = an open question
    answer: str | None = None  # text of the right option, or the right words; None = unknown
    accepted: tuple[str, ...] = ()  # further answers to an open question that are right as well
    letter: str | None = None  # of the right option
    start: float = 0.0  # video seconds; the question is about start..end
    end: float | None = None
    asked_at: float | None = None  # video seconds; nothing after it is read
    task: str = ""
    category: str = ""  # a second grouping of the table, such as a domain
    duration: str = ""  # the benchmark's name for how long the video is
    group: str = ""  # rows of a group only count as right together
    pair: str = ""  # two rows, a true claim and a false one, that only count as right together
    evidence: tuple[tuple[float, float], ...] = ()  # seconds that the right answer rests on
    evidence_video: str = ""  # path or URL of the video that these are of, where there are several
    # replaces the prompt of option_choice=parse, for benchmarks with one prompt per task
    prompt: str = ""
    # "number": an open answer is right if its digits equal `answer`; "": if its words do
    rule: str = ""
    place: str = ""  # of the row, such as "jobs.csv line 17"
    also: tuple[str, ...] = ()  # paths or URLs of further videos of the same question
    query: str = ""  # what is searched for in place of the question
    subtitles: str = ""  # file that text=[subtitles] reads; "": the files beside the video
    subtitles_from: float = 0.0  # second of that file at which the video begins
    control: str = ""  # of conf/control/, in which the question is asked again; "": as configured
    picture: str = ""  # picture or clip that action=retrieve searches for beside the question
    candidates: tuple[tuple[float, float], ...] = ()  # seconds; the stretches that it ranks
    watch: Watch | None = None  # when to answer is a part of the question

    @property
    def videos(self) -> tuple[str, ...]:
        """The videos as named; none for the whole bank."""
        return () if self.video == ALL else (self.video, *self.also)

    @property
    def name(self) -> str:
        """The video or the videos, for people."""
        return ", ".join((self.video, *self.also))

    def digest(self) -> str:
        """8 hex digits of a hash over the question, independent of the video's folder.

        A resumed run compares digests.
        """
        content = {key: value for key, value in asdict(self).items() if key not in _NOT_IN_DIGEST}
        content = {key: value for key, value in content.items() if value or key not in _IF_SET}
        content["video"] = _file_name(self.video)
        if self.also:
            content["also"] = [_file_name(each) for each in self.also]
        for key in ("subtitles", "picture", "evidence_video"):
            if content.get(key):
                content[key] = _file_name(content[key])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _file_name(path: str) -> str:
    """The last part of a path or URL."""
    return path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Task:
    """The questions about one video, or about the same videos, and the bank that has them or will
    have them."""

    name: str  # of the video or the videos, for people
    videos: tuple[str, ...]  # none: every video that the bank has
    start: float
    end: float | None
    bank: str
    finished: bool  # the bank has the whole video, or all of the videos
    groups: tuple[
        tuple[Job, ...], ...
    ]  # read in one batch; independent of what is already answered
    jobs: tuple[Job, ...]  # unanswered questions, some or all of the groups'

    def in_order(self) -> list[Job]:
        """The unanswered questions in the order of the groups."""
        pending = {job.id for job in self.jobs}
        return [job for group in self.groups for job in group if job.id in pending]


@dataclass(frozen=True, slots=True)
class VideoEncoded:
    """A video is in the bank. new_segments 0: it was there before."""

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
class EncodeProgress:
    """Encoding progress of a video in video seconds."""

    video: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class QuestionAnswered:
    """A row of answers.jsonl. For a failed question, its `error` is set."""

    row: dict[str, Any]


Encoded = tuple[VideoEncoded, ...]  # the videos of a task
Event = VideoEncoded | EncodeProgress | QuestionAnswered
EmitEvent = Callable[[Event], None]


class Compute(Protocol):
    """Where the work is done."""

    def check(self, config: BatchSettings) -> None:
        """UserError when the configuration does not fit. Called before anything is written."""

    def banks(self, bank: str) -> list[str]:
        """All banks that may have a video of the batch."""

    def __call__(
        self, config: BatchSettings, tasks: Sequence[Task], downloads: Path, emit: EmitEvent
    ) -> None:
        """Run all tasks; emit each question exactly once. UserError when the run cannot go on."""

    def write(self, path: Path, rows: Sequence[dict[str, Any]]) -> None:
        """Write answers.parquet from rows of answers.jsonl."""

    def close(self) -> None:
        """Leave nothing running."""
