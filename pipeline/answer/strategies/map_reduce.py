"""The whole video, segment by segment: a finding for each, then one answer from all of them.

After "MapReduce is the principle for long video understanding" (MR. Video). Counts, orders and
lists are reduced by rule, without a model. Anything else is answered by the model from the
findings; where these are more than one prompt holds, they are shortened group by group first. As
many contexts are read as the video has segments, in any order. Knows no retriever.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import TextLine
from memory.schema import Question
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.composed_answer import composed_answer
from pipeline.answer.strategies.mapping.map_plan import MapPlan, map_plan
from pipeline.answer.strategies.mapping.reduction import Item, labels, reduce
from pipeline.answer.strategies.mapping.segment_mapper import Findings, SegmentMapper
from pipeline.answer.strategies.mapping.text_levels import (
    ANSWER,
    TextLevels,
    in_order,
    text_context,
)
from pipeline.answer.strategies.schema import Turn
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, Reading

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


@dataclass(frozen=True, slots=True)
class _Mapped:
    """The findings of a plan."""

    plan: MapPlan
    findings: tuple[tuple[str, Findings], ...]  # item of the plan -> its findings

    def lines_of(self, question: Question) -> list[TextLine]:
        """All findings, video by video, in time order."""
        return in_order(question, (line for _, own in self.findings for line in own.lines))

    @property
    def reused(self) -> int:
        """Findings that the bank had."""
        return sum(own.reused for _, own in self.findings)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not read, for each question about segments."""
        return tuple(own.note for _, own in self.findings if own.note)

    @property
    def items(self) -> list[Item]:
        """What the findings name."""
        return [
            Item(label, line.start, line.end, topic, line.video_id)
            for topic, own in self.findings
            for line in own.lines
            for label in ([line.text] if self.plan.names_one else labels(line.text))
        ]


class MapReduce:
    """Reads every segment of the video, and reduces what the model said of each."""

    name = "map_reduce"

    def __init__(
        self,
        *,
        reduce: str = "auto",
        contexts: int = 8,
        reduce_tokens: int = 2048,
        keep_findings: bool = True,
        patience: int = 0,
    ) -> None:
        """reduce: "auto" takes rules where the question counts, orders or lists, else the model;
        "model" always asks the model. contexts: segments in one pass. reduce_tokens: text that the
        model reads at once when it reduces. keep_findings: in the bank, for later questions.
        patience: 0 reads every segment. More: for questions about cards, whose frames the embedder
        tells from all others, slices are read best first until so many in a row show nothing.
        UserError on values that cannot be."""
        if reduce not in ("auto", "model"):
            raise UserError(f"answer.reduce={reduce} is not known; use auto or model.")
        if contexts < 1:
            raise UserError(f"answer.contexts={contexts} reads nothing; use 1 or more.")
        if reduce_tokens < 128:
            raise UserError(
                f"answer.reduce_tokens={reduce_tokens} holds no two findings; use 128 or more."
            )
        if patience < 0:
            raise UserError(f"answer.patience={patience} is too small; use 0 or more.")
        self._reduce, self._contexts, self._patience = reduce, contexts, patience
        self._reduce_tokens, self._keeps = reduce_tokens, keep_findings

    @property
    def ends_early(self) -> bool:
        """Whether a question about cards is answered without reading every segment."""
        return self._patience > 0

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer from findings. A question that a model of cards does not know goes to the
        words of the film, as in `retrieve`."""
        timed = answerer.timed(question)
        limited = timed.question
        plan = map_plan(limited.search_text, only_cards=answerer.only_cards, reduce=self._reduce)
        if plan is None:
            return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        answerer.refuse_unseen(limited)
        timer = StageTimer()
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        emitted: list[str] = []

        def emit(text: str) -> None:
            emitted.append(text)
            turn.emit(text)

        mapped = self.map(limited, answerer, plan, log, timer)
        if plan.uses_rules:
            answer = self._by_rule(limited, answerer, mapped, log, timer)
        else:
            telling = replace(turn, emit=emit)
            answer = self._by_model(limited, answerer, mapped, telling, log, timer)
        if not "".join(emitted).strip():
            turn.emit(answer.text)
        warning = " ".join(filter(None, [answer.warning, timed.note]))
        return replace(answer, question=question.text, warning=warning)

    def map(
        self,
        question: Question,
        answerer: "Answerer",
        plan: MapPlan,
        log: CallLog,
        timer: StageTimer,
    ) -> _Mapped:
        """The findings of every segment that the question sees."""
        mapper = SegmentMapper(
            answerer,
            log,
            timer,
            self._contexts,
            divides=plan.names_one,
            keeps_findings=self._keeps,
            patience=self._patience if plan.names_one else 0,
        )
        found = tuple((one.item, mapper.find(question, one)) for one in plan.questions)
        return _Mapped(plan, found)

    def _by_rule(
        self,
        question: Question,
        answerer: "Answerer",
        mapped: _Mapped,
        log: CallLog,
        timer: StageTimer,
    ) -> Answer:
        interval = answerer.bank.catalog.require_video(question.videos[0]).interval
        with timer("reduce"):
            topics = [one.item for one in mapped.plan.questions]
            reduced = reduce(mapped.plan.aim, mapped.items, topics, 0.5 * interval, question.videos)
        return composed_answer(
            question,
            answerer,
            log,
            timer,
            strategy=self.name,
            why=(
                f"answer=map_reduce reads {'best first' if mapped.notes else 'every segment'}; "
                f'the rule "{mapped.plan.aim}" reduces'
            ),
            text=reduced.text,
            lines=mapped.lines_of(question),
            basis=reduced.basis,
            reused=mapped.reused,
            notes=mapped.notes,
        )

    def _by_model(
        self,
        question: Question,
        answerer: "Answerer",
        mapped: _Mapped,
        turn: Turn,
        log: CallLog,
        timer: StageTimer,
    ) -> Answer:
        levels = TextLevels(
            log,
            timer,
            answerer.reader.count_tokens,
            self._reduce_tokens,
            self._contexts,
            answerer.titles(question),
        )
        lines, text = levels.fit(question, mapped.lines_of(question)), ""
        written: Reading | None = None
        with timer("reduce"):
            if lines:
                asked = ANSWER.format(question=question.search_text)
                context = text_context(
                    question, lines, asked if turn.read is None else question.text, levels.titles
                )
                written = log.read_with(turn.read, "reduce", context, timer, turn.emit)
                text = written.text
        return composed_answer(
            question,
            answerer,
            log,
            timer,
            strategy=self.name,
            why="answer=map_reduce reads every segment; the model answers from the findings",
            text=text,
            lines=levels.rests_on(lines),
            reused=mapped.reused,
            reading=written,
        )
