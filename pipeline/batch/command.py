"""reelbank batch: many questions about many videos, each video encoded once, each id answered once.

1 rows -> jobs, 2 take up what an earlier run into the same folder left, 3 jobs -> tasks, 4 workers answer, every answer is on
the disk before the next is told, 5 tables and figures. Stopped at any moment, by kill -9 too, the same command goes on.
Exit code 1 when a row was refused or a question failed; they are tried again by the next run.
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

from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError
from pipeline.batch import compare, job_files, jobs, join, progress, run_folder, summary, tasks
from pipeline.batch.schema import Answered, Bad, Compute, Encoded, Event, Job
from pipeline.config.checks import check_dials
from pipeline.config.parts import check, part

# settings that say where and how fast, and leave every answer as it is
_FREE = "jobs out videos downloads bank shard strict unlabelled action runs compute threads ram_mb device_mb prefetch_frames format"
_FREE_KEYS = ("backbone.device", "annotations.prompt")  # choice.prompt says what was asked
_PACKAGES = "reelbank torch transformers open_clip_torch numpy faiss-cpu av decord pyarrow fsspec hydra-core".split()


def batch(config: DictConfig) -> int:
    """reelbank batch."""
    check_dials(config)
    if config.action == "compare":
        return _compare(config)
    if config.action == "join":
        return _join(config)
    if config.action != "run":
        raise UserError(f"action={config.action} is not known; use run, join or compare.")
    if config.at_once < 1:
        raise UserError(f"at_once={config.at_once} asks nothing; use 1 or more.")
    for group in ("annotations", "choice", "compute"):
        check(config, group)
    part(config, "choice")  # a mistake in it is told before a model is loaded
    compute: Compute = part(config, "compute")
    compute.check(config)
    out = Path(config.out)
    wanted, bad = read_jobs(config)
    with run_folder.locked(out):
        return _run(config, compute, wanted, bad, out)


def read_jobs(config: DictConfig) -> tuple[list[Job], list[Bad]]:
    """1 What to ask. UserError when no row can be used, or with strict=true when one cannot."""
    path = Path(config.jobs)
    entries = job_files.rows(path)
    root = Path(config.videos) if config.videos else path.parent
    found, bad = jobs.collect(
        entries, part(config, "annotations"), root, unlabelled=config.unlabelled
    )
    if bad and (config.strict or not found):
        first = f"{len(bad)} rows of {path} cannot be used, the first: " if len(bad) > 1 else ""
        raise UserError(f"{first}{bad[0]}")
    if not found:
        raise UserError(f"{path} holds no rows; check jobs=")
    found = tasks.sharded(found, config.shard)
    for one in bad:
        print(f"refused {one}", file=sys.stderr)
    return found, bad


def _run(config: DictConfig, compute: Compute, wanted: list[Job], bad: list[Bad], out: Path) -> int:
    downloads = Path(config.downloads) if config.downloads else out / "videos"
    told, encoded = run_folder.Lines(out / "answers.jsonl"), run_folder.Lines(out / "videos.jsonl")
    try:
        _agree(config, out, bool(told.rows))  # 2
        left = _left(wanted, told, out)
        began = {"began": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "state": "running"}
        _write_run(
            config, out, began | {"asked": len(wanted), "refused": [asdict(one) for one in bad]}
        )
        done = {row["id"] for row in told.rows}
        banks = compute.banks(str(config.bank))
        todo = tasks.tasks(wanted, banks, downloads, at_once=config.at_once, answered=done)  # 3
        plain = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        assert isinstance(plain, DictConfig)
        clock = time.perf_counter()
        with progress.shown(todo) as show:

            def tell(event: Event) -> None:
                if isinstance(event, Answered):
                    told.append(event.row)
                elif isinstance(event, Encoded):
                    encoded.append(asdict(event))
                show(event)

            compute(plain, todo, downloads, tell)  # 4
        here = {job.id for job in wanted}
        rows = sorted(
            (row for row in told.rows if row["id"] in here), key=lambda row: str(row["id"])
        )
        figures = summary.summary(rows, len(wanted), len(bad)) | {  # 5
            "began": began["began"],
            "state": "finished",
            "seconds": time.perf_counter() - clock,
            "answered_by_this_run": len(left),
            "refused": [asdict(one) for one in bad],
            "failures": [
                {"id": row["id"], "video": row["video"], "error": row["error"]}
                for row in rows
                if row["error"]
            ],
        }
        compute.write(out / "answers.parquet", rows)
        run_folder.write_csv(out / "videos.csv", summary.videos(rows, encoded.rows))
        _write_run(config, out, figures)
    finally:
        compute.close()
        told.close()
        encoded.close()
    print(json.dumps(figures) if config.format == "json" else _told(figures, out))
    return 1 if bad or figures["failed"] else 0


def _left(wanted: Sequence[Job], told: run_folder.Lines, out: Path) -> list[Job]:
    """What has no answer yet. Rows of questions that failed are taken away: they are asked again."""
    if any(row["error"] is not None for row in told.rows):
        told.keep([row for row in told.rows if row["error"] is None])
    done = {row["id"]: row["job"] for row in told.rows}
    for job in wanted:
        if done.get(job.id, job.digest()) != job.digest():
            raise UserError(
                f"id {job.id} ({job.place}) has an answer in {out} to another question; use another out=DIR"
            )
    return [job for job in wanted if job.id not in done]


def _agree(config: DictConfig, out: Path, some: bool) -> None:
    """UserError when the folder holds answers that were made with other settings."""
    path = out / "run.json"
    if not some or not path.is_file():
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
            f"the answers in {out} were made with {changes}; use another out=DIR or the same settings"
        )


def _settings(config: DictConfig) -> dict[str, Any]:
    """All settings that an answer depends on, flat."""
    kept: dict[str, Any] = {}

    def walk(path: str, node: Any) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(f"{path}.{key}" if path else str(key), value)
        else:
            kept[path] = node

    walk("", OmegaConf.to_container(config, resolve=True))
    return {
        key: value
        for key, value in kept.items()
        if key.split(".")[0] not in _FREE.split() and key not in _FREE_KEYS
    }


def _write_run(config: DictConfig, out: Path, figures: dict[str, Any]) -> None:
    """run.json: what ran, with what, and what it came to."""
    told = figures | {
        "settings": _settings(config),
        "configuration": OmegaConf.to_container(config, resolve=True),
        "revision": _revision(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    run_folder.replace(out / "run.json", json.dumps(told, indent=2).encode() + b"\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The commit that this runs from, with "+" behind it where files have changed; None outside a clone."""
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


def _cell(figures: dict[str, Any]) -> str:
    if not figures["n"]:
        return "-"
    return f"{100 * figures['share']:.1f} % ({100 * figures['low']:.1f}-{100 * figures['high']:.1f}), n={figures['n']}"


def _told(figures: dict[str, Any], out: Path) -> str:
    """The figures as text."""
    counts = f"{figures['answered']} of {figures['asked']} answered, {figures['failed']} failed"
    lines = [
        f"{counts}, {figures['bad_rows']} rows refused, {figures['unparsed']} answers name no option; see {out}"
    ]
    lines += [f"accuracy {_cell(figures['accuracy'])}"] if figures["accuracy"]["n"] else []
    for title in ("per_task", "per_duration"):
        lines += [f"  {name}: {_cell(some)}" for name, some in figures[title].items()]
    for title in ("groups_all_right", "evidence_cited"):
        lines += [f"{title.replace('_', ' ')} {_cell(figures[title])}"] if title in figures else []
    for title in ("mean_over_tasks", "mean_over_tasks_of_groups"):
        lines += (
            [f"{title.replace('_', ' ')} {100 * figures[title]:.1f} %"] if title in figures else []
        )
    lines += [
        f"failed {one['id']} ({one['video']}): {one['error']}" for one in figures["failures"][:10]
    ]
    return "\n".join(lines)


def _join(config: DictConfig) -> int:
    """reelbank batch action=join."""
    figures = join.join([Path(run) for run in config.runs], Path(config.out))
    print(json.dumps(figures) if config.format == "json" else _told(figures, Path(config.out)))
    return (
        1
        if figures["bad_rows"] or figures["failed"] or figures["answered"] < figures["asked"]
        else 0
    )


def _compare(config: DictConfig) -> int:
    """reelbank batch action=compare."""
    if len(config.runs) != 2:
        raise UserError(f"action=compare takes two runs, not {len(config.runs)}; write runs=[A,B]")
    first, second = (run_folder.read(Path(run)) for run in config.runs)
    found = compare.compare(first, second)
    if config.format == "json":
        print(json.dumps(found))
        return 0
    print(
        f"{config.runs[1]} less {config.runs[0]}, per cent right of the same questions, 95 % interval over videos"
    )
    for name, row in {"all": found["all"], **found["per_task"]}.items():
        print(
            f"{name}: {100 * row['second']:.1f} less {100 * row['first']:.1f} is {100 * row['difference']:+.1f} "
            f"({100 * row['low']:+.1f} to {100 * row['high']:+.1f}), {row['wins']} won, {row['losses']} lost, n={row['n']}"
        )
    if found["only_first"] or found["only_second"]:
        print(
            f"left out: {found['only_first']} only in the first, {found['only_second']} only in the second"
        )
    return 0
