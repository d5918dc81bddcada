"""A question -> the lines of the film that answer it. Nothing is written anew, so nothing is
invented.

1 candidates: the best lines by words (BM25), and by meaning where a sentence encoder is there.
2 order and confidence: a small judge compares the question with each line and its neighbors, as
  sentences and word by word (agreement.py, line_judge.py). It was trained on films of its own, not
  on those of the test (docs/measurements/2026-11_quotes_epyc-2core.md). Without an encoder that a
  judge was trained for, or in another language than English, the words decide.
3 stretch: the rest of a broken sentence, and the neighbor that has what the best line lacks.

Knows the bank's search; no frame, no video-LLM and no prompt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from encoders.text.lines import THINGS, WORDS, SentenceEncoder, TextLine
from memory.bank import MemoryBank
from memory.schema import Question
from memory.text import tokenizer
from memory.text.bm25 import LineFilter, RankedLine
from pipeline.answer.quotes import agreement, answer_type, line_judge
from pipeline.answer.quotes.agreement import Agreement, Reading
from pipeline.answer.quotes.line_judge import LineJudge
from pipeline.answer.quotes.quotation import Quotation
from pipeline.answer.quotes.surroundings import Surroundings, joined, name
from pipeline.answer.requests.line_limits import lines_seen
from pipeline.query import plan as planner
from pipeline.query import presence
from pipeline.query.plan import QueryPlan

_CANDIDATES = 24  # lines of each search
_LEAST_COSINE = 0.0  # far lines are needed as well: the margin is measured against them
_SIGHTED = 400  # lines of a thing
_JUDGED = 10  # of them, compared with the question word by word
_COVERAGE = 0.3  # in the choice of those: what the words of a line add to its cosine
_TYPE = 0.35  # in the order by words: a line has what is asked for, or lacks it
_CUE = 0.1  # in the order by words: each doubling of a channel's weight ("what does the sign say?")
_JUDGED_CUE = 0.5  # the same among the scores of the judge


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence by words = 1 / (1 + exp(-x)), x = bias + agreement, margin and missing times
    these."""

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
    """What the confidence by words rests on."""

    agreement: float  # of the question and the best line
    margin: float  # how much less the best line elsewhere has
    missing: float  # 1: the question asks for a number, a time or a name, and the quote has none


BY_WORDS = Calibration(-1.18, 2.0, 1.05, -1.76, 0.407)


@dataclass(frozen=True, slots=True)
class _Search:
    """A question and the lines that it may see."""

    plan: QueryPlan
    limits: LineFilter
    expected: answer_type.Matches | None
    by_words: tuple[RankedLine, ...]


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
        search = self._search(question, durations)
        encoder, judge = self.sentence_encoder, self._judge
        by_words = bool(search.plan.query.phrases) or not answer_type.is_english(search.plan.text)
        if encoder is None or judge is None or by_words:
            return self._quote_by_words(search)
        compared = self._compare(search, encoder)
        return None if compared is None else self._quote_judged(search, judge, *compared)

    def _appearances(self, question: Question, durations: Mapping[str, float]) -> Quotation | None:
        """When a thing is in the pictures, for a question that asks for just that; None where it
        asks for something else, or no line has that name. Lines of the user's own detector
        come first, then those with a box.
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

    def features(self, question: Question, durations: Mapping[str, float]) -> Features | None:
        """What the confidence rests on where the words decide."""
        measured = self._measure_words(self._search(question, durations))
        return None if measured is None else measured[1]

    def compare(
        self, question: Question, durations: Mapping[str, float]
    ) -> tuple[tuple[Reading, ...], Agreement] | None:
        """The lines that may answer, and the numbers that the judge weighs; None without a sentence
        encoder or without lines."""
        encoder = self.sentence_encoder
        return (
            None if encoder is None else self._compare(self._search(question, durations), encoder)
        )

    @property
    def _judge(self) -> LineJudge | None:
        encoder = self.sentence_encoder
        return None if encoder is None else line_judge.judge_for(encoder.made_with)

    def _search(self, question: Question, durations: Mapping[str, float]) -> _Search:
        plan = planner.plan(question.search_text)
        limits = replace(lines_seen(question, plan.time, durations), kinds=WORDS)
        found = self.bank.text.search(plan.query, limits, _CANDIDATES)
        return _Search(plan, limits, answer_type.expected(plan.text), tuple(found))

    def _compare(
        self, search: _Search, encoder: SentenceEncoder
    ) -> tuple[tuple[Reading, ...], Agreement] | None:
        """The best lines, read by the encoder, and the judge's numbers; None without lines."""
        plan = search.plan
        vector = encoder.embed([plan.text])[0]  # [E]
        near = self.bank.text.nearest(vector.numpy(), search.limits, _CANDIDATES, _LEAST_COSINE)
        coverages = {name(one.line): one.coverage for one in search.by_words}
        cosines = {name(one.line): one.score for one in near}
        lines = {name(one.line): one.line for one in (*near, *search.by_words)}
        order = sorted(
            lines, key=lambda key: -(cosines.get(key, 0.2) + _COVERAGE * coverages.get(key, 0.0))
        )
        # a slide may stand there twice; the first of equal texts is enough
        once = {lines[key].text.casefold(): lines[key] for key in reversed(order)}
        best = [lines[key] for key in order if once[lines[key].text.casefold()] is lines[key]]
        if not best:
            return None
        surroundings = Surroundings(self.bank, search.limits)
        around = [(line, *surroundings.neighbors(line)) for line in best[:_JUDGED]]
        texts = [plan.text]
        for line, before, after in around:
            texts += [
                line.text,
                joined([before, line] if before else [line]),
                joined([line, after] if after else [line]),
            ]
        question, *read = encoder.words(texts)
        readings = tuple(
            Reading(*lines_around, *read[3 * at : 3 * at + 3])
            for at, lines_around in enumerate(around)
        )
        return readings, agreement.measure(question, readings, search.expected)

    def _quote_judged(
        self,
        search: _Search,
        judge: LineJudge,
        readings: tuple[Reading, ...],
        numbers: Agreement,
    ) -> Quotation:
        scores, none = judge.scores(numbers)
        at = max(
            range(len(readings)),
            key=lambda at: scores[at] + _JUDGED_CUE * _cue(readings[at].line, search.plan),
        )
        alone, with_before, with_after = (float(one) for one in numbers.lines[at, :3])
        lines = Surroundings(self.bank, search.limits).stretch(
            readings[at].line, search.expected, (alone, with_before, with_after)
        )
        confidence = judge.confidence(float(scores[at]), none)
        return Quotation(lines, round(confidence, 3), confidence >= judge.threshold)

    def _quote_by_words(self, search: _Search) -> Quotation | None:
        measured = self._measure_words(search)
        if measured is None:
            return None
        lines, features = measured
        confidence = BY_WORDS.confidence(features)
        return Quotation(lines, round(confidence, 3), confidence >= BY_WORDS.threshold)

    def _measure_words(self, search: _Search) -> tuple[tuple[TextLine, ...], Features] | None:
        """The lines of the best quotation by words, and what its confidence rests on."""
        if not search.by_words:
            return None
        top = max((one.score for one in search.by_words), default=0.0) or 1.0
        expected = search.expected

        def order(one: RankedLine) -> float:
            kept = 0.0 if expected is None else _TYPE if expected(one.line.text) else -_TYPE
            return one.coverage + one.score / top + kept + _CUE * _cue(one.line, search.plan)

        best, *others = sorted(search.by_words, key=order, reverse=True)
        surroundings = Surroundings(self.bank, search.limits)
        before, after = surroundings.neighbors(best.line)
        start = best.line.start if before is None else before.start
        end = best.line.end if after is None else after.end
        elsewhere = (
            one.coverage
            for one in others
            if (
                one.line.video_id != best.line.video_id
                or one.line.end <= start
                or one.line.start >= end
            )
            and one.line.text.casefold() != best.line.text.casefold()
        )
        lines = surroundings.stretch(best.line, expected)
        missing = 0.0
        if expected is not None:  # half: a neighbor has it
            missing = 0.5 * (not expected(best.line.text)) + 0.5 * (not expected(joined(lines)))
        return lines, Features(best.coverage, best.coverage - max(elsewhere, default=0.0), missing)


def _cue(line: TextLine, plan: QueryPlan) -> float:
    return math.log2(plan.weights.get(line.kind, 1.0))
