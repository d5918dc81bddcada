"""A conversation about a session: follow-ups, times in words, a bounded history.

A new question cancels the running answer. A follow-up is resolved here, as a time, and not by the
model: "and after that?" is the last question again, about what came after the moments that the
last answer cites. So it works with a model that knows no conversation. `Turn` says how a question
was understood (`since`, `until`, `text`).

History (after StreamBridge, arXiv 2505.05467, whose older rounds decay): each round keeps the
frames that its answer cites. When they exceed `history_tokens`, the oldest round drops the lighter
half of its frames, repeatedly, down to one; then the next oldest does. If that is not enough,
rounds drop their last frame, the oldest first. The newest round gives way last: it keeps its
heaviest frames, as many as the budget holds. Texts stay.
StreamBridge averages frames: keys cannot be averaged, and frames can be recalled again.
Knows no model and no bank.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.errors import UserError
from memory.schema import FrameName
from pipeline.answer.stream import AnswerStream
from pipeline.live.session import Session
from pipeline.query.time_phrases import Direction, is_filler, parse_reference
from pipeline.query.wall_clock import wall_clock_range
from pipeline.schema import Answer


@dataclass(frozen=True, slots=True)
class Round:
    """A question with a complete answer, as far as the history needs it."""

    text: str  # the question that the model read
    answer: str
    spans: tuple[tuple[float, float], ...]  # seconds that the answer cites
    frames: tuple[FrameName, ...]  # that the answer cites, heaviest first

    @classmethod
    def of(cls, answer: Answer) -> "Round":
        return cls(
            answer.question,
            answer.text,
            answer.spans,
            tuple(FrameName(frame.video_id, frame.ordinal) for frame in answer.cited),
        )


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
        self, session: Session, *, rounds: int = 8, history_tokens: int = 0, tell_rounds: int = 0
    ) -> None:
        """rounds: how many the history holds. history_tokens: visual tokens that frames of earlier
        rounds may take of `read_tokens`. tell_rounds: earlier questions and answers that the model
        reads before the question. Both are 0 for a model that knows single questions only, such as
        the embedded one.
        """
        self.session = session
        self._max_rounds, self._history_tokens, self._tell_rounds = (
            rounds,
            history_tokens,
            tell_rounds,
        )
        self._rounds: list[Round] = []
        self._turn: Turn | None = None

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The history, the newest round last."""
        self._remember()
        return tuple(self._rounds)

    def ask(
        self, utterance: str, *, since: float | None = None, until: float | None = None
    ) -> Turn:
        """Ask the next question.

        since, until: seconds of video time, which override what the question itself says.
        UserError as `Session.ask`, and if a follow-up has nothing to follow.
        """
        self.cancel()
        self._remember()
        text, start, end = self._interpret(utterance)
        start, end = start if since is None else since, end if until is None else until
        question = self.session.question(text, since=start, until=end)
        per_frame = self.session.qa.backbone.tokens_per_frame
        self._rounds = decay(self._rounds, self._history_tokens // per_frame)
        keep = (
            tuple(frame for each in reversed(self._rounds) for frame in each.frames)
            if self._history_tokens
            else ()
        )
        context = context_text(self._rounds[-self._tell_rounds :] if self._tell_rounds else ())
        question = replace(question, keep=keep, context=context)
        self._turn = Turn(utterance, text, start, end, self.session.stream(question))
        return self._turn

    def cancel(self) -> None:
        """End the running answer, if there is one, between two tokens."""
        if self._turn is not None and not self._turn.stream.is_done:
            self._turn.stream.cancel()
            self._turn = None

    def forget(self) -> None:
        """Clear the history."""
        self.cancel()
        self._turn, self._rounds = None, []

    def _remember(self) -> None:
        """Add the last answer to the history if it is complete."""
        if self._turn is not None and self._turn.stream.is_done:
            answer = self._turn.stream.result
            self._turn = None
            if answer is not None:
                self._rounds = [*self._rounds, Round.of(answer)][-self._max_rounds :]

    def _interpret(self, utterance: str) -> tuple[str, float | None, float | None]:
        """The question for the model, and the seconds of video time that it is about."""
        limit = wall_clock_range(utterance, time.time())
        if limit is not None:
            a, b = self.session.video_time(limit.since), self.session.video_time(limit.until)
            # equal where no frame lies between: before a session begins, or after the last one
            if b <= a:
                raise UserError(
                    f"Nothing was seen {limit.phrase.words!r}: the stream was not there; "
                    "ask about another time."
                )
            until = None if b == float("inf") else _just_before(b)
            return self._question(limit.phrase.rest), a, until
        reference = parse_reference(utterance)
        if reference is None:
            return utterance, None, None
        if reference.direction is Direction.AGAIN:
            return self._question(reference.rest), None, None
        spans = self._last_spans(utterance)
        text = self._question(reference.rest)
        if reference.direction is Direction.AFTER:
            return text, spans[-1][1], None
        return text, None, _just_before(spans[0][0])

    def _question(self, rest: str) -> str:
        """The question without its time: a question of its own, or the last one again."""
        if not is_filler(rest):
            text = rest.strip(" ,")
            return text[:1].upper() + text[1:] + ("" if text.endswith(("?", "!", ".")) else "?")
        if not self._rounds:
            raise UserError(
                "There is no question before this one that it could go on from; "
                "ask a whole question."
            )
        return self._rounds[-1].text

    def _last_spans(self, utterance: str) -> tuple[tuple[float, float], ...]:
        spans = self._rounds[-1].spans if self._rounds else ()
        if not spans:
            raise UserError(
                f"{utterance.strip()!r} follows an answer that names no moment; "
                "ask a whole question."
            )
        return spans


def decay(rounds: Sequence[Round], max_frames: int) -> list[Round]:
    """The rounds with at most `max_frames` frames together."""
    left = list(rounds)
    for i in range(len(left) - 1):
        while sum(len(each.frames) for each in left) > max_frames and len(left[i].frames) > 1:
            left[i] = replace(left[i], frames=left[i].frames[: -(len(left[i].frames) // 2)])
    for i in range(len(left) - 1):
        if sum(len(each.frames) for each in left) > max_frames:
            left[i] = replace(left[i], frames=())
    return [*left[:-1], *(replace(each, frames=each.frames[:max_frames]) for each in left[-1:])]


def context_text(rounds: Sequence[Round]) -> str:
    """Earlier rounds as text for the model."""
    return "\n".join(f"Earlier question: {each.text}\nAnswer: {each.answer}" for each in rounds)


def _just_before(seconds: float) -> float:
    return max(0.0, seconds - 1e-3)
