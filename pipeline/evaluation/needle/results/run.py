"""Films and items through every arm: encode once, ask, one row per question.

Resumable: a question with a row is not asked again. Rows go to results.jsonl, costs of encoding to
encodings.jsonl, and the whole configuration of each arm once to configurations.jsonl. Knows no
score.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from encoders.errors import UserError
from encoders.schema import FrameSource
from memory.storage.json_lines import JsonLines, JsonRow
from pipeline.build import open_video
from pipeline.evaluation.needle.films.film import FilmSource
from pipeline.evaluation.needle.films.schema import Film, Item
from pipeline.evaluation.needle.results.arms import Arm
from pipeline.evaluation.needle.results.rows import key, row_of
from pipeline.ingest.text import TextExtraction

# current activity, seconds of video encoded and questions answered since the last call
Report = Callable[[str, float, int], None]


def work(
    films: Sequence[Film], items: Sequence[Item], arms: Sequence[Arm]
) -> Iterator[tuple[Film, Item, Arm]]:
    """Every question to ask, film by film."""
    of_film: dict[str, list[Item]] = {film.name: [] for film in films}
    for item in items:
        of_film[item.film].append(item)
    for film in films:
        for arm in arms:
            yield from ((film, item, arm) for item in of_film[film.name] if arm.asks(item, film))


def run(
    films: Sequence[Film],
    items: Sequence[Item],
    arms: Sequence[Arm],
    out: Path,
    *,
    keep_banks: bool,
    report: Report,
) -> list[JsonRow]:
    """Ask what has no row yet; -> all rows of these items and arms.

    Banks hold one film at a time unless keep_banks. UserError on an arm that needs files, where the
    films are none.
    """
    _refuse_without_files(films, arms)
    questions = [
        (film, item, arm, key(item, film, arm)) for film, item, arm in work(films, items, arms)
    ]
    turns = _turns(items)
    # a bank has one writer: the arm that needed it first writes for all
    writers: dict[Path, Arm] = {}
    results = JsonLines(out / "results.jsonl", ascii_only=True)
    encodings = JsonLines(out / "encodings.jsonl", ascii_only=True)
    with closing(results), closing(encodings):
        _write_configurations(arms, out)
        done = {row["key"]: row for row in results.rows}
        todo: dict[str, list[tuple[Item, Arm]]] = {}
        for film, item, arm, name in questions:
            if name not in done:
                todo.setdefault(film.name, []).append((item, arm))
        for film in films:
            written: dict[tuple[Path, str], None] = {}  # banks and videos of this film
            pairs = todo.get(film.name, ())
            # one version of the film after another: the film itself, then those of controls
            for arm in sorted(
                dict.fromkeys(arm for _, arm in pairs), key=lambda arm: arm.variant(film).name
            ):
                writer = writers.setdefault(arm.bank, arm)
                version = arm.variant(film)
                frames = source_of(writer, version, out)
                video_id = _encode(writer, version, frames, encodings, report)
                written[arm.bank, video_id] = None
                own = [item for item, other in pairs if other is arm]
                for item in sorted(own, key=lambda item: turns[item.id]):
                    row = row_of(item, film, arm, video_id, turns[item.id])
                    results.append(row)
                    done[row["key"]] = row
                    report(f"{film.name}: {arm.name}", 0.0, 1)
            for bank, video_id in () if keep_banks else written:
                writers[bank].qa.bank.drop(video_id)
    return [done[name] for *_, name in questions]


def _turns(items: Sequence[Item]) -> dict[str, int]:
    """Item id -> which of its film's questions it is, from 1. Each film begins with another one, so
    that no kind of question has a turn of its own."""
    of_film: dict[str, list[str]] = {}
    for item in items:
        of_film.setdefault(item.film, []).append(item.id)
    return {
        name: 1 + (place - number) % len(names)
        for number, names in enumerate(of_film.values())
        for place, name in enumerate(names)
    }


def _write_configurations(arms: Sequence[Arm], out: Path) -> None:
    """Add the resolved configuration of each arm whose key is new."""
    with closing(JsonLines(out / "configurations.jsonl", ascii_only=True)) as configurations:
        known = {row["key"] for row in configurations.rows}
        for arm in arms:
            if arm.key not in known:
                known.add(arm.key)
                configurations.append(arm.record())


def _refuse_without_files(films: Sequence[Film], arms: Sequence[Arm]) -> None:
    if all(film.file for film in films):
        return
    for arm in arms:
        if arm.config.text:
            why = "has text=, and words are read from files"
        elif arm.encodes_on_demand:
            why = (
                f"has visual_tokens={arm.config.visual_tokens}, and questions encode from the "
                "film's file"
            )
        else:
            continue
        raise UserError(f"arm {arm.name} {why}; make the films with files=true")


def source_of(writer: Arm, film: Film, out: Path) -> FrameSource:
    """The film's frames at the writer's rate and size: from its file, else rendered."""
    if film.file:
        return open_video(writer.config, writer.qa.backbone, str(out / film.file))
    width, height = writer.qa.backbone.frame_size
    return FilmSource(film, writer.config.fps, width=width, height=height)


def _encode(
    writer: Arm, film: Film, frames: FrameSource, encodings: JsonLines, report: Report
) -> str:
    """Encode the film into the writer's bank unless it is there; -> its video id."""
    video_id = frames.info.video_id
    video = writer.qa.bank.catalog.video(video_id)
    if video is None or not video.finished:
        last = 0.0

        def progress(seconds: float, nbytes: int) -> None:
            nonlocal last
            report(f"encoding {film.name}", seconds - last, 0)
            last = seconds

        ingester = writer.qa.ingester
        if not film.file:  # words are read from files
            ingester = replace(ingester, text=TextExtraction(writer.qa.bank))
        ingested = ingester.ingest(frames, progress)
        encodings.append(
            {"film": film.name, "arm": writer.name, "bank": writer.bank.name} | asdict(ingested)
        )
    return video_id
