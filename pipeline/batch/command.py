"""`reelbank batch`: answers many questions about many videos. Each video is encoded once.

1 rows -> jobs. 2 read the answers of an earlier run into the same folder. 3 jobs -> tasks. 4
workers answer; every answer is durable before the next event. 5 scores, tables and figures. A run
that was stopped at any moment, by kill -9 too, continues with the same command. Exit code 1 when a
row was rejected, a question failed, or an answer could not be scored; the next run tries these
again.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from memory.storage.json_lines import JsonLines
from pipeline.batch import compare, job_files, join, progress, run_folder, summary, tasks
from pipeline.batch.controls import (
    build_controls,
    control_figures,
    control_table,
    with_controls,
)
from pipeline.batch.jobs import Annotations, collect
from pipeline.batch.option_choice import NEEDS_LETTERS
from pipeline.batch.run_folder import RunFolder
from pipeline.batch.schema import (
    RETRIEVE,
    Compute,
    Event,
    Job,
    QuestionAnswered,
    RejectedRow,
    VideoEncoded,
)
from pipeline.batch.scores import rescore, score_rows
from pipeline.config.checks import check_ranges, is_endpoint
from pipeline.config.parts import check, instantiate
from pipeline.config.tasks.evaluation_settings import BatchSettings

# settings that change where and how fast a run works, but no answer
_UNRELATED = (
    "jobs out videos downloads bank also_banks shard strict unlabelled controls action runs "
    "compute threads ram_mb device_mb prefetch_frames format score given"
).split()
# option_choice.prompt, which often is ${annotations.prompt}, records the prompt
_UNRELATED_KEYS = (
    "backbone.device",
    "clip.device",
    "annotations.prompt",
    # how a model behind an address is treated
    "backbone.key_env",
    "backbone.parallel",
    "backbone.requests_per_minute",
    "backbone.timeout_s",
    "backbone.tries",
    "backbone.retry_s",
)
_PACKAGES = (
    "reelbank torch transformers open_clip_torch numpy faiss-cpu av decord pyarrow fsspec "
    "hydra-core"
).split()


def run(config: BatchSettings) -> int:
    """reelbank batch."""
    check_ranges(config)
    if config.action == "compare":
        return _compare(config)
    if config.action == "join":
        return _join(config)
    if config.action == "score":
        return _score(config)
    if config.action not in ("run", RETRIEVE):
        raise UserError(
            f"action={config.action} is not known; use run, retrieve, score, join or compare."
        )
    if config.action == RETRIEVE and config.controls:
        raise UserError("controls= are answers, which action=retrieve has none of; leave one out")
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size} asks nothing; use 1 or more.")
    for group in ("annotations", "option_choice", "compute"):
        check(group, getattr(config, group))
    instantiate("option_choice", config.option_choice)  # reports mistakes before a model is loaded
    scorers = score_rows.build_scorers(config.score)
    compute: Compute = instantiate("compute", config.compute)
    compute.check(config)
    folder = RunFolder(Path(config.out))
    jobs, rejected = read_jobs(config)
    scores_texts = config.option_choice.get("candidate") == "text" and config.action != RETRIEVE
    if scores_texts and is_endpoint(config.backbone) and any(job.options for job in jobs):
        raise UserError(NEEDS_LETTERS)
    _check_one_bank(config, compute, jobs)
    with folder.lock():
        figures = _run(config, compute, jobs, rejected, folder, scorers)
    _print(config, figures)
    return 1 if rejected or figures["failed"] or figures["unscored"] else 0


def _check_one_bank(config: BatchSettings, compute: Compute, jobs: Sequence[Job]) -> None:
    """UserError where a row asks the whole bank, or a run several banks, and several workers have a
    bank each."""
    if config.also_banks and len(compute.banks(str(config.bank))) > 1:
        raise UserError(
            "also_banks= and several workers do not fit, as each worker has a bank of its own; use "
            "compute.workers=1"
        )
    row = next((job for job in jobs if not job.videos), None)
    if row is not None and len(compute.banks(str(config.bank))) > 1:
        raise UserError(
            f"{row.place}: a question about the whole bank needs all videos in one bank; use "
            "compute.workers=1 and a bank=DIR that one worker made"
        )


def read_jobs(config: BatchSettings) -> tuple[list[Job], list[RejectedRow]]:
    """Step 1. UserError when no row can be used, or with strict=true when one cannot."""
    path = Path(config.jobs)
    annotations: Annotations = instantiate("annotations", config.annotations)
    entries = job_files.rows(path, whole_file=annotations.whole_file)
    root = Path(config.videos) if config.videos else path.parent
    jobs, rejected = collect(entries, annotations, root, unlabelled=config.unlabelled)
    if rejected and (config.strict or not jobs):
        count = len(rejected)
        first = f"{count} rows of {path} cannot be used, the first: " if count > 1 else ""
        raise UserError(f"{first}{rejected[0]}")
    if not jobs:
        raise UserError(f"{path} holds no rows; check jobs=")
    controls = build_controls(config.controls, config.full_tokens)
    jobs = with_controls(tasks.select_shard(jobs, config.shard), controls)
    for row in rejected:
        print(f"refused {row}", file=sys.stderr)
    return jobs, rejected


def _run(
    config: BatchSettings,
    compute: Compute,
    jobs: list[Job],
    rejected: list[RejectedRow],
    folder: RunFolder,
    scorers: score_rows.Scorers,
) -> dict[str, Any]:
    """Steps 2 to 5. Returns the figures."""
    answers = JsonLines(folder.answers, durable=True)
    videos = JsonLines(folder.videos, durable=True)
    refused = [asdict(row) for row in rejected]
    try:
        _check_settings(config, folder, bool(answers.rows))  # 2
        pending = _pending_jobs(jobs, answers, folder)
        start = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        asked = sum(not job.control for job in jobs)
        state = {"began": start, "state": "running", "asked": asked, "refused": refused}
        folder.write_record(_record(config, state))
        clock = time.perf_counter()
        _answer(config, compute, jobs, answers, videos, folder)
        ids = {job.id for job in jobs}
        rows = sorted(
            (row for row in answers.rows if row["id"] in ids), key=lambda row: str(row["id"])
        )
        scored = score_rows.score_rows(summary.own_rows(rows), scorers)  # 5
        figures = summary.summary(rows, asked, len(rejected), scored, scorers) | {
            "began": start,
            "state": "finished",
            "seconds": time.perf_counter() - clock,
            "answered_by_this_run": len(pending),
            "refused": refused,
            "failures": summary.failures(rows),
            "controls": control_figures(rows),
        }
        folder.write_controls(control_table(figures["controls"]))
        score_rows.write_scores(folder.scores, scored)
        compute.write(folder.answers_parquet, score_rows.with_metrics(rows, scored))
        run_folder.write_csv(folder.videos_csv, summary.videos(rows, videos.rows))
        folder.write_record(_record(config, figures))
        return figures
    finally:
        compute.close()
        answers.close()
        videos.close()


def _answer(
    config: BatchSettings,
    compute: Compute,
    jobs: Sequence[Job],
    answers: JsonLines,
    videos: JsonLines,
    folder: RunFolder,
) -> None:
    """Steps 3 and 4: answer what has no answer yet."""
    downloads = Path(config.downloads) if config.downloads else folder.root / "videos"
    done = {row["id"] for row in answers.rows}
    banks = compute.banks(str(config.bank))
    todo = tasks.plan_tasks(  # 3
        jobs, banks, downloads, batch_size=config.batch_size, answered=done
    )
    with progress.show_progress(todo) as show:

        def emit(event: Event) -> None:
            if isinstance(event, QuestionAnswered):
                answers.append(event.row)
            elif isinstance(event, VideoEncoded):
                videos.append(asdict(event))
            show(event)

        compute(config, todo, downloads, emit)  # 4


def _pending_jobs(jobs: Sequence[Job], answers: JsonLines, folder: RunFolder) -> list[Job]:
    """The jobs without an answer. Removes the rows of failed questions, to ask them again."""
    if any(row["error"] is not None for row in answers.rows):
        answers.replace_rows([row for row in answers.rows if row["error"] is None])
    done = {row["id"]: row["job"] for row in answers.rows}
    for job in jobs:
        if done.get(job.id, job.digest()) != job.digest():
            raise UserError(
                f"id {job.id} ({job.place}) has an answer in {folder} to another question; "
                "use another out=DIR"
            )
    return [job for job in jobs if job.id not in done]


def _check_settings(config: BatchSettings, folder: RunFolder, has_answers: bool) -> None:
    """UserError when the folder has answers that were made with other settings."""
    path = folder.run_json
    if not has_answers or not path.is_file():
        return
    try:
        before = json.loads(path.read_bytes())["settings"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged; use another out=DIR") from error
    now = _settings(config)
    differ = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differ:
        changes = ", ".join(f"{key}={before.get(key)} (this run: {now.get(key)})" for key in differ)
        raise UserError(
            f"the answers in {folder} were made with {changes}; "
            "use another out=DIR or the same settings"
        )


def _settings(config: BatchSettings) -> dict[str, Any]:
    """All settings that answers depend on, as dotted key -> value."""
    flat: dict[str, Any] = {}

    def walk(path: str, node: object) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(f"{path}.{key}" if path else str(key), value)
        else:
            flat[path] = node

    walk("", config.to_dict())
    flat["retrieves"] = config.action == RETRIEVE or None
    return {
        key: value
        for key, value in flat.items()
        if key.split(".")[0] not in _UNRELATED and key not in _UNRELATED_KEYS
        if key != "retrieves" or value  # answers of earlier versions do not say so
    }


def _record(config: BatchSettings, figures: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json: figures, settings, versions, machine."""
    return figures | {
        "settings": _settings(config),
        "configuration": config.to_dict(),
        "revision": _revision(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The commit of this code, with "+" if files have changed; None outside a clone."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=20
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (
        None
        if commit.returncode
        else commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
    )


def _print(config: BatchSettings, figures: dict[str, Any]) -> None:
    out = Path(config.out)
    if config.format == "json":
        print(json.dumps(figures))
        return
    print(summary.as_text(figures, out))
    if figures.get("controls"):
        print("\n".join(control_table(figures["controls"])))


def _join(config: BatchSettings) -> int:
    """reelbank batch action=join."""
    figures = join.join([Path(run) for run in config.runs], Path(config.out), config.score)
    _print(config, figures)
    incomplete = figures["answered"] < figures["asked"]
    is_whole = not (figures["bad_rows"] or figures["failed"] or figures["unscored"] or incomplete)
    return 0 if is_whole else 1


def _score(config: BatchSettings) -> int:
    """reelbank batch action=score."""
    chosen = any(one.startswith(("score=", "score.", "annotations=")) for one in config.given)
    figures = rescore.rescore(RunFolder(Path(config.out)), config.score if chosen else None)
    _print(config, figures)
    return 1 if figures["unscored"] else 0


def _compare(config: BatchSettings) -> int:
    """reelbank batch action=compare."""
    if len(config.runs) != 2:
        raise UserError(f"action=compare takes two runs, not {len(config.runs)}; write runs=[A,B]")
    one, two = (RunFolder(Path(run)) for run in config.runs)
    answers = one.read_answers(), two.read_answers()
    scored = None
    if one.run_json.is_file() and two.run_json.is_file():
        scored = (
            compare.Scored(one.read_scores(), one.read_record()),
            compare.Scored(two.read_scores(), two.read_record()),
        )
    result = compare.compare(*answers, scored)
    if config.format == "json":
        print(json.dumps(result))
    else:
        print(compare.as_text(result, *config.runs))
    return 0
