"""A question -> the lines of the film that answer it. Nothing is written anew, so nothing is
invented.

1 candidates: the best lines by words (BM25), and by meaning where a sentence encoder is there.
2 order: cosine of the line, cosine of the line with its neighbor, tokens compared one by one
  (memory/text/maxsim.py), and whether the line has what the question asks for, such as a number.
  Without an encoder: the words, and whether the line has what is asked for.
3 stretch: the rest of a broken sentence, and the neighbor that has what the best line lacks.
4 confidence: a logistic function of the agreement of question and line, the margin to the best line
  elsewhere, and whether what is asked for is missing. Its numbers and the threshold were fitted on
  talks for calibration, not on those of the test (docs/measurements/2026-11_quotes_epyc-2core.md).

Knows the bank's search; no frame, no video-LLM and no prompt.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from encoders.text.lines import THINGS, WORDS, SentenceEncoder, TextLine
from memory.bank import MemoryBank
from memory.schema import Question
from memory.text import tokenizer
from memory.text.bm25 import LineFilter, RankedLine
from memory.text.maxsim import maxsim
from pipeline.answer.quotes import answer_type
from pipeline.answer.quotes.quotation import Quotation
from pipeline.answer.requests.line_limits import lines_seen
from pipeline.query import plan as planner
from pipeline.query import presence
from pipeline.query.plan import QueryPlan

_CANDIDATES = 24  # lines of each search
_LEAST_COSINE = 0.0  # far lines are needed as well: the margin is measured against them
_SIGHTED = 400  # lines of a thing
_RERANKED = 8  # of them, compared with the question token by token
_NEAR_S = 8.0  # pause after which a line is no neighbor
_JOINED_S = 1.5  # pause within a sentence
_PART_LINES = 2  # that a sentence may go on for, on each side
_TYPE = 0.35  # in the order: a line has what is asked for, or lacks it
_CUE = 0.1  # in the order: each doubling of a channel's weight ("what does the sign say?")
_NEIGHBOR_GAIN = 0.05  # cosine that a neighbor must add to be quoted


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence = 1 / (1 + exp(-x)), x = bias + agreement, margin and missing times these."""

    bias: float
    agreement: float
    margin: float
    missing: float
    threshold: float

    def confidence(self, features: "Features") -> float:
        """0..1."""
        x = (
            self.bias
            + self.agreement * features.agreement
            + self.margin * features.margin
            + self.missing * features.missing
        )
        return 1.0 / (1.0 + math.exp(-x))


@dataclass(frozen=True, slots=True)
class Features:
    """What the confidence rests on."""

    agreement: float  # of the question and the best line
    margin: float  # how much less the best line elsewhere has
    missing: float  # 1: the question asks for a number, a time or a name, and the quote has none


BY_MEANING = Calibration(-2.08, 1.25, 1.27, -5.0, 0.467)
BY_WORDS = Calibration(-1.18, 2.0, 1.05, -1.76, 0.407)


@dataclass(frozen=True, slots=True)
class _Candidate:
    line: TextLine
    before: TextLine | None  # its neighbors in the same channel
    after: TextLine | None
    agreement: float  # with the question
    score: float  # the same, and whether it has what is asked for
    # with the neighbor before and after it; 0 without an encoder
    cosines: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def start(self) -> float:
        """Seconds, with the neighbor."""
        return self.line.start if self.before is None else self.before.start

    @property
    def end(self) -> float:
        """Seconds, with the neighbor."""
        return self.line.end if self.after is None else self.after.end


@dataclass(frozen=True)
class Quoter:
    """Finds quotes in one bank."""

    bank: MemoryBank
    # None: lines are found by their words alone
    sentence_encoder: SentenceEncoder | None = None

    def quote(self, question: Question, durations: Mapping[str, float]) -> Quotation | None:
        """The best quotation, which may be too unsure to be an answer; None where no line of the
        film has anything to do with the question.

        durations: seconds of each video.
        """
        appearances = self._appearances(question, durations)
        if appearances is not None:
            return appearances
        measured = self.measure(question, durations)
        if measured is None:
            return None
        lines, features, calibration = measured
        confidence = calibration.confidence(features)
        return Quotation(lines, round(confidence, 3), confidence >= calibration.threshold)

    def _appearances(self, question: Question, durations: Mapping[str, float]) -> Quotation | None:
        """When a thing is in the pictures, for a question that asks for just that; None where it
        asks for something else, or no line has that name. Lines with a box are surer than others.
        """
        plan = planner.plan(question.search_text)
        thing = presence.asked_thing(plan.text)
        if not thing:
            return None
        limits = lines_seen(question, plan.time, durations)
        query = tokenizer.query(thing)
        for kind in THINGS:
            found = self.bank.text.search(query, replace(limits, kinds=(kind,)), _SIGHTED)
            lines = [one.line for one in found if presence.is_named(thing, one.line.text)]
            if lines:
                surest = max(line.confidence for line in lines)
                best = next(line for line in lines if line.confidence == surest)
                lines = [line for line in lines if line.video_id == best.video_id]
                in_order = sorted(lines, key=lambda line: (line.start, line.end))
                return Quotation(tuple(in_order), round(surest, 3), True)
        return None

    def measure(
        self, question: Question, durations: Mapping[str, float]
    ) -> tuple[tuple[TextLine, ...], Features, Calibration] | None:
        """The lines of the best quotation and what its confidence rests on."""
        plan = planner.plan(question.search_text)
        limits = replace(lines_seen(question, plan.time, durations), kinds=WORDS)
        expected = answer_type.expected(plan.text)
        by_words = self.bank.text.search(plan.query, limits, _CANDIDATES)
        if self.sentence_encoder is None or plan.query.phrases:
            candidates = self._by_words(by_words, limits, expected, plan)
            calibration = BY_WORDS
        else:
            candidates = self._by_meaning(self.sentence_encoder, by_words, limits, expected, plan)
            calibration = BY_MEANING
        if not candidates:
            return None
        best = candidates[0]
        elsewhere = (
            one.agreement
            for one in candidates[1:]
            if (one.line.end <= best.start or one.line.start >= best.end)
            and one.line.text.casefold() != best.line.text.casefold()
        )
        lines = self._stretch(best, limits, expected)
        missing = 0.0
        if expected is not None:  # half: a neighbor has it
            missing = 0.5 * (not expected(best.line.text)) + 0.5 * (not expected(_text(lines)))
        margin = best.agreement - max(elsewhere, default=0.0)
        return lines, Features(best.agreement, margin, missing), calibration

    def _by_words(
        self,
        ranked: Sequence[RankedLine],
        limits: LineFilter,
        expected: answer_type.Matches | None,
        plan: QueryPlan,
    ) -> list[_Candidate]:
        best = max((one.score for one in ranked), default=0.0) or 1.0
        candidates = []
        for one in ranked:
            score = one.coverage + one.score / best + _bonus(one.line, expected, plan)
            before, after = self._neighbors(one.line, limits)
            candidates.append(_Candidate(one.line, before, after, one.coverage, score))
        return sorted(candidates, key=lambda one: -one.score)

    def _by_meaning(
        self,
        encoder: SentenceEncoder,
        by_words: Sequence[RankedLine],
        limits: LineFilter,
        expected: answer_type.Matches | None,
        plan: QueryPlan,
    ) -> list[_Candidate]:
        vector = encoder.embed([plan.text])[0]  # [E]
        near = self.bank.text.nearest(vector.numpy(), limits, _CANDIDATES, _LEAST_COSINE)
        coverages = {_name(one.line): one.coverage for one in by_words}
        cosines = {_name(one.line): one.score for one in near}
        lines = {_name(one.line): one.line for one in (*near, *by_words)}
        order = sorted(
            lines, key=lambda name: -(cosines.get(name, 0.2) + 0.3 * coverages.get(name, 0.0))
        )[:_RERANKED]
        neighbors = {name: self._neighbors(lines[name], limits) for name in order}
        texts = []
        for name in order:
            line, (before, after) = lines[name], neighbors[name]
            texts += [
                line.text,
                _text([before, line] if before else [line]),
                _text([line, after] if after else [line]),
            ]
        if not texts:
            return []
        rows = (encoder.embed(texts) @ vector).view(-1, 3).tolist()  # [n, 3] cosines
        question, *tokens = encoder.tokens([plan.text, *(lines[name].text for name in order)])
        candidates = []
        for name, (alone, with_before, with_after), line_tokens in zip(
            order, rows, tokens, strict=True
        ):
            agreement = alone + max(with_before, with_after) + maxsim(question, line_tokens)
            line = lines[name]
            candidates.append(
                _Candidate(
                    line,
                    *neighbors[name],
                    agreement,
                    agreement + _bonus(line, expected, plan),
                    (alone, with_before, with_after),
                )
            )
        return sorted(candidates, key=lambda one: -one.score)

    def _neighbors(
        self, line: TextLine, limits: LineFilter
    ) -> tuple[TextLine | None, TextLine | None]:
        around = self._around(line, limits)
        at = around.index(line)
        before = around[at - 1] if at else None
        after = around[at + 1] if at + 1 < len(around) else None
        if before is not None and line.start - before.end > _NEAR_S:
            before = None
        if after is not None and after.start - line.end > _NEAR_S:
            after = None
        return before, after

    def _around(self, line: TextLine, limits: LineFilter) -> list[TextLine]:
        """The lines of the same channel near this one, itself included, in time order."""
        reach = _NEAR_S * (_PART_LINES + 1)
        moment, (start, end) = limits.moment(line.video_id), limits.span(line.video_id)
        near = self.bank.text.during(line.video_id, line.start - reach, line.end + reach)
        lines = [
            replace(one, end=min(one.end, moment))
            for one in near
            if one.kind == line.kind
            and one.known <= moment
            and one.start < end
            and one.end > start
            and _name(one) != _name(line)
        ]
        return sorted([*lines, line], key=lambda one: (one.start, one.end))

    def _stretch(
        self, best: _Candidate, limits: LineFilter, expected: answer_type.Matches | None
    ) -> tuple[TextLine, ...]:
        """The best line, the rest of its sentence, and the neighbor that answers with it."""
        around = self._around(best.line, limits)
        first = last = around.index(best.line)
        if best.line.kind != "ocr":  # a row of a slide ends without a mark
            first = _sentence_start(around, first)
            last = _sentence_end(around, last)
        lines = around[first : last + 1]
        alone, with_before, with_after = best.cosines
        options = [
            (with_after, [*lines, best.after] if best.after and last == first else None),
            (with_before, [best.before, *lines] if best.before and last == first else None),
        ]
        lacks = expected is not None and not expected(_text(lines))
        for cosine, joined in sorted(options, key=lambda option: -option[0]):
            if joined is None:
                continue
            answers = expected is not None and expected(_text(joined))
            if (lacks and answers) or (not lacks and cosine > alone + _NEIGHBOR_GAIN):
                return tuple(joined)
        return tuple(lines)


def _bonus(line: TextLine, expected: answer_type.Matches | None, plan: QueryPlan) -> float:
    cue = _CUE * math.log2(plan.weights.get(line.kind, 1.0))
    if expected is None:
        return cue
    return cue + (_TYPE if expected(line.text) else -_TYPE)


def _sentence_start(lines: Sequence[TextLine], at: int) -> int:
    """Index of the line in which the sentence of line `at` begins; `at` where that is not clear."""
    for first in range(at, max(at - _PART_LINES, 0) - 1, -1):
        if not lines[first].text[:1].islower():
            return first
        if first and lines[first].start - lines[first - 1].end > _JOINED_S:
            break
    return at


def _sentence_end(lines: Sequence[TextLine], at: int) -> int:
    """Index of the line in which the sentence of line `at` ends; `at` where that is not clear."""
    for last in range(at, min(at + _PART_LINES + 1, len(lines))):
        if lines[last].text.rstrip("\"'\u201d\u2019)]")[-1:] in ".!?\u2026":
            return last
        if last + 1 < len(lines) and lines[last + 1].start - lines[last].end > _JOINED_S:
            break
    return at


def _text(lines: Sequence[TextLine]) -> str:
    return " ".join(line.text for line in lines)


def _name(line: TextLine) -> tuple[float, str, str]:
    return line.start, line.kind, line.text
