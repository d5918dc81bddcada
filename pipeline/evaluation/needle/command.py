"""`reelbank needle`: make, run, score, report.

    reelbank needle preset=small out=runs/needle          # everything; the same command resumes
    reelbank needle action=make minutes=[60] tasks=[retrieve] files=true haystack=[my.mp4]
    reelbank needle action=score out=runs/needle          # tables and figures again
    reelbank needle action=score predictions=results.jsonl   # other results, by VNBench's rules

Knows the order of these steps, and the errors before any of them.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from encoders.errors import UserError
from encoders.extras import require_extra
from encoders.sources.container import check_file, inspect
from memory.storage import json_lines
from pipeline.config.tasks.evaluation_settings import NeedleSettings
from pipeline.evaluation.espeak import can_speak
from pipeline.evaluation.needle.films import vnbench
from pipeline.evaluation.needle.films.make import Grid, known_tasks, make, needles_alone, save
from pipeline.evaluation.needle.films.own_needles import own_tasks
from pipeline.evaluation.needle.films.schema import Film, Item, read_films, read_items
from pipeline.evaluation.needle.films.tasks.sheet import NeedleTask, check
from pipeline.evaluation.needle.results import vnbench_score

if TYPE_CHECKING:  # it brings torch
    from pipeline.build import AnyModel

ACTIONS = ("all", "make", "run", "score")
VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi")


def run(config: NeedleSettings) -> int:
    """Run the requested actions; 0 when all is done. UserError on bad input."""
    if config.action not in ACTIONS:
        raise UserError(f"action={config.action} is not known; use one of {', '.join(ACTIONS)}.")
    if config.answers not in ("words", "letters"):
        raise UserError(f"answers={config.answers} is not known; use words or letters.")
    if config.predictions:
        if config.action != "score":
            raise UserError("predictions= is somebody's file of results; say action=score with it.")
        return _score_predictions(config)
    if config.action in ("all", "score"):
        require_extra("bench", "reelbank needle")
    out = Path(config.out)
    grid = _grid(config)
    if config.action in ("all", "make"):
        films, items = _make(config, grid, out)
        print(
            f"{out}: {len(items)} questions about {len(films)} films, "
            f"{sum(f.seconds for f in films) / 3600:.2f} hours"
        )
    if config.action in ("all", "run"):
        _run(config, grid, out)
    if config.action in ("all", "score"):
        _score(config, grid, out)
    return 0


def _grid(config: NeedleSettings) -> Grid:
    """The benchmark to make. UserError on what cannot be made."""
    values: dict[str, Any] = {
        name: getattr(config, name)
        for name in (
            "minutes",
            "depths",
            "tasks",
            "films",
            "looks",
            "needle_seconds",
            "seed",
            "spliced",
            "width",
            "height",
        )
    }
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    known = known_tasks(config.needle_task)
    if config.needles:
        own = own_tasks(Path(config.needles))
        known, values["tasks"] = known | own, (*values["tasks"], *own)
    check(values["tasks"], known)
    values["tasks"] = _audible(values["tasks"], known, config.files)
    if config.tokens:
        values["minutes"] = _minutes_of(config)
    if min(config.width, config.height) < 32:
        raise UserError(
            f"width={config.width} height={config.height} is too small for a card; use 32 pixels "
            "or more."
        )
    return Grid(haystack=_haystack(config), known_tasks=known, **values)


def _audible(tasks: Sequence[str], known: Mapping[str, NeedleTask], files: bool) -> tuple[str, ...]:
    """The tasks without those that nobody can say here, and a sentence about these.

    UserError where nothing is left, and where films have no sound.
    """
    spoken = [name for name in tasks if known[name].has_sound]
    if spoken and not files:
        raise UserError(
            f"task {spoken[0]} is heard, and rendered films have no sound; say files=true."
        )
    if not spoken or can_speak():
        return tuple(tasks)
    silent = tuple(name for name in tasks if name not in spoken)
    sentence = f"task {', '.join(spoken)} is left out, because espeak-ng is not installed"
    if not silent:
        raise UserError(f"{sentence}; install espeak-ng, or name other tasks.")
    print(f"reelbank: {sentence}.", file=sys.stderr)
    return silent


def _minutes_of(config: NeedleSettings) -> tuple[float, ...]:
    """Lengths of films whose frames have so many tokens in the language model.

    The tokens are those of the backbone, before any compressor. UserError on a length below a
    frame.
    """
    from pipeline.build import build_backbone

    frame = build_backbone(config).tokens_per_frame
    if min(config.tokens) < frame:
        raise UserError(
            f"tokens has {min(config.tokens)}, and one frame of {config.backbone['_target_']} has "
            f"{frame}; give more."
        )
    return tuple(tokens / frame / config.fps / 60 for tokens in config.tokens)


def _haystack(config: NeedleSettings) -> tuple[str, ...]:
    """The files of the haystack; a folder stands for the videos in it."""
    files: list[str] = []
    for name in config.haystack:
        path = Path(name)
        inside = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEOS)
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise UserError(
                f"haystack {name} has no video ({', '.join(VIDEOS)}); give files, or [] for "
                "procedural footage."
            )
        files += [str(p) for p in inside]
    for name in files:
        check_file(Path(name))
        seconds = inspect(Path(name)).duration
        if seconds < config.needle_seconds:
            raise UserError(
                f"haystack {name} lasts {seconds:.2f} s, shorter than a needle of "
                f"{config.needle_seconds:g} s; leave it out."
            )
    return tuple(files)


def _make(config: NeedleSettings, grid: Grid, out: Path) -> tuple[list[Film], list[Item]]:
    """Write plans and questions, and with files=true the videos that are missing."""
    films, items = make(grid)
    if config.files:
        films = _files(films, items, out)
    save(films, items, out)
    return films, items


def _files(films: Sequence[Film], items: Sequence[Item], out: Path) -> list[Film]:
    """Write each film once, and a link to it for each question.

    VNBench's rows name a file of their own for every question.
    """
    from pipeline.evaluation.needle.films.film import fingerprint, write

    folder = out / "VNBench"
    folder.mkdir(parents=True, exist_ok=True)
    done, before = [], 0.0
    with _bar() as bar:
        job = bar.add_task("writing films", total=round(sum(film.seconds for film in films)))
        for film in films:
            name = f"{film.name}-{fingerprint(film)}.mp4"  # another plan is another file
            film = replace(film, file=f"VNBench/{name}")
            if not (folder / name).exists():
                write(film, folder / name, _advance_bar(bar, job, before))
            alone = needles_alone(film)  # a file where the control has words
            if alone.file and not (out / alone.file).exists():
                write(alone, out / alone.file)
            before += film.seconds
            bar.update(job, completed=before)
            done.append(film)
    by_name = {film.name: film for film in done}
    for item in items:
        if item.options:
            film = by_name[item.film]
            link = folder / vnbench.file_name(item, film)
            link.unlink(missing_ok=True)
            link.symlink_to(Path(film.file).name)
    return done


def _advance_bar(bar: Progress, job: TaskID, before: float) -> Callable[[float], None]:
    """Shows on a bar how many seconds are written; `before` belong to earlier films."""
    return lambda seconds: bar.update(job, completed=before + seconds)


def _run(config: NeedleSettings, grid: Grid, out: Path) -> None:
    from pipeline.build import build_backbone
    from pipeline.config.compose import compose
    from pipeline.evaluation.needle.methods.tuning import tuned_arms
    from pipeline.evaluation.needle.results import run as runner
    from pipeline.evaluation.needle.results.arms import Arm, arms

    films, items = read_films(out / "films.jsonl"), read_items(out / "items.jsonl")
    loaded: dict[str, AnyModel] = {}

    def parts(own: NeedleSettings) -> "AnyModel":
        """One backbone for all arms with the same settings of it."""
        name = json.dumps(own.backbone, sort_keys=True)
        if name not in loaded:
            loaded[name] = build_backbone(own)
        return loaded[name]

    def own(overrides: Sequence[str]) -> NeedleSettings:
        return compose("needle", [*config.given, *overrides])

    tuned = tuned_arms(config, grid, own, parts, lambda line: print(line, file=sys.stderr))
    all_arms: list[Arm] = arms(config.changed(arms=tuned), own, parts)
    try:
        total = sum(1 for _ in runner.work(films, items, all_arms))
        began = reported = time.perf_counter()
        encoded = 0.0
        with _bar() as bar:
            job = bar.add_task("needle", total=total)

            def report(what: str, seconds: float, questions: int) -> None:
                nonlocal encoded, reported
                encoded += seconds
                bar.update(
                    job, advance=questions, description=f"{what} ({encoded / 3600:.2f} h of video)"
                )
                if not bar.console.is_terminal and time.perf_counter() - reported > 30:
                    reported = time.perf_counter()
                    print(
                        f"needle: {bar.tasks[0].completed:.0f} of {total} answers, "
                        f"{encoded / 3600:.2f} h encoded, "
                        f"{reported - began:.0f} s: {what}",
                        file=sys.stderr,
                        flush=True,
                    )

            rows = runner.run(
                films, items, all_arms, out, keep_banks=config.keep_banks, report=report
            )
            bar.update(job, completed=total)
    finally:
        for arm in all_arms:
            arm.close()
    print(f"{out}: {len(rows)} answers, {time.perf_counter() - began:.0f} s")


def _score(config: NeedleSettings, grid: Grid, out: Path) -> None:
    from pipeline.evaluation.needle.films.film import fingerprint
    from pipeline.evaluation.needle.results import report, score

    films, items = read_films(out / "films.jsonl"), read_items(out / "items.jsonl")
    now = {
        item.id: f"{item.id} {fingerprint(film)}"
        for film in films
        for item in items
        if item.film == film.name
    }
    # rows about other versions of a film do not belong to this benchmark
    rows = [
        row
        for row in json_lines.read(out / "results.jsonl")
        if row["key"].rpartition(" ")[0] == now.get(row["item"])
    ]
    rows = _latest_settings(rows)
    if not rows:
        raise UserError(
            f"{out} has no answers to these questions; run `reelbank needle action=run out={out}` "
            "first."
        )
    report.write(rows, items, films, json_lines.read(out / "encodings.jsonl"), grid.depths, out)
    if config.papers:
        _write_leaderboard(config, rows, films, out)
    if config.format == "json":
        arms = score.by(rows, "arm")
        print(
            json.dumps(
                {arm: {"right": score.share(score.accuracy(own))} for arm, own in arms.items()}
            )
        )
    else:
        print((out / "report.md").read_text(encoding="utf-8"))
        print(f"figures and failures: {out / 'report.html'}")
        if config.papers:
            print(f"leaderboard: {out / 'leaderboard.html'}")


def _write_leaderboard(
    config: NeedleSettings, rows: Sequence[dict[str, Any]], films: Sequence[Film], out: Path
) -> None:
    """The methods of preset=methods beside each other."""
    from pipeline.evaluation.needle.methods import leaderboard
    from pipeline.evaluation.needle.results import report

    dials = json_lines.read(out / "dials.jsonl")
    names = {film.name for film in films}
    encodings = [one for one in json_lines.read(out / "encodings.jsonl") if one["film"] in names]
    board = leaderboard.entries(
        rows, encodings, config.papers, {one["arm"]: one["override"] for one in dials}
    )
    words = (
        "Right: free answers, exact up to case, with a 95 % interval that resamples films; beside "
        "it points less the first method on the same questions. A star marks the Pareto front of "
        "accuracy against that column. Attention held: of the question's attention over all frames "
        "of the bank, the per cent on the frames that were read, mean over layers and heads. Dials "
        "were tuned "
        f"to {config.bank_mb:g} MB an hour on a film of another seed; a method without a dial has "
        "the bytes that it has. Tokens and seconds are medians of a question over all passes."
    )
    leaderboard.write(board, report.heading(rows, films), words, out)


def _latest_settings(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the settings that each arm used last: an arm may change between two runs.

    Configurations come before controls.
    """
    last = {row["arm"]: row["key"].rpartition(" ")[2] for row in rows}
    latest = [row for row in rows if row["key"].rpartition(" ")[2] == last[row["arm"]]]
    return sorted(latest, key=lambda row: row["control"] != "")  # configurations before controls


def _score_predictions(config: NeedleSettings) -> int:
    """Results of any model by VNBench's rules."""
    path = Path(config.predictions)
    results = vnbench_score.read_results(path)
    done = vnbench_score.score(results)
    if config.format == "json":
        print(
            json.dumps(
                {
                    "types": done.types,
                    "groups": done.groups,
                    "overall": done.overall,
                    "single": done.single,
                }
            )
        )
        return 0
    print(f"{path}: {len(results)} rows, {done.videos} videos")
    for name, value in (*done.types.items(), *done.groups.items()):
        print(f"  {name:12} {100 * value:5.1f}")
    print(f"  four tries   {100 * done.overall:5.1f}\n  single try   {100 * done.single:5.1f}")
    return 0


def _bar() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
