"""Pictures and words apart, then compared.

After "VisDoM". One answer comes from frames without any line, one from lines without any frame. Two
that agree are sure; where they differ, the model decides from both, or the pictures do where it
reads no text. The trace says whether they agree.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from memory.schema import Question
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.caption import Caption
from pipeline.answer.strategies.mapping.reduction import Item
from pipeline.answer.strategies.mapping.text_levels import text_context
from pipeline.answer.strategies.schema import Turn, film_by_film, refuse_more
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, ModelCall, is_shown

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

DECIDE = (
    'Two answers to the question "{question}" about a video. From its pictures: {pictures} From '
    "its words: {words} Which one is right? Repeat it, and nothing else."
)


class Dual:
    """Two answers, from frames and from lines, and what they agree on."""

    name = "dual"

    def __init__(self, *, words: Caption) -> None:
        """words: answers from lines."""
        self._words = words

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer on which both agree, or the better one."""
        if turn.read is not None:  # one choice among options needs one context
            return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        refuse_more(question, self.name)
        timer = StageTimer()
        quiet = Turn(cancelled=turn.cancelled)
        blind = replace(answerer, read_text_tokens=0)
        pictures = blind.retrieve(question, cancelled=turn.cancelled)
        runs = (run for each in question.videos for run in answerer.bank.text.runs(each))
        words = (
            self._words.answer(question, answerer, quiet)
            if any(run.lines for run in runs)
            else None
        )
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        answer, agreement = self._chosen(question, answerer, pictures, words, log, timer)
        parts = [pictures] if words is None else [pictures, words]
        calls = tuple(call for part in parts if part.trace for call in part.trace.calls)
        turn.emit(answer.text)
        return self._whole(question, answer, (*calls, *log.calls), agreement, timer)

    def _chosen(
        self,
        question: Question,
        answerer: "Answerer",
        pictures: Answer,
        words: Answer | None,
        log: CallLog,
        timer: StageTimer,
    ) -> tuple[Answer, str]:
        """One of the two, and what they say of each other."""
        if words is None:
            return pictures, "the video has no words"
        said = f"pictures: {pictures.text!r}, words: {words.text!r}"
        if _name(pictures) == _name(words):
            return pictures, f"they agree; {said}"
        if not pictures.shown or not words.shown:
            one = words if words.shown else pictures
            return one, f"only the {'words' if one is words else 'pictures'} answer; {said}"
        if answerer.only_cards:
            return pictures, f"they disagree, and the pictures count; {said}"
        limited = answerer.timed(question).question
        asked = DECIDE.format(
            question=limited.search_text, pictures=pictures.text, words=words.text
        )
        text = log.read("decide", text_context(limited, (), asked), timer).text.strip()
        likes_words = bool(text) and is_shown(text) and Item(text, 0, 0).name == _name(words)
        one = words if likes_words else pictures
        return one, f"they disagree, and the model takes the {one.channel}; {said}"

    def _whole(
        self,
        question: Question,
        answer: Answer,
        calls: Sequence[ModelCall],
        agreement: str,
        timer: StageTimer,
    ) -> Answer:
        assert answer.trace is not None
        trace = replace(
            answer.trace,
            strategy=self.name,
            why="answer=dual asks the pictures and the words apart"
            f"{film_by_film(question)}, and compares",
            calls=tuple(calls),
            notes=(*answer.trace.notes, agreement),
        )
        return replace(
            answer,
            trace=trace,
            frames_read=sum(call.frames for call in calls),
            visual_tokens=trace.visual_tokens,
            seconds=answer.seconds | {"total": timer.total()},
        )


def _name(answer: Answer) -> str:
    """What an answer says, without what does not tell answers apart."""
    return Item(answer.text, 0, 0).name if answer.shown else ""
