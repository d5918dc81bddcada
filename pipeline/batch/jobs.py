"""Rows -> jobs: validates columns, normalizes options, finds videos, makes ids unique.

Knows no benchmark and no model. Columns: video and question; optional id, options, answer,
accepted, start, end, asked_at, task, category, duration, group, pair, evidence, prompt, rule,
query, subtitles, subtitles_from, length, before. A video is a path (below `videos`, else beside the
job file), a glob (the question is asked of every matching file), or an fsspec URL. A list of them
is one question about all of them together, and "*" one about the whole bank. A row without an id
gets one from its content, so that lines may be added or moved between two runs.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import fsspec

from encoders.errors import UserError
from pipeline.batch.schema import LETTERS, Entry, Job, RejectedRow, RowError
from pipeline.config import units
from pipeline.engine import ALL

_PREFIX = re.compile(r"^\s*\(?([A-Za-z])[.):]\s*(.*)$", re.DOTALL)


class Annotations(Protocol):
    """The format of a file."""

    @property
    def whole_file(self) -> bool:
        """True: a .json file that holds an object is one entry, not a list of rows."""

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        """The rows within an entry of the file, each with its place."""

    def __call__(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Converts one row to rows in our columns. RowError when it has another format."""


def collect(
    entries: Iterable[Entry | RejectedRow],
    annotations: Annotations,
    root: Path,
    *,
    unlabelled: bool = False,
) -> tuple[list[Job], list[RejectedRow]]:
    """The jobs in file order, and the rejected rows.

    root: base of relative paths. unlabelled: accept options without an answer, as in a hidden test
    set.
    """
    jobs: dict[str, Job] = {}
    rejected: list[RejectedRow] = []
    for entry in _unfolded(entries, annotations):
        if isinstance(entry, RejectedRow):
            rejected.append(entry)
            continue
        try:
            located = [
                job
                for values in annotations(entry.values)
                for job in _locate(parse(entry.place, values, unlabelled=unlabelled), root, values)
            ]
        except RowError as error:
            rejected.append(RejectedRow(entry.place, str(error)))
            continue
        for job in located:
            if job.id in jobs:
                rejected.append(
                    RejectedRow(
                        entry.place,
                        f"id {job.id} stands at {jobs[job.id].place} already; give each row its "
                        "own id",
                    )
                )
            else:
                jobs[job.id] = job
    return list(jobs.values()), rejected


def _unfolded(
    entries: Iterable[Entry | RejectedRow], annotations: Annotations
) -> Iterator[Entry | RejectedRow]:
    for entry in entries:
        if isinstance(entry, RejectedRow):
            yield entry
        else:
            yield from annotations.unfold(entry)


def parse(place: str, values: dict[str, Any], *, unlabelled: bool = False) -> Job:
    """Convert a row in our columns to a Job, with its video as written. RowError when it is
    invalid.
    """
    videos = _listed(values) or [text(values, "video")]
    question = text(values, "question")
    options = strip_letters(_options(values.get("options")))
    answer = "" if values.get("answer") is None else str(values["answer"]).strip()
    letter = None
    if options:
        letter = _letter(answer, options)
        if letter is None and (answer or not unlabelled):
            message = "options without an answer; give its letter, or say unlabelled=true"
            if answer:
                message = (
                    f"answer={answer!r} is neither the letter nor the text of one of the "
                    f"{len(options)} options"
                )
            raise RowError(message)
        answer = options[LETTERS.index(letter)] if letter else ""
    start, end = seconds(values, "start") or 0.0, seconds(values, "end")
    if end is not None and end <= start:
        raise RowError(f"start={start:g} is not before end={end:g}")
    # a column of Parquet may hold times of day
    key = json.dumps(
        [
            videos if len(videos) > 1 else videos[0],
            question,
            options,
            start,
            end,
            values.get("asked_at"),
        ],
        default=str,
    )
    return Job(
        id=str(values["id"]).strip()
        if values.get("id") not in (None, "")
        else hashlib.sha256(key.encode()).hexdigest()[:12],
        video=videos[0],
        also=tuple(videos[1:]),
        question=question,
        options=options,
        answer=answer or None,
        accepted=_accepted(values.get("accepted"), answer, options),
        letter=letter,
        start=start,
        end=end,
        asked_at=seconds(values, "asked_at"),
        task=str(values.get("task") or ""),
        category=str(values.get("category") or ""),
        duration=str(values.get("duration") or ""),
        group=str(values.get("group") or ""),
        pair=str(values.get("pair") or ""),
        evidence=_evidence(values.get("evidence"), seconds(values, "length")),
        query=str(values.get("query") or "").strip(),
        subtitles=str(values.get("subtitles") or ""),
        subtitles_from=seconds(values, "subtitles_from") or 0.0,
        prompt=_prompt(values.get("prompt")),
        rule=_rule(values.get("rule")),
        place=place,
    )


def text(values: dict[str, Any], column: str) -> str:
    """A required text column. RowError when it is missing or empty."""
    if column not in values:
        raise RowError(f"the column {column} is missing; it has {', '.join(values) or 'none'}")
    value = "" if values[column] is None else str(values[column]).strip()
    if not value:
        raise RowError(f"the column {column} is empty")
    return value


def _listed(values: dict[str, Any]) -> list[str] | None:
    """The videos of a row that has a list of them, or one in JSON; None for a single video. ALL
    takes the place of all others."""
    value = values.get("video")
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(json.JSONDecodeError):  # the name of a file may begin so
            value = json.loads(value)
    if not isinstance(value, list | tuple):
        return None
    names = ["" if name is None else str(name).strip() for name in value]
    if not names or not all(names):
        raise RowError(f"video={value} must be one video or more, none of them empty")
    return [ALL] if ALL in names else list(dict.fromkeys(names))


def seconds(values: dict[str, Any], column: str) -> float | None:
    """Seconds, "mm:ss", or "hh:mm:ss" as seconds; None when the column is empty."""
    value = values.get(column)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        return units.parse_seconds(column, value)
    except UserError as error:
        raise RowError(str(error)) from error


def strip_letters(options: tuple[str, ...]) -> tuple[str, ...]:
    """Options without the letters A, B, C, ... before them, if all of them have one."""
    matches = [_PREFIX.match(option) for option in options]
    if all(
        m is not None and m[1].upper() == LETTERS[i] and m[2].strip() for i, m in enumerate(matches)
    ):
        return tuple(m[2].strip() for m in matches if m is not None)
    return options


def _texts(column: str, value: Any) -> tuple[str, ...]:
    """Texts from a list, a JSON list, or texts separated by | (CSV)."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        except json.JSONDecodeError as error:
            raise RowError(
                f"{column}={value!r} is not a list in JSON; write it so, or put | between the texts"
            ) from error
    if not isinstance(value, list | tuple):
        raise RowError(f"{column}={value!r} is no list")
    return tuple(str(one).strip() for one in value if one is not None)


def _options(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    options = _texts("options", value)
    if not 2 <= len(options) <= len(LETTERS) or not all(options):
        raise RowError(
            f"options={list(options)} must be 2 to {len(LETTERS)} texts, none of them empty"
        )
    return options


def _accepted(value: Any, answer: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """Further right answers; only an open question that has one can have more."""
    accepted = _texts("accepted", value)
    if accepted and (options or not answer):
        raise RowError(
            f"accepted={list(accepted)} are further answers to an open question with an answer; "
            "leave it out"
        )
    if not all(accepted):
        raise RowError(f"accepted={list(accepted)} holds an empty text; leave that out")
    return accepted


def _letter(answer: str, options: tuple[str, ...]) -> str | None:
    """The letter of the right option, from its letter or its text; None when neither matches."""
    texts = [option.casefold() for option in options]
    if texts.count(answer.casefold()) == 1:
        return LETTERS[texts.index(answer.casefold())]
    match = re.fullmatch(r"\(?([A-Za-z])(?:[.):](.*))?", answer, re.DOTALL)
    if match is None or match[1].upper() not in LETTERS[: len(options)]:
        return None
    letter = match[1].upper()
    rest = (match[2] or "").strip()
    return letter if not rest or rest.casefold() == texts[LETTERS.index(letter)] else None


def _prompt(value: Any) -> str:
    if value and "{question}" not in str(value):
        raise RowError(f"prompt={value!r} asks nothing; put {{question}} into it")
    return str(value or "")


def _rule(value: Any) -> str:
    if value not in (None, "", "number"):
        raise RowError(f"rule={value!r} is not known; write number, or leave it out")
    return str(value or "")


def _evidence(value: Any, length: float | None) -> tuple[tuple[float, float], ...]:
    """Spans of seconds. length: seconds of the video as the row states them; None: it does not."""
    if value is None or value == "":
        return ()
    try:
        spans = json.loads(value) if isinstance(value, str) else value
        parsed = tuple((float(start), float(end)) for start, end in spans)
    except (ValueError, TypeError) as error:
        raise RowError(f"evidence={value!r} is no list of [start, end] in seconds") from error
    bad = next((one for one in parsed if not 0 <= one[0] <= one[1] < math.inf), None)
    if bad is not None:
        raise RowError(f"evidence holds {list(bad)}, which is no start and end in seconds")
    outside = next((one for one in parsed if length is not None and one[1] > length + 1), None)
    if outside is not None:  # a second more, as annotations round
        raise RowError(f"evidence={list(outside)} lies outside of a video of {length:g} s")
    return parsed


def _locate(job: Job, root: Path, values: dict[str, Any]) -> Iterator[Job]:
    """The job with the paths or URLs of its files; one job for each match of a glob, or one about
    all matches together.

    A missing file is not an error here: opening it will be.
    """
    if job.subtitles:
        job = replace(job, subtitles=str(root / os.path.expanduser(job.subtitles)))
    if _listed(values) is not None or job.video == ALL:
        found = dict.fromkeys(path for name in job.videos for path in _paths(name, root))
        if values.get("before"):
            found = _ended_before(str(values["before"]), found)
        first, *others = found or [ALL]
        if others or first == ALL:
            _refuse_seconds(job)
        yield replace(job, video=first, also=tuple(others))
        return
    paths = _paths(job.video, root)
    for path_or_url in paths:
        ident = job.id if len(paths) == 1 else f"{job.id}@{path_or_url.rsplit('/', 1)[-1]}"
        yield replace(job, id=ident, video=path_or_url)


def _ended_before(name: str, paths: Iterable[str]) -> dict[str, None]:
    """Of files whose names sort by time, those before the last one whose name is not after this:
    that one may still run. RowError if there is none."""
    earlier = sorted(
        (path for path in paths if Path(path).stem <= name), key=lambda path: Path(path).stem
    )
    if len(earlier) < 2:
        raise RowError(f"no video ended before {name}; check videos=")
    return dict.fromkeys(earlier[:-1])


def _refuse_seconds(job: Job) -> None:
    """RowError where a job about several videos has columns that are seconds of one."""
    if job.start or job.end is not None:
        raise RowError("start and end are a part of one video; leave them out, or name one video")
    if job.evidence:
        raise RowError("evidence is seconds of one video; leave it out, or name one video")


def _paths(video: str, root: Path) -> list[str]:
    """The path or URL that a row names, or all that match its glob. RowError if none does."""
    if "://" in video and not video.startswith("file://"):
        try:
            paths = [video] if "*" not in video else _glob_remote(video)
        except (OSError, ValueError, ImportError) as error:
            raise RowError(f"video={video} cannot be looked up ({error})") from error
    else:
        path = root / os.path.expanduser(video.removeprefix("file://"))
        if path.exists() or not any(sign in video for sign in "*?["):
            paths = [str(path)]
        else:
            pattern = path.relative_to(path.anchor) if path.is_absolute() else path
            _refuse_whole_disk(video, path)
            if any("**" in name and name != "**" for name in pattern.parts):
                # an error of Python until 3.12, and one * since
                raise RowError(
                    f"video={video} has ** beside other signs; write it as /**/ or as one *"
                )
            try:
                paths = sorted(
                    str(p) for p in Path(path.anchor or ".").glob(str(pattern)) if p.is_file()
                )
            except ValueError as error:
                raise RowError(f"video={video} cannot be looked up ({error})") from error
    if not paths:
        raise RowError(f"video={video} matches no file")
    return paths


def _refuse_whole_disk(video: str, path: Path) -> None:
    """RowError if a pattern with ** begins at the root of the disk."""
    names = path.absolute().parts[1:]
    if "**" in names and any(sign in names[0] for sign in "*?["):
        raise RowError(
            f"video={video} would look through the whole disk; name a folder before the first "
            "pattern, such as /films/**/*.mp4"
        )


def _glob_remote(url: str) -> list[str]:
    system, pattern = fsspec.core.url_to_fs(url)
    return sorted(system.unstrip_protocol(path) for path in system.glob(pattern))
