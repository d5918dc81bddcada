"""Films and items through every arm: encode once, ask, one row per question.

Resumable: a question with a row is not asked again. Rows go to results.jsonl, costs of encoding to
encodings.jsonl. Knows no score of a whole run: a row says what was asked, answered, ranked, read
and cited, and when the needles showed.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.schema import FrameSource
from memory.schema import Evidence, Hits, Question
from memory.storage.json_lines import JsonLines, JsonRow
from pipeline.answer.citations import cite, cited_spans
from pipeline.answer.strategies.call_log import call_of
from pipeline.answer.strategies.retrieve import Retrieve
from pipeline.build import open_video
from pipeline.evaluation.needle.films.film import FilmSource, fingerprint, is_sampled
from pipeline.evaluation.needle.films.make import needles_alone, without_needles
from pipeline.evaluation.needle.films.schema import Film, Item, Spans
from pipeline.evaluation.needle.films.vnbench import LETTERS, ORDERS, type_of
from pipeline.evaluation.needle.results.arms import Arm, settings_of
from pipeline.evaluation.needle.results.choose import answer_tries, choose_option, letters_of
from pipeline.ingest.text import TextExtraction
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, Reading, is_shown
from pipeline.scoring import is_right

ResultRow = JsonRow
RANKED = 64  # times of the ranking that a row holds
# current activity, seconds of video encoded and questions answered since the last call
Report = Callable[[str, float, int], None]


def key(item: Item, film: Film, arm: Arm) -> str:
    """Identifies the question, the film's frames and the arm's settings that a row belongs to."""
    return f"{item.id} {fingerprint(film)} {arm.key}"


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
) -> list[ResultRow]:
    """Ask what has no row yet; -> all rows of these items and arms.

    Banks hold one film at a time unless keep_banks. UserError on an arm that reads words from films
    that are no files.
    """
    _refuse_words_without_files(films, arms)
    questions = [
        (film, item, arm, key(item, film, arm)) for film, item, arm in work(films, items, arms)
    ]
    # a bank has one writer: the arm that needed it first writes for all
    writers: dict[Path, Arm] = {}
    results = JsonLines(out / "results.jsonl", ascii_only=True)
    encodings = JsonLines(out / "encodings.jsonl", ascii_only=True)
    with closing(results), closing(encodings):
        done = {row["key"]: row for row in results.rows}
        todo: dict[str, list[tuple[Item, Arm]]] = {}
        for film, item, arm, name in questions:
            if name not in done:
                todo.setdefault(film.name, []).append((item, arm))
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
                        version = variant_of(film, variant)
                        frames = source_of(writer, version, out)
                        video_id = _encode(writer, version, frames, encodings, report)
                        written[arm.bank, video_id] = None
                    for item in (item for item, other in pairs if other is arm):
                        row = _row(item, film, arm, video_id)
                        results.append(row)
                        done[row["key"]] = row
                        report(f"{film.name}: {arm.name}", 0.0, 1)
            for bank, video_id in () if keep_banks else written:
                writers[bank].qa.bank.drop(video_id)
    return [done[name] for *_, name in questions]


def _refuse_words_without_files(films: Sequence[Film], arms: Sequence[Arm]) -> None:
    for arm in arms:
        if arm.config.text and not all(film.file for film in films):
            raise UserError(
                f"arm {arm.name} has text=, and words are read from files; make the films with "
                "files=true"
            )


def variant_of(film: Film, variant: str) -> Film:
    """The film itself, or the version of it that a control shows."""
    if variant == "haystack":
        return without_needles(film)
    return needles_alone(film) if variant == "needles" else film


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
        encodings.append({"film": film.name, "bank": writer.bank.name} | asdict(ingested))
    return video_id


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What one arm recalled and answered."""

    evidence: Evidence
    reading: Reading
    seconds: dict[str, float]  # of each stage; choosing an option is not among them
    # of a strategy that reads more than the evidence; None: the reading is of the evidence alone
    answer: Answer | None = None


def ask(item: Item, film: Film, arm: Arm, video_id: str) -> ArmAnswer:
    """Ask one question in one arm, from what `reelbank ask` would read."""
    qa, clock = arm.qa, StageTimer()
    if not arm.control and not isinstance(qa.answerer.strategy, Retrieve):
        return _ask_strategy(Question(item.question, video_id), arm)
    # the oracle reads the needles' spans from the question's id
    question = Question(item.question, video_id, id=json.dumps(film.spans(item.needles)))
    if arm.control == "blind":
        none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        evidence = Evidence(question, (), none, 0, qa.ingester.interval)
    else:
        evidence = qa.answerer.recall(question, clock, arm.budget(item, film))
    reading = qa.answerer.reader.read(evidence, clock)
    return ArmAnswer(evidence, reading, evidence.seconds | clock.seconds)


def _ask_strategy(question: Question, arm: Arm) -> ArmAnswer:
    """Ask as `reelbank ask` does. The evidence is what `retrieve` would read: ranks and choices
    among options come from it."""
    qa = arm.qa
    answer = qa.ask(question)
    evidence = qa.answerer.recall(question, StageTimer(), qa.answerer.read_tokens)
    return ArmAnswer(evidence, Reading(answer.text, {}), answer.seconds, answer)


def _cost_facts(arm: Arm, answer: ArmAnswer) -> ResultRow:
    """What the answer took, and which strategy gave it."""
    if answer.answer is None or answer.answer.trace is None:
        call = call_of(
            "answer", [answer.evidence], [answer.reading.text], 0.0, arm.qa.answerer.reader
        )
        return {
            "strategy": Retrieve.name,
            "calls": 1,
            "contexts": 1,
            "reused": 0,
            "text_tokens": call.text_tokens,
        }
    trace = answer.answer.trace
    return {
        "cited": answer.answer.spans,
        "frames_read": answer.answer.frames_read,
        "visual_tokens": answer.answer.visual_tokens,
        "strategy": trace.strategy,
        "why": trace.why,
        "calls": len(trace.calls),
        "contexts": sum(call.contexts for call in trace.calls),
        "reused": trace.reused,
        "text_tokens": sum(call.text_tokens for call in trace.calls),
    }


def evidence_facts(item: Item, film: Film, arm: Arm, answer: ArmAnswer) -> ResultRow:
    """What the arm ranked, read and cited, and when the needles showed."""
    qa, evidence = arm.qa, answer.evidence
    reading = answer.reading
    cited = (
        cite(evidence, reading.weights, qa.answerer.cite_share) if is_shown(reading.text) else ()
    )
    read = {
        o: float(t)
        for run in evidence.runs
        for o, t in zip(run.ordinals, run.tokens.times.tolist(), strict=True)
    }
    # ranked frames that are not read are known by number: a file's frame may lie one frame later
    ranked = [o * qa.ingester.interval for o in evidence.hits.frames.tolist()]
    needles: Spans = ()  # without video, or without needles in it, there is nothing to find
    if arm.film_of in ("film", "needles"):
        needles = variant_of(film, arm.film_of).spans(item.needles)
    return {
        "needles": needles,
        "sampled": [is_sampled(film, i, arm.config.fps) for i in item.needles] if needles else [],
        # of the first ranked frame that shows each needle; None if no such frame is ranked
        "ranks": [_first(ranked, span) for span in needles],
        "ranked": [round(t, 3) for t in ranked[:RANKED]],
        "read": [round(t, 3) for t in sorted(read.values())],
        "found": [any(a <= t < b for t in read.values()) for a, b in needles],
        "cited": cited_spans(cited, qa.ingester.interval),
        "frames_read": evidence.frame_count,
        "visual_tokens": sum(len(run.tokens.tokens) for run in evidence.runs),
        "lines_read": len(evidence.lines),
        "read_bytes": sum(
            run.kv.nbytes if run.kv else run.tokens.tokens.nbytes for run in evidence.runs
        ),
    }


def score_facts(item: Item, film: Film, arm: Arm, answer: ArmAnswer) -> ResultRow:
    """Whether the answer is right, as free text and as a choice by VNBench's rules."""
    text = answer.reading.text
    preds, choice = _choice(arm, answer.evidence, item, text)
    return {
        "text": text,
        "right": is_right(text, item.answer),
        "shown": is_shown(text),
        "absence": answer.reading.absence,
        "options": item.options,
        "choice": choice,
        "chose_right": None if choice is None else choice == item.slot,
        "type": type_of(item, film),  # VNBench's
        "preds": preds,  # the answers to its four tries
        "gt": letters_of(item.slot) if item.options else [],
    }


def _row(item: Item, film: Film, arm: Arm, video_id: str) -> ResultRow:
    """One question in one arm, as results.jsonl holds it."""
    answer = ask(item, film, arm, video_id)
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
        **score_facts(item, film, arm, answer),
        **evidence_facts(item, film, arm, answer),
        **_cost_facts(arm, answer),
        "seconds": answer.seconds,
        "config": settings_of(arm.config),
    }


def _first(ranked: Sequence[float], span: tuple[float, float]) -> int | None:
    return next((rank for rank, t in enumerate(ranked, start=1) if span[0] <= t < span[1]), None)


def _choice(arm: Arm, evidence: Evidence, item: Item, text: str) -> tuple[list[str], int | None]:
    """The answers to VNBench's four tries, and the number of the chosen option.

    In letters, the option is that of the first try.
    """
    if not item.options:
        return [], None
    if arm.config.answers == "letters":
        preds = answer_tries(arm.qa.answerer.reader, evidence, item.question, item.options)
        return preds, LETTERS.find(preds[0][:1]) if preds[0] else -1
    choice = choose_option(arm.qa.answerer.reader, evidence, text, item.options)
    # a choice that is none is wrong
    return ([""] * len(ORDERS), -1) if choice is None else (letters_of(choice), choice)
