"""Every frame in one pass, of several videos too, where all of them fit the model's window."""

from dataclasses import replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.schema import is_local
from pipeline.answer.strategies.call_log import window_tokens
from pipeline.answer.strategies.schema import Turn, refuse_more
from pipeline.answer.strategies.segment_slices import frame_tokens
from pipeline.schema import Answer

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


class Full:
    """Reads the whole video."""

    name = "full"

    def __init__(self, max_tokens: int | None = None) -> None:
        """max_tokens: visual tokens of the longest video that is read; None: what the window of the
        model holds beside the question. UserError on less than 1."""
        if max_tokens is not None and max_tokens < 1:
            raise UserError(f"answer.max_tokens={max_tokens} holds no frame; use 1 or more.")
        self._max_tokens = max_tokens

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer from all frames. UserError where they are too many."""
        refuse_more(question, self.name)
        limited = answerer.timed(question).question
        count = len(question.videos)
        tokens, most = frame_tokens(answerer.bank, limited), self.most(answerer)
        if most is not None and tokens > most:
            which = "this video: its frames" if count == 1 else "these videos: their frames"
            raise UserError(
                f"answer=full cannot read {which} have {tokens} visual tokens, and "
                f"the model takes {most} at once; use answer=retrieve, answer=map_reduce, or "
                "answer=route."
            )
        whole = replace(answerer, read_tokens=max(tokens, answerer.read_tokens), most_read=count)
        answer = whole.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        if answer.trace is None or not answer.trace.calls:
            return answer
        whose = "the video" if count == 1 else f"{count} videos"
        why = f"answer=full reads all {tokens} visual tokens of {whose}"
        return replace(answer, trace=replace(answer.trace, strategy=self.name, why=why))

    def most(self, answerer: "Answerer") -> int | None:
        """Visual tokens that fit one pass; None: nobody knows a limit."""
        if self._max_tokens is not None:
            return self._max_tokens
        if not is_local(answerer.reader):
            return answerer.read_tokens  # a server's pictures are counted, not their tokens
        return window_tokens(answerer.reader, of_frames=True)
