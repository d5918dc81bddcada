"""Films and items through every arm: encode once, ask, one row a question. Resumable: what has a row is not asked again.

Rows go to results.jsonl, what encoding cost to encodings.jsonl; a line that was cut off by a crash is dropped and done
again. Knows no score: rows say what was asked, answered, ranked, read and cited, and when the needles showed.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from encoders.schema import FrameSource
from encoders.sources.file import FileSource
from memory.schema import Evidence, Hits, Question
from pipeline.answer.citations import cite, cited_spans
from pipeline.evaluation.needle.arms import Arm, settings_of
from pipeline.evaluation.needle.choose import in_letters, in_words, letters_of
from pipeline.evaluation.needle.film import FilmSource, fingerprint, sampled
from pipeline.evaluation.needle.make import needles_alone, without_needles
from pipeline.evaluation.needle.schema import Film, Item
from pipeline.evaluation.needle.vnbench import LETTERS, type_of
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import is_shown
from pipeline.scoring import is_right

Row = dict[str, Any]
RANKED = 64  # moments of the ranking that a row keeps
# what is done now, seconds of video encoded, questions answered: both since last
Report = Callable[[str, float, int], None]


def rows_of(path: Path) -> list[Row]:
    """The whole rows of a file that may not be there, or may have been cut off."""
    found: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # written when the process was stopped: asked again
            continue
    return found


def _mended(path: Path) -> list[Row]:
    """The same, with the file cut back to whole rows, so that the next one begins on a line of its own."""
    found = rows_of(path)
    if path.exists():
        text = "".join(json.dumps(row) + "\n" for row in found)
        if text != path.read_text(encoding="utf-8"):
            half = path.with_name(path.name + ".partial")
            half.write_text(text, encoding="utf-8")
            half.replace(path)
    return found


def key(item: Item, film: Film, arm: Arm) -> str:
    """What makes a row the answer to this and to nothing else."""
    return f"{item.id} {fingerprint(film)} {arm.key}"


def work(
    films: Sequence[Film], items: Sequence[Item], arms: Sequence[Arm]
) -> Iterator[tuple[Film, Item, Arm]]:
    """Every question that there is to ask, film by film."""
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
) -> list[Row]:
    """Ask what has no row yet; -> all rows of these items and arms. Banks hold one film at a time unless they are kept."""
    done = {row["key"]: row for row in _mended(out / "results.jsonl")}
    _mended(out / "encodings.jsonl")
    todo: dict[str, list[tuple[Item, Arm]]] = {}
    wanted = [
        (film, item, arm, key(item, film, arm)) for film, item, arm in work(films, items, arms)
    ]
    for film, item, arm, name in wanted:
        if name not in done:
            todo.setdefault(film.name, []).append((item, arm))
    # a bank has one writer: the arm that needed it first writes for all
    writers: dict[Path, Arm] = {}
    with (out / "results.jsonl").open("a", encoding="utf-8") as results:
        for film in films:
            written: dict[tuple[Path, str], None] = {}  # banks and videos of this film
            for variant in ("film", "haystack", "needles", ""):
                pairs = [
                    (item, arm) for item, arm in todo.get(film.name, ()) if arm.film_of == variant
                ]
                for arm in dict.fromkeys(arm for _, arm in pairs):
                    video_id = ""
                    if variant:
                        writer = writers.setdefault(arm.bank, arm)
                        video_id = _encoded(writer, _variant(film, variant), out, report)
                        written[arm.bank, video_id] = None
                    for item in (item for item, other in pairs if other is arm):
                        row = _row(item, film, arm, video_id)
                        done[row["key"]] = row
                        results.write(json.dumps(row) + "\n")
                        results.flush()
                        report(f"{film.name}: {arm.name}", 0.0, 1)
            for bank, video_id in () if keep_banks else written:
                writers[bank].qa.bank.drop(video_id)
    return [done[name] for *_, name in wanted]


def _variant(film: Film, variant: str) -> Film:
    return {"haystack": without_needles, "needles": needles_alone}.get(variant, lambda same: same)(
        film
    )


def source(film: Film, out: Path, fps: float, size: tuple[int, int]) -> FrameSource:
    """The frames of a film: of its file if it has one, else rendered."""
    width, height = size
    if film.file:
        return FileSource(out / film.file, fps, width=width, height=height)
    return FilmSource(film, fps, width=width, height=height)


def _encoded(writer: Arm, film: Film, out: Path, report: Report) -> str:
    """Have the film in the writer's bank; its id there."""
    frames = source(film, out, writer.config.fps, writer.qa.backbone.frame_size)
    video_id = frames.info.video_id
    known = writer.qa.bank.catalog.video(video_id)
    if known is None or not known.finished:
        last = 0.0

        def told(seconds: float, nbytes: int) -> None:
            nonlocal last
            report(f"encoding {film.name}", seconds - last, 0)
            last = seconds

        made = writer.qa.ingest(frames, told)
        with (out / "encodings.jsonl").open("a", encoding="utf-8") as log:
            log.write(
                json.dumps({"film": film.name, "bank": writer.bank.name} | asdict(made)) + "\n"
            )
    return video_id


def _row(item: Item, film: Film, arm: Arm, video_id: str) -> Row:
    """One question in one arm."""
    qa, clock = arm.qa, StageTimer()
    # perfect retrieval is told where to look
    question = Question(item.question, video_id, id=json.dumps(film.spans(item.needles)))
    if arm.control == "blind":
        none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        evidence = Evidence(question, (), none, 0, qa.ingester.interval)
    else:
        evidence = qa.bank.recall(
            question, read_tokens=arm.budget(item, film), kv=qa.answerer.reader.needs_kv
        )
    reading = qa.answerer.reader.read(evidence, clock)
    shown = is_shown(reading.text)
    cited = cite(evidence, reading.weights, qa.answerer.cite_share) if shown else ()
    read = {
        o: float(t)
        for run in evidence.runs
        for o, t in zip(run.ordinals, run.tokens.times.tolist(), strict=True)
    }
    # frames that are ranked and not read are known by number; in files they lie up to one of the file's frames later
    ranked = [o * qa.ingester.interval for o in evidence.hits.frames.tolist()]
    # where there is no needle there is none to find
    needles = (
        _variant(film, arm.film_of).spans(item.needles)
        if arm.film_of in ("film", "needles")
        else ()
    )
    preds, choice = _choice(arm, evidence, item, reading.text)
    return {
        "key": key(item, film, arm),
        "arm": arm.name,
        "control": arm.control,
        "item": item.id,
        "film": film.name,
        "task": item.task,
        "family": item.family,
        "minutes": film.seconds / 60,
        "depth": item.depth,
        "question": item.question,
        "truth": item.answer,
        "text": reading.text,
        "right": is_right(reading.text, item.answer),
        "shown": shown,
        "options": item.options,
        "choice": choice,
        "chose_right": None if choice is None else choice == item.slot,
        "type": type_of(item, film),  # VNBench's
        "preds": preds,  # what is answered in its four tries
        "gt": letters_of(item.slot) if item.options else [],
        "needles": needles,
        "sampled": [sampled(film, i, arm.config.fps) for i in item.needles] if needles else [],
        "ranks": [
            _first(ranked, span) for span in needles
        ],  # of a frame that shows the needle; None if no such frame is ranked
        "ranked": [round(t, 3) for t in ranked[:RANKED]],
        "read": [round(t, 3) for t in sorted(read.values())],
        "found": [any(a <= t < b for t in read.values()) for a, b in needles],
        "cited": cited_spans(cited, qa.ingester.interval),
        "frames_read": evidence.frame_count,
        "visual_tokens": sum(len(run.tokens.tokens) for run in evidence.runs),
        "read_bytes": sum(
            run.kv.nbytes if run.kv else run.tokens.tokens.nbytes for run in evidence.runs
        ),
        # of each stage; which option is meant is not what a user waits for
        "seconds": evidence.seconds | clock.seconds,
        "config": settings_of(arm.config),
    }


def _first(ranked: Sequence[float], span: tuple[float, float]) -> int | None:
    return next((rank for rank, t in enumerate(ranked, start=1) if span[0] <= t < span[1]), None)


def _choice(arm: Arm, evidence: Evidence, item: Item, text: str) -> tuple[list[str], int | None]:
    """What stands for VNBench's four tries, and the option meant (in letters: that of the first try)."""
    if not item.options:
        return [], None
    if arm.config.answers == "letters":
        preds = in_letters(arm.qa.answerer.reader, evidence, item.question, item.options)
        return preds, LETTERS.find(preds[0][:1]) if preds[0] else -1
    choice = in_words(arm.qa.answerer.reader, evidence, text, item.options)
    return letters_of(choice), choice
