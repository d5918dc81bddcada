"""A conversation about a session: follow-ups, times in words, a bounded history.

A new question cancels the running answer. Times on the wall clock are resolved here, and follow-ups
by the history (pipeline/conversation/history.py). `Turn` says how a question was understood
(`since`, `until`, `text`). Knows no model and no bank.
"""

import time
from dataclasses import dataclass, replace

from encoders.errors import UserError
from pipeline.answer.stream import AnswerStream
from pipeline.conversation.history import FollowUp, History, just_before
from pipeline.conversation.rewriter import Rewriter
from pipeline.conversation.round import Round
from pipeline.live.session import Session
from pipeline.query.wall_clock import wall_clock_range


@dataclass(frozen=True, slots=True)
class Turn:
    """How a question was understood, and its running answer."""

    utterance: str  # the words of the user
    text: str  # the question that the model reads
    since: float | None  # seconds of video time; None: from the beginning
    until: float | None  # None: up to now
    stream: AnswerStream


class Dialogue:
    """`turn = dialogue.ask("What is the code?")`, `for piece in turn.stream`,
    `dialogue.ask("And after that?")`.
    """

    def __init__(
        self,
        session: Session,
        *,
        history_tokens: int = 0,
        tell_rounds: int = 0,
        rewriter: Rewriter | None = None,
    ) -> None:
        """history_tokens: visual tokens that frames of earlier rounds may take of `read_tokens`.
        tell_rounds: earlier questions and answers that the model reads before the question. Both
        are 0 for a model that knows single questions only, such as the embedded one. rewriter: of
        follow-ups that no rule resolves; None: they stay as they are.
        """
        self.session = session
        self._history = History(session.qa.backbone, history_tokens, tell_rounds, rewriter)
        self._turn: Turn | None = None

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The history, the newest round last."""
        self._remember()
        return self._history.rounds

    def ask(
        self, utterance: str, *, since: float | None = None, until: float | None = None
    ) -> Turn:
        """Ask the next question.

        since, until: seconds of video time, which override what the question itself says.
        UserError as `Session.ask`, and if a follow-up has nothing to follow.
        """
        self.cancel()
        self._remember()
        asked = self._interpret(utterance)
        start = asked.since if since is None else since
        end = asked.until if until is None else until
        question = self.session.question(asked.text, since=start, until=end)
        question = self._history.carry(replace(question, newest=asked.newest))
        self._turn = Turn(utterance, asked.text, start, end, self.session.stream(question))
        return self._turn

    def cancel(self) -> None:
        """End the running answer, if there is one, between two tokens."""
        if self._turn is not None and not self._turn.stream.is_done:
            self._turn.stream.cancel()
            self._turn = None

    def forget(self) -> None:
        """Clear the history."""
        self.cancel()
        self._turn = None
        self._history.clear()

    def _remember(self) -> None:
        """Add the last answer to the history if it is complete."""
        if self._turn is not None and self._turn.stream.is_done:
            answer = self._turn.stream.result
            self._turn = None
            if answer is not None:
                self._history.add(Round.of(answer))

    def _interpret(self, utterance: str) -> FollowUp:
        """The question for the model, and the seconds of video time that it is about."""
        limit = wall_clock_range(utterance, time.time())
        if limit is None:
            return self._history.resolve(utterance)
        a, b = self.session.video_time(limit.since), self.session.video_time(limit.until)
        # equal where no frame lies between: before a session begins, or after the last one
        if b <= a:
            raise UserError(
                f"Nothing was seen {limit.phrase.words!r}: the stream was not there; "
                "ask about another time."
            )
        until = None if b == float("inf") else just_before(b)
        return FollowUp(self._history.in_full(limit.phrase.rest), a, until)
