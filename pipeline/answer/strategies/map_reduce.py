"""The whole video, segment by segment: a finding for each, then one answer from all of them.

After "MapReduce is the principle for long video understanding" (MR. Video). Counts, orders and
lists are reduced by rule, without a model. Anything else is answered by the model from the
findings; where these are more than one prompt holds, they are shortened group by group first. As
many contexts are read as the video has segments, in any order. Knows no retriever.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import FINDING, TextLine
from memory.retrieval.common import hits
from memory.schema import Evidence, Question
from pipeline.answer.citations import union
from pipeline.answer.strategies.call_log import CallLog, sentences
from pipeline.answer.strategies.mapping.map_plan import MapPlan, map_plan
from pipeline.answer.strategies.mapping.reduction import Item, Reduction, labels, reduce
from pipeline.answer.strategies.mapping.segment_mapper import Findings, SegmentMapper
from pipeline.answer.strategies.schema import Turn
from pipeline.answer.text_evidence import prompt_line
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import PICTURE, Answer, Basis, CitedLine, Trace, is_shown

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

SHORTEN = (
    "These lines describe parts of a video. Say in one or two sentences what of them helps to "
    'answer "{question}", with its times. If nothing helps, say: not in the video.'
)
ANSWER = (
    "These lines say what each segment of a video shows. Answer the question from them alone: "
    '"{question}" If no line answers it, say: not in the video.'
)


@dataclass(frozen=True, slots=True)
class _Mapped:
    """The findings of a plan."""

    plan: MapPlan
    findings: tuple[tuple[str, Findings], ...]  # item of the plan -> its findings

    @property
    def lines(self) -> list[TextLine]:
        """All findings, in time order."""
        lines = (line for _, own in self.findings for line in own.lines)
        return sorted(lines, key=lambda line: (line.start, line.end, line.text))

    @property
    def items(self) -> list[Item]:
        """What the findings name."""
        return [
            Item(label, line.start, line.end, topic)
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
    ) -> None:
        """reduce: "auto" takes rules where the question counts, orders or lists, else the model;
        "model" always asks the model. contexts: segments in one pass. reduce_tokens: text that the
        model reads at once when it reduces. keep_findings: in the bank, for later questions.
        UserError on values that cannot be."""
        if reduce not in ("auto", "model"):
            raise UserError(f"answer.reduce={reduce} is not known; use auto or model.")
        if contexts < 1:
            raise UserError(f"answer.contexts={contexts} reads nothing; use 1 or more.")
        if reduce_tokens < 128:
            raise UserError(
                f"answer.reduce_tokens={reduce_tokens} holds no two findings; use 128 or more."
            )
        self._reduce, self._contexts = reduce, contexts
        self._reduce_tokens, self._keeps = reduce_tokens, keep_findings

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
        mapped = self.map(limited, answerer, plan, log, timer)
        if plan.uses_rules:
            answer = self._by_rule(limited, answerer, mapped, log, timer)
        else:
            answer = self._by_model(limited, answerer, mapped, turn, log, timer)
        if plan.uses_rules or not is_shown(answer.text):
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
            answerer, log, timer, self._contexts, divides=plan.names_one, keeps_findings=self._keeps
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
            reduced = reduce(mapped.plan.aim, mapped.items, topics, 0.5 * interval)
        why = f'answer=map_reduce reads every segment and reduces by the rule "{mapped.plan.aim}"'
        basis = tuple(Basis(text, spans) for text, spans in reduced.basis)
        return self._answer(question, answerer, mapped, reduced, basis, why, log, timer)

    def _by_model(
        self,
        question: Question,
        answerer: "Answerer",
        mapped: _Mapped,
        turn: Turn,
        log: CallLog,
        timer: StageTimer,
    ) -> Answer:
        why = "answer=map_reduce reads every segment, and the model answers from the findings"
        lines = self._shortened(question, answerer, mapped.lines, log, timer)
        if not lines:
            nothing = reduce("union", [], [], 0.0)
            return self._answer(question, answerer, mapped, nothing, (), why, log, timer)
        with timer("reduce"):
            evidence = text_context(question, lines, ANSWER.format(question=question.search_text))
            if turn.read is None:
                text = log.read("reduce", evidence, timer, turn.emit).text.strip()
            else:
                chosen = replace(evidence, question=question)
                text = turn.read(chosen, timer).text.strip()
                log.add("reduce", [chosen], [text], 0.0)
        shown = bool(text) and is_shown(text)
        spans = tuple(union((line.start, line.end) for line in lines)) if shown else ()
        basis = tuple(Basis(one, spans) for one in sentences(text))
        reduced = Reduction(text or reduce("union", [], [], 0.0).text, ((text, spans),), shown)
        return self._answer(question, answerer, mapped, reduced, basis, why, log, timer)

    def _shortened(
        self,
        question: Question,
        answerer: "Answerer",
        lines: Sequence[TextLine],
        log: CallLog,
        timer: StageTimer,
    ) -> list[TextLine]:
        """Lines that fit one prompt: groups that do are shortened to a line each, level by level.
        Each new line keeps the segments of those that it stands for."""
        level = list(lines)
        while True:
            groups = grouped(level, answerer.reader.count_tokens, self._reduce_tokens)
            if len(groups) <= 1 or len(groups) == len(level):
                return groups[0] if groups else []
            asked = SHORTEN.format(question=question.search_text)
            contexts = [text_context(question, group, asked) for group in groups]
            level = []
            for first in range(0, len(groups), self._contexts):
                part = slice(first, first + self._contexts)
                readings = log.read_all("shorten", contexts[part], timer)
                for group, reading in zip(groups[part], readings, strict=True):
                    if reading.text.strip() and is_shown(reading.text):
                        level.append(merged(group, reading.text))

    def _answer(
        self,
        question: Question,
        answerer: "Answerer",
        mapped: _Mapped,
        reduced: Reduction,
        basis: Sequence[Basis],
        why: str,
        log: CallLog,
        timer: StageTimer,
    ) -> Answer:
        spans = tuple((round(a, 3), round(b, 3)) for a, b in reduced.spans) if reduced.shown else ()
        found = [own for _, own in mapped.findings]
        trace = Trace(
            self.name, why, tuple(log.calls), tuple(basis), sum(own.reused for own in found)
        )
        lines = tuple(
            CitedLine(line.start, line.end, line.kind, line.text, 1.0, True)
            for line in mapped.lines
            if any(a < line.end and line.start < b for a, b in spans)
        )
        return Answer(
            question=question.text,
            text=reduced.text,
            shown=reduced.shown,
            spans=spans,
            cited=(),
            video_id=question.video_id,
            asked_at=answerer.moment(question),
            frames_read=sum(call.frames for call in log.calls),
            visual_tokens=trace.visual_tokens,
            seconds=timer.seconds | {"total": timer.total()},
            warning=answerer.warnings(question),
            lines=lines if reduced.shown else (),
            cited_by="finding",
            channel=PICTURE if reduced.shown else "",
            trace=trace,
        )


def text_context(question: Question, lines: Sequence[TextLine], asked: str) -> Evidence:
    """A context of lines alone, in time order, with another question."""
    ordered = tuple(sorted(lines, key=lambda line: (line.start, line.end, line.text)))
    asking = replace(question, text=asked, keep=())
    return Evidence(asking, (), hits([], []), recent=0, interval=1.0, lines=ordered)


def grouped(
    lines: Sequence[TextLine], count_tokens: Callable[[str], int], budget: int
) -> list[list[TextLine]]:
    """Lines in time order in groups that fit `budget` tokens each; a longer line is alone."""
    groups: list[list[TextLine]] = []
    left = 0
    for line in lines:
        tokens = count_tokens(prompt_line(line))
        if not groups or tokens > left:
            groups.append([])
            left = budget
        groups[-1].append(line)
        left -= tokens
    return groups


def merged(lines: Sequence[TextLine], text: str) -> TextLine:
    """One finding in place of several: it rests on the segments of all."""
    parents = tuple(sorted({parent for line in lines for parent in line.parents}))
    start, end = min(line.start for line in lines), max(line.end for line in lines)
    return TextLine(lines[0].video_id, start, end, FINDING, text, end, parents=parents)
