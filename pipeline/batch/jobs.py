"""Rows -> jobs: validates columns, normalizes options, finds videos, makes ids unique.

Knows no benchmark and no model. Columns: video and question; optional id, options, answer,
accepted, start, end, asked_at, task, category, duration, group, pair, evidence, evidence_video,
prompt, rule, query, subtitles, subtitles_from, picture, candidates, watch, length, before. A video
is a path (below `videos`, else beside the job file), a glob (the question is asked of every
matching file), or an fsspec URL. A list of them is one question about all of them together, and
"*" one about the whole bank. A row without an id gets one from its content, so that lines may be
added or moved between two runs.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import fsspec

from pipeline.batch.annotations import columns
from pipeline.batch.schema import LETTERS, Entry, Job, RejectedRow, RowError
from pipeline.engine import ALL


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
    videos = _listed(values) or [columns.text(values, "video")]
    question = columns.text(values, "question")
    options = columns.strip_letters(columns.options(values.get("options")))
    answer = "" if values.get("answer") is None else str(values["answer"]).strip()
    letter = None
    if options:
        letter = columns.letter_of(answer, options)
        if letter is None and (answer or not unlabelled):
            message = "options without an answer; give its letter, or say unlabelled=true"
            if answer:
                message = (
                    f"answer={answer!r} is neither the letter nor the text of one of the "
                    f"{len(options)} options"
                )
            raise RowError(message)
        answer = options[LETTERS.index(letter)] if letter else ""
    start, end = columns.seconds(values, "start") or 0.0, columns.seconds(values, "end")
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
            *([values["picture"]] if values.get("picture") else []),
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
        accepted=columns.accepted_answers(values.get("accepted"), answer, options),
        letter=letter,
        start=start,
        end=end,
        asked_at=columns.seconds(values, "asked_at"),
        task=str(values.get("task") or ""),
        category=str(values.get("category") or ""),
        duration=str(values.get("duration") or ""),
        group=str(values.get("group") or ""),
        pair=str(values.get("pair") or ""),
        evidence=columns.evidence(values.get("evidence"), columns.seconds(values, "length")),
        evidence_video=str(values.get("evidence_video") or "").strip(),
        query=str(values.get("query") or "").strip(),
        subtitles=str(values.get("subtitles") or ""),
        subtitles_from=columns.seconds(values, "subtitles_from") or 0.0,
        picture=str(values.get("picture") or ""),
        candidates=columns.spans_in("candidates", values.get("candidates")),
        watch=columns.watch_of(values),
        prompt=columns.prompt(values.get("prompt")),
        rule=columns.rule(values.get("rule")),
        place=place,
    )


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


def _locate(job: Job, root: Path, values: dict[str, Any]) -> Iterator[Job]:
    """The job with the paths or URLs of its files; one job for each match of a glob, or one about
    all matches together.

    A missing file is not an error here: opening it will be.
    """
    job = replace(job, subtitles=_below(root, job.subtitles), picture=_below(root, job.picture))
    if _listed(values) is not None or job.video == ALL:
        found = dict.fromkeys(path for name in job.videos for path in _paths(name, root))
        if values.get("before"):
            found = _ended_before(str(values["before"]), found)
        first, *others = found or [ALL]
        job = replace(job, video=first, also=tuple(others))
        if others or first == ALL:
            _refuse_seconds(job)
        yield replace(job, evidence_video=_evidence_video(job, root))
        return
    paths = _paths(job.video, root)
    for path_or_url in paths:
        ident = job.id if len(paths) == 1 else f"{job.id}@{path_or_url.rsplit('/', 1)[-1]}"
        one = replace(job, id=ident, video=path_or_url)
        yield replace(one, evidence_video=_evidence_video(one, root))


def _below(root: Path, path: str) -> str:
    """The path of a file; "" for none."""
    return str(root / os.path.expanduser(path)) if path else ""


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
    if job.candidates:
        raise RowError("candidates are seconds of one video; leave them out, or name one video")
    if job.evidence and not job.evidence_video:
        raise RowError(
            "evidence is seconds of one video; say of which with evidence_video, or leave it out"
        )


def _evidence_video(job: Job, root: Path) -> str:
    """Which of several videos a job's evidence is of; "" where there is one video, or no evidence.
    RowError where it is none of them."""
    if not job.evidence_video:
        return ""
    if not job.evidence:
        raise RowError("evidence_video names the video of the evidence; give evidence as well")
    paths = _paths(job.evidence_video, root)
    if len(paths) > 1:
        raise RowError(f"evidence_video={job.evidence_video} is {len(paths)} videos; name one")
    if job.videos and paths[0] not in job.videos:
        raise RowError(f"evidence_video={job.evidence_video} is none of the row's videos")
    return "" if len(job.videos) == 1 else paths[0]


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
