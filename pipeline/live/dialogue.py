"""A conversation about a session: follow-ups, times in words, a bounded history. A new question cancels the running answer.

What a follow-up means is settled here, in time, and not left to the model: "and after that?" is the last question again, about
what came after the moments that the last answer cites. So it works with a model that knows no conversation, and whoever asks is
told how he was understood (`Turn.since`, `Turn.until`, `Turn.text`).

History (after StreamBridge, arXiv 2505.05467, whose older rounds decay): of each round the frames that its answer cites are
kept. When they are more than `history_tokens` hold, the oldest round lets go of the lighter half of its frames, again and again
down to one, then the next oldest; when that does not help, rounds lose their last frame, the oldest first. The newest round is
untouched, and texts stay. StreamBridge averages frames: keys cannot be averaged, and frames can be recalled again.
Knows no model and no bank.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.errors import UserError
from pipeline.answer.stream import AnswerStream
from pipeline.live.session import Session
from pipeline.query.time_phrases import Direction, is_filler, parse_reference
from pipeline.query.wall_clock import wall_clock_range
from pipeline.schema import Answer


@dataclass(frozen=True, slots=True)
class Round:
    """A question that was answered, and what is kept of it."""

    text: str  # as the model was asked
    answer: str
    spans: tuple[tuple[float, float], ...]  # seconds that the answer cites
    frames: tuple[int, ...]  # ordinals of frames that it cites, heaviest first

    @classmethod
    def of(cls, answer: Answer) -> "Round":
        return cls(
            answer.question,
            answer.text,
            answer.spans,
            tuple(frame.ordinal for frame in answer.cited),
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """A question as it was understood, with its answer on the way."""

    said: str  # by the asker
    text: str  # what the model is asked
    since: float | None  # seconds of video time; None: from the beginning
    until: float | None  # None: up to now
    stream: AnswerStream


class Dialogue:
    """`turn = dialogue.ask("What is the code?")`, `for piece in turn.stream`, `dialogue.ask("And after that?")`."""

    def __init__(
        self, session: Session, *, rounds: int = 8, history_tokens: int = 0, tell_rounds: int = 0
    ) -> None:
        """rounds: that are remembered. history_tokens: visual tokens that frames of earlier rounds may take of `read_tokens`.
        tell_rounds: earlier questions and answers that the model reads before the question. Both are 0 for a model that knows
        single questions only, such as the embedded one."""
        self.session = session
        self._most, self._history_tokens, self._tell = rounds, history_tokens, tell_rounds
        self._rounds: list[Round] = []
        self._turn: Turn | None = None

    @property
    def rounds(self) -> tuple[Round, ...]:
        """What is remembered, the newest last."""
        self._remember()
        return tuple(self._rounds)

    def ask(self, said: str, *, since: float | None = None, until: float | None = None) -> Turn:
        """Ask the next question. since, until: seconds of video time, which go before what the question itself says.
        UserError as `Session.ask`, and where a follow-up follows nothing."""
        self.cancel()
        self._remember()
        text, a, b = self._understood(said)
        a, b = a if since is None else since, b if until is None else until
        question = self.session.question(text, since=a, until=b)
        per_frame = self.session.qa.backbone.tokens_per_frame
        self._rounds = decayed(self._rounds, self._history_tokens // per_frame)
        keep = (
            tuple(frame for each in reversed(self._rounds) for frame in each.frames)
            if self._history_tokens
            else ()
        )
        question = replace(
            question, keep=keep, context=told(self._rounds[-self._tell :] if self._tell else ())
        )
        self._turn = Turn(said, text, a, b, self.session.stream(question))
        return self._turn

    def cancel(self) -> None:
        """End the running answer, if there is one, between two tokens."""
        if self._turn is not None and not self._turn.stream.is_done:
            self._turn.stream.cancel()
            self._turn = None

    def forget(self) -> None:
        """Begin anew."""
        self.cancel()
        self._turn, self._rounds = None, []

    def _remember(self) -> None:
        """Take the last answer into the history, if it was given to its end."""
        if self._turn is not None and self._turn.stream.is_done:
            answer = self._turn.stream.result
            self._turn = None
            if answer is not None:
                self._rounds = [*self._rounds, Round.of(answer)][-self._most :]

    def _understood(self, said: str) -> tuple[str, float | None, float | None]:
        """(what to ask, since, until)."""
        limit = wall_clock_range(said, time.time())
        if limit is not None:
            a, b = self.session.video_time(limit.since), self.session.video_time(limit.until)
            # the times of the same moment: where a session begins, or behind the last one
            if b <= a:
                raise UserError(
                    f"Nothing was seen {limit.phrase.words!r}: the stream was not there; "
                    "ask about another time."
                )
            until = None if b == float("inf") else _just_before(b)
            return self._question(limit.phrase.rest), a, until
        reference = parse_reference(said)
        if reference is None:
            return said, None, None
        if reference.direction is Direction.AGAIN:
            return self._question(reference.rest), None, None
        spans = self._last_spans(said)
        text = self._question(reference.rest)
        if reference.direction is Direction.AFTER:
            return text, spans[-1][1], None
        return text, None, _just_before(spans[0][0])

    def _question(self, rest: str) -> str:
        """What is left of a question without its time: a question of its own, or the last one again."""
        if not is_filler(rest):
            text = rest.strip(" ,")
            return text[:1].upper() + text[1:] + ("" if text.endswith(("?", "!", ".")) else "?")
        if not self._rounds:
            raise UserError(
                "There is no question before this one that it could go on from; ask a whole question."
            )
        return self._rounds[-1].text

    def _last_spans(self, said: str) -> tuple[tuple[float, float], ...]:
        spans = self._rounds[-1].spans if self._rounds else ()
        if not spans:
            raise UserError(
                f"{said.strip()!r} follows an answer that names no moment; ask a whole question."
            )
        return spans


def decayed(rounds: Sequence[Round], most: int) -> list[Round]:
    """The rounds with at most `most` frames together; the newest as it is, however many it has."""
    left = list(rounds)
    for i in range(len(left) - 1):
        while sum(len(each.frames) for each in left) > most and len(left[i].frames) > 1:
            left[i] = replace(left[i], frames=left[i].frames[: -(len(left[i].frames) // 2)])
    for i in range(len(left) - 1):
        if sum(len(each.frames) for each in left) > most:
            left[i] = replace(left[i], frames=())
    return left


def told(rounds: Sequence[Round]) -> str:
    """Earlier rounds as text."""
    return "\n".join(f"Earlier question: {each.text}\nAnswer: {each.answer}" for each in rounds)


def _just_before(seconds: float) -> float:
    return max(0.0, seconds - 1e-3)


__all__ = ["Dialogue", "Round", "Turn", "decayed", "told"]
