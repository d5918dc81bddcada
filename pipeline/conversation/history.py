"""The earlier rounds of a conversation: what a follow-up refers to, and what the next question
carries along.

A follow-up is resolved here, as a time, and not by the model: "and after that?" is the last
question again, about what came after the moments that the last answer cites, and "and now?" is that
question about the newest moment, whatever time it named. So it works with a model that knows no
conversation.

After StreamBridge (arXiv 2505.05467), older rounds decay: each keeps the frames that its answer
cites. When they exceed the budget, the oldest round drops the lighter half of its frames,
repeatedly, down to one; then the next oldest does. If that is not enough, rounds drop their last
frame, the oldest first. The newest round gives way last: it keeps its heaviest frames, as many as
the budget holds. Texts stay. StreamBridge averages frames: keys cannot be averaged, and frames can
be recalled again. Knows no model, no bank and no session.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.errors import UserError
from encoders.models.backbone import VideoModel
from memory.schema import Question
from pipeline.config.units import format_time
from pipeline.conversation.rewriter import NoRewriter, Rewriter
from pipeline.conversation.round import Round, context_text
from pipeline.query.present_state import at_any_time
from pipeline.query.time_phrases import Direction, is_filler, parse_reference

MAX_ROUNDS = 8  # that a history holds


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A question in full, and the seconds of video time that it is about."""

    text: str
    since: float | None = None  # None: from the beginning
    until: float | None = None  # None: up to now
    newest: bool = False  # of a value that changed, the newest is asked for

    def about(self, question: Question) -> Question:
        """The question with this text, about these seconds of its one video."""
        moment = question.asked_at if self.until is None else min(self.until, question.asked_at)
        spans = {} if self.since is None else {question.video_id: ((self.since, math.inf),)}
        return replace(question, text=self.text, asked_at=moment, spans=spans, newest=self.newest)

    def note(self, utterance: str) -> str:
        """How the utterance was understood, in a sentence; "" where it was taken as it is."""
        if self.since is None and self.until is None:
            return "" if self.text == utterance else f"Understood as: {self.text}"
        times = f"from {format_time(self.since or 0.0)}" + (
            " on" if self.until is None else f" to {format_time(self.until)}"
        )
        return f"Understood as: {self.text} ({times})"


class History:
    """`history.resolve("and after that?")`, `history.carry(question)`, then
    `history.add(Round.of(answer))`.

    One thread at a time.
    """

    def __init__(
        self,
        backbone: VideoModel,
        history_tokens: int = 0,
        tell_rounds: int = 0,
        rewriter: Rewriter | None = None,
    ) -> None:
        """history_tokens: visual tokens of a read that the frames of earlier rounds may take.
        tell_rounds: earlier questions and answers that the model reads before a question. Both are
        0 for a model that knows single questions only, such as the embedded one. rewriter: of what
        no rule resolves; None: it stays as it is. UserError on bounds below 0, and on rounds for a
        model that reads no text.
        """
        check_bounds(history_tokens, tell_rounds)
        if tell_rounds and not backbone.reads_text:
            raise UserError(
                f"tell_rounds={tell_rounds} needs a model that reads text, and this one knows "
                "single questions; leave it out or choose another backbone="
            )
        self._max_frames = history_tokens // max(1, backbone.tokens_per_frame)
        self._tell_rounds, self._rewriter = tell_rounds, rewriter or NoRewriter()
        self._rounds: list[Round] = []

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The newest round last."""
        return tuple(self._rounds)

    def add(self, done: Round) -> None:
        """Add the newest round. Of more than MAX_ROUNDS, the oldest is forgotten."""
        self._rounds = [*self._rounds, done][-MAX_ROUNDS:]

    def clear(self) -> None:
        """Forget everything."""
        self._rounds = []

    def resolve(self, utterance: str) -> FollowUp:
        """What an utterance asks. UserError where a follow-up has nothing to follow."""
        reference = parse_reference(utterance)
        if reference is None:
            return FollowUp(self._rewriter(utterance, self._rounds))
        if reference.direction is Direction.AGAIN:
            return FollowUp(self.in_full(reference.rest))
        if reference.direction is Direction.NOW:
            return FollowUp(at_any_time(self.in_full(reference.rest)), newest=True)
        spans = self._last_spans(utterance)
        text = self.in_full(reference.rest)
        if reference.direction is Direction.AFTER:
            return FollowUp(text, since=spans[-1][1])
        return FollowUp(text, until=just_before(spans[0][0]))

    def in_full(self, rest: str) -> str:
        """What is left of a question without its time: a question of its own, or the last one
        again. UserError where there is no last one."""
        if not is_filler(rest):
            text = rest.strip(" ,")
            return text[:1].upper() + text[1:] + ("" if text.endswith(("?", "!", ".")) else "?")
        if not self._rounds:
            raise UserError(
                "There is no question before this one that it could go on from; "
                "ask a whole question."
            )
        return self._rounds[-1].text

    def carry(self, question: Question) -> Question:
        """The question with the frames and the text of earlier rounds."""
        if self._max_frames:
            self._rounds = decay(self._rounds, self._max_frames)
            frames = (frame for each in reversed(self._rounds) for frame in each.frames)
            question = replace(question, keep=tuple(frames))
        if self._tell_rounds and self._rounds:
            question = replace(question, context=context_text(self._rounds[-self._tell_rounds :]))
        return question

    def _last_spans(self, utterance: str) -> tuple[tuple[float, float], ...]:
        spans = self._rounds[-1].spans if self._rounds else ()
        if not spans:
            raise UserError(
                f"{utterance.strip()!r} follows an answer that names no moment; "
                "ask a whole question."
            )
        return spans


def check_bounds(history_tokens: int, tell_rounds: int) -> None:
    """UserError where a bound is below 0."""
    for name, value in (("history_tokens", history_tokens), ("tell_rounds", tell_rounds)):
        if value < 0:
            raise UserError(f"{name}={value} is below 0; give 0 or more")


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


def just_before(seconds: float) -> float:
    """A moment so close before that no frame lies between."""
    return max(0.0, seconds - 1e-3)
