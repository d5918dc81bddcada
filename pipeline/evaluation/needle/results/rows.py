"""One question in one arm, as results.jsonl holds it: what was asked, answered, ranked, read and
cited, when the needles showed, and what it took.

The answer is that of `VideoQA.ask`, with the strategy of the arm. Knows no score of a whole run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from memory.schema import Question
from memory.storage.json_lines import JsonRow
from pipeline.answer.schema import is_local
from pipeline.evaluation.needle.films.film import fingerprint, is_sampled
from pipeline.evaluation.needle.films.schema import Film, Item, Spans
from pipeline.evaluation.needle.films.vnbench import LETTERS, ORDERS, type_of
from pipeline.evaluation.needle.results.arms import Arm
from pipeline.evaluation.needle.results.choose import letters_of, option_reader
from pipeline.evaluation.needle.results.read_log import ContextRecord, ReadLog
from pipeline.evaluation.question_attention import QuestionAttention
from pipeline.qa import VideoQA
from pipeline.schema import Answer
from pipeline.scorers.schema import AnsweredQuestion
from pipeline.scorers.spans import union
from pipeline.scoring import named_option

_ALL_TOKENS = 1 << 40  # a budget that holds every frame
RANKED = 64  # times of the ranking that a row holds
RECENT_FRAMES = 16  # the most that a control of newest frames reads: what they show is perception


def key(item: Item, film: Film, arm: Arm) -> str:
    """Identifies the question, the film's frames and the arm's settings that a row belongs to."""
    return f"{item.id} {fingerprint(film)} {arm.key}"


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What one arm read and answered."""

    answer: Answer
    contexts: tuple[ContextRecord, ...]  # that the free answer rests on
    choice: int | None  # number of the option; -1: none of them; None: there are no options
    preds: list[str]  # the answers to VNBench's four tries


def row_of(item: Item, film: Film, arm: Arm, video_id: str, turn: int) -> JsonRow:
    """turn: which question about the film it is, from 1."""
    asked = ask(item, film, arm, video_id)
    row = {
        "key": key(item, film, arm),
        "arm": arm.name,
        "control": arm.control_name,
        "item": item.id,
        "film": film.name,
        "task": item.task,
        "family": item.family,
        "minutes": film.seconds / 60,
        "depth": item.depth,
        "place": place_of(item, film),
        "kind": kind_of(item, film, arm.config.fps),
        "turn": turn,
        "bank": arm.bank.name,
        "question": item.question,
        "truth": item.answer,
        **_score_facts(item, film, asked),
        **_evidence_facts(item, film, arm, asked),
        "attention_held": _attention_held(item, arm, video_id, asked),
        **_cost_facts(asked),
        "answers": arm.config.answers,
        "threshold": _threshold(arm),
    }
    # right or wrong as in a batch: as free text, and by VNBench's rules as a choice
    chose_right = question_of(row, chooses=True).right if item.options else None
    return row | {"right": question_of(row).right, "chose_right": chose_right}


def question_of(row: JsonRow, *, chooses: bool = False) -> AnsweredQuestion:
    """A row as scorers take it (pipeline/scorers): its free answer, or the option that was chosen.

    Rows of earlier versions do not say what was recalled, nor whether the answer is a quote.
    """
    number = row["choice"]
    return AnsweredQuestion(
        id=row["item"],
        video=row["film"],
        question=row["question"],
        answer=row["text"],
        references=() if chooses else (row["truth"],),
        options=tuple(row["options"]) if chooses else (),
        letter=row["gt"][0] if chooses else None,
        choice=LETTERS[number] if chooses and number is not None and number >= 0 else None,
        evidence=tuple((start, end) for start, end in row["needles"]),
        recalled=tuple((start, end) for start, end in row.get("recalled") or ()),
        cited=tuple((start, end) for start, end in row["cited"]),
        is_quote=row.get("cited_by") == "quote",
    )


def ask(item: Item, film: Film, arm: Arm, video_id: str) -> ArmAnswer:
    """Ask one question in one arm, as `reelbank ask` does: freely, then for one of the options
    where the answer names none."""
    strategy = arm.strategy(item, film)
    if strategy is None:
        raise ValueError(f"arm {arm.name} is not asked {item.id}")
    log, question = ReadLog(), Question(item.question, video_id)
    qa = log.watch(arm.qa, strategy)
    answer = qa.ask(question)
    contexts = tuple(log.contexts)
    choice, preds = _choose(item, arm, qa, question, answer)
    return ArmAnswer(answer, contexts, choice, preds)


def _choose(
    item: Item, arm: Arm, qa: VideoQA, question: Question, answer: Answer
) -> tuple[int | None, list[str]]:
    """The number of the chosen option, and the answers to VNBench's four tries.

    In letters, the option is that of the first try. A strategy that answers by a rule reads
    nothing for a choice, and no model reads a film's own words: then the option is the one that the
    answer names, or none.
    """
    if not item.options:
        return None, []
    reader = qa.answerer.reader
    letters = arm.config.answers == "letters"
    is_quote = answer.cited_by == "quote"
    choice = None
    if is_quote or not letters:
        choice = named_option(answer.text, item.options, is_quote=is_quote)
    if choice is None and not is_quote:
        chooser = option_reader(reader, item.question, item.options, letters=letters)
        if chooser is not None:
            qa.ask(question, read=chooser)
            if letters and chooser.texts:
                first = chooser.texts[0]
                return LETTERS.find(first[:1]) if first else -1, list(chooser.texts)
            choice = chooser.choice
    return (-1, [""] * len(ORDERS)) if choice is None else (choice, letters_of(choice))


def kind_of(item: Item, film: Film, fps: float) -> str:
    """ "perception" where the newest frames of the film show every needle of the answer, else
    "backward"; "" where no needle answers."""
    if not item.needles:
        return ""
    since = film.seconds - RECENT_FRAMES / fps
    recent = all(end > since for _, end in film.spans(item.needles))
    return "perception" if recent else "backward"


def place_of(item: Item, film: Film) -> tuple[int, int] | None:
    """Row and column, from 0, of the 3 x 3 places of the frame in which the answer's only needle
    has its middle; None with several needles or none."""
    if len(item.needles) != 1:
        return None
    at = film.shown[item.needles[0]].place
    return min(int(3 * (at.y + at.height / 2)), 2), min(int(3 * (at.x + at.width / 2)), 2)


def _score_facts(item: Item, film: Film, asked: ArmAnswer) -> JsonRow:
    """What the answer was, as free text and as a choice, and what VNBench's rules need."""
    answer, choice = asked.answer, asked.choice
    # what several passes measured belongs to none of them
    absence = asked.contexts[0].absence if len(asked.contexts) == 1 else None
    return {
        "text": answer.text,
        "cited_by": answer.cited_by,
        "shown": answer.shown,
        "absence": absence,
        "options": item.options,
        "choice": choice,
        "type": type_of(item, film),  # VNBench's
        "preds": asked.preds,
        "gt": letters_of(item.slot) if item.options else [],
    }


def _evidence_facts(item: Item, film: Film, arm: Arm, asked: ArmAnswer) -> JsonRow:
    """What the arm ranked, read and cited, and when the needles showed."""
    interval = arm.qa.ingester.interval
    read = sorted({time for context in asked.contexts for time in context.times})
    # ranked frames that are not read are known by number: a file's frame may lie one frame later
    first = next((context.ranked for context in asked.contexts if context.ranked), ())
    ranked = [ordinal * interval for ordinal in first]
    lines = [span for context in asked.contexts for span in context.line_spans]
    quoted: list[tuple[float, float]] = []  # lines that answer without any model
    if asked.answer.cited_by == "quote":
        quoted = [(line.start, line.end) for line in asked.answer.lines if line.read]
    needles: Spans = ()  # without video, or without needles in it, there is nothing to find
    if arm.shows_needles:
        needles = arm.variant(film).spans(item.needles)
    seen = [any(a <= t < b for t in read) for a, b in needles]
    in_lines = [any(start < b and end > a for start, end in lines + quoted) for a, b in needles]
    kinds = [film.shown[i].card.kind for i in item.needles]
    return {
        "needles": needles,
        "sampled": [is_sampled(film, i, arm.config.fps) for i in item.needles] if needles else [],
        # of the first ranked frame that shows each needle; None if no such frame is ranked
        "ranks": [_first(ranked, span) for span in needles] if ranked else [],
        "ranked": [round(t, 3) for t in ranked[:RANKED]],
        "read": [round(t, 3) for t in read],
        # no frame shows what is said, and a line holds all of what is printed
        "found": [
            in_line if kind == "speech" else is_seen or (in_line and kind == "sentence")
            for is_seen, in_line, kind in zip(seen, in_lines, kinds, strict=False)
        ],
        "found_in_lines": in_lines,
        "cited": asked.answer.spans,
        "recalled": union([*asked.answer.recalled, *quoted]),
        "lines_read": sum(context.lines for context in asked.contexts) + len(quoted),
        "read_bytes": sum(context.nbytes for context in asked.contexts),
    }


def _attention_held(item: Item, arm: Arm, video_id: str, asked: ArmAnswer) -> float | None:
    """The share of the question's attention over all frames of the bank that the frames which were
    read hold, mean over layers and heads; None where it is not measured.

    Frames of all passes count. UserError if all frames are more than the model has positions for.
    """
    answerer = arm.qa.answerer
    if not arm.config.attention or not is_local(answerer.reader):
        return None
    question = Question(item.question, video_id)
    everything = answerer.bank.recall(
        question, read_tokens=_ALL_TOKENS, kv=answerer.reader.needs_kv
    )
    read = {time for context in asked.contexts for time in context.times}
    chosen = [float(time) in read for run in everything.runs for time in run.tokens.times]
    dense = QuestionAttention.of(answerer.reader, everything)
    return round(float(dense.recall(torch.tensor(chosen)).mean()), 4)


def _cost_facts(asked: ArmAnswer) -> JsonRow:
    """What the answer took, and which strategy gave it."""
    answer, trace = asked.answer, asked.answer.trace
    assert trace is not None  # of every answer from a bank
    return {
        "frames_read": answer.frames_read,
        "visual_tokens": answer.visual_tokens,
        "strategy": trace.strategy,
        "why": trace.why,
        "calls": len(trace.calls),
        "contexts": sum(call.contexts for call in trace.calls),
        "reused": trace.reused,
        "text_tokens": sum(call.text_tokens for call in trace.calls),
        "seconds": answer.seconds,
    }


def _threshold(arm: Arm) -> float | None:
    """The threshold of abstention that the arm ran with."""
    value = arm.config.abstention.get("threshold")
    return None if value is None else float(value)


def _first(ranked: Sequence[float], span: tuple[float, float]) -> int | None:
    return next((rank for rank, t in enumerate(ranked, start=1) if span[0] <= t < span[1]), None)
