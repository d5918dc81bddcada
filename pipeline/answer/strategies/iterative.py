"""Read, check whether it suffices, and look elsewhere, at most n rounds.

After "ComoRAG". A round recalls what fits the question among the frames that no round has read yet,
and reads it. An answer that shows something suffices. Otherwise the model names what to look for
next (a probing query), where it reads text, and what the round said joins a pool of notes without
repeats. Every model can take part: one that reads no text looks for the question itself again.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from memory.schema import Evidence, Question
from pipeline.answer.citations import recalled_spans
from pipeline.answer.strategies.call_log import CallLog, basis_of
from pipeline.answer.strategies.mapping.text_levels import text_context
from pipeline.answer.strategies.schema import Turn
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, Reading, Trace, is_shown

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

PROBE = (
    'Parts of a video did not answer "{question}". They showed: {pool} Name in a few words what '
    "else to look for."
)


class Iterative:
    """Several rounds of `retrieve`, each over frames that none has read."""

    name = "iterative"

    def __init__(self, *, rounds: int = 3) -> None:
        """rounds: at most. UserError on less than 1."""
        if rounds < 1:
            raise UserError(f"answer.rounds={rounds} reads nothing; use 1 or more.")
        self._rounds = rounds

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer of the first round that suffices, else of the last one."""
        limited = answerer.timed(question).question
        if turn.read is None and answerer.needs_words(limited):
            return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        answerer.refuse_unseen(limited)
        timer = StageTimer()
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        asking, pool, notes = limited, list[str](), list[str]()
        first: tuple[Evidence, Reading] | None = None
        for number in range(1, self._rounds + 1):
            evidence = answerer.recall(asking, timer, answerer.read_tokens)
            if not evidence.frame_count:
                break
            reading = log.read_with(turn.read, f"round {number}", evidence, timer)
            text = reading.text.strip()
            notes.append(f"round {number} looked for {asking.search_text!r}: {text or '-'}")
            if first is None or (text and is_shown(text)):
                first = evidence, reading
            if (text and is_shown(text)) or number == self._rounds:
                break
            if text and text.casefold() not in [each.casefold() for each in pool]:
                pool.append(text)
            asking = self._elsewhere(asking, evidence)
            if not any(map(asking.spans_of, asking.videos)):
                break
            asking = self._probing(asking, limited, answerer, log, pool, timer)
        assert first is not None  # refuse_unseen: the first round has frames
        answer = self._answer(question, answerer, *first, log, timer, notes)
        turn.emit(answer.text)
        return answer

    def _elsewhere(self, question: Question, evidence: Evidence) -> Question:
        """The question about what none of its rounds has read."""
        left = dict(question.spans)
        for video_id in evidence.videos:
            spans = list(question.spans_of(video_id))
            for start, end in recalled_spans(evidence, video_id):
                spans = [
                    piece
                    for low, high in spans
                    for piece in ((low, min(high, start)), (max(low, end), high))
                    if piece[0] < piece[1]
                ]
            left[video_id] = tuple(spans)
        return replace(question, spans=left)

    def _probing(
        self,
        asking: Question,
        question: Question,
        answerer: "Answerer",
        log: CallLog,
        pool: list[str],
        timer: StageTimer,
    ) -> Question:
        """The same question, searched for in other words where the model has some."""
        if answerer.only_cards:
            return asking
        said = " ".join(pool) or "nothing."
        asked = PROBE.format(question=question.search_text, pool=said)
        query = log.read("probe", text_context(asking, (), asked), timer).text.strip()
        return replace(asking, query=query or question.search_text)

    def _answer(
        self,
        question: Question,
        answerer: "Answerer",
        evidence: Evidence,
        reading: Reading,
        log: CallLog,
        timer: StageTimer,
        notes: list[str],
    ) -> Answer:
        seconds = timer.seconds | {"total": timer.total()}
        answer = answerer.answer(evidence, reading, seconds, warnings=[answerer.warnings(question)])
        rounds = sum(call.step.startswith("round") for call in log.calls)
        trace = Trace(
            self.name,
            f"answer=iterative read {rounds} of at most {self._rounds} rounds",
            tuple(log.calls),
            basis_of(answer),
            notes=tuple(notes),
        )
        return replace(
            answer,
            question=question.text,
            trace=trace,
            frames_read=sum(call.frames for call in log.calls),
            visual_tokens=trace.visual_tokens,
        )
