"""Conversations: one for each page that is open, all about what is watched now. Knows the stage and answers; no component.

A new question of the same page ends the answer that is still running there.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

from encoders.errors import UserError
from pipeline.answer.stream import AnswerStream
from pipeline.config.units import clock_time
from pipeline.demo.answer_html import MOST_TURNS, Turn
from pipeline.demo.watching import Stage
from pipeline.live.dialogue import Dialogue
from pipeline.live.dialogue import Turn as Understood
from pipeline.live.session import Session
from pipeline.runtime.cancel import Cancelled

_PAGES = 256  # whose conversations are kept; the one heard of least recently goes first


class Talk:
    """One page's conversation."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lock = threading.Lock()
        self._turns: tuple[Turn, ...] = ()
        self._dialogue: Dialogue | None = None
        self._count = 0

    def ask(self, text: str) -> Iterator[tuple[Turn, ...]]:
        """All turns, each time there is more of the answer."""
        with self._lock:
            self._count += 1
            turn = Turn(" ".join(text.split()), self._count)
        try:
            session = self._stage.asked().session
            with self._lock:  # two questions at once are taken one after the other
                understood = self._about(session).ask(text)  # ends the answer before it
        except UserError as error:
            yield self._told(replace(turn, state="failed", text=_sentence(error)))
            return
        with understood.stream as stream:
            yield from self._answered(turn, stream, _how(understood))

    def cancel(self) -> None:
        """End the running answer."""
        with self._lock:
            if self._dialogue is not None:
                self._dialogue.cancel()

    def _about(self, session: Session) -> Dialogue:
        """The dialogue about what is watched now; a new one where that is something else than before. With the lock held."""
        if self._dialogue is None or self._dialogue.session is not session:
            if self._dialogue is not None:
                self._dialogue.cancel()
            # moments of another video would lead nowhere
            self._dialogue, self._turns = Dialogue(session), ()
        return self._dialogue

    def _answered(self, turn: Turn, stream: AnswerStream, how: str) -> Iterator[tuple[Turn, ...]]:
        yield self._told(turn)
        try:
            for piece in stream:
                turn = replace(turn, text=turn.text + piece)
                yield self._replaced(turn)
            yield self._replaced(turn.answered(stream.answer, how))
        except Cancelled:
            yield self._replaced(replace(turn, state="cancelled", note="Stopped."))
        except UserError as error:
            yield self._replaced(replace(turn, state="failed", text=_sentence(error)))

    def _replaced(self, after: Turn) -> tuple[Turn, ...]:
        with self._lock:
            self._turns = tuple(after if turn.id == after.id else turn for turn in self._turns)
            return self._turns

    def _told(self, turn: Turn) -> tuple[Turn, ...]:
        with self._lock:
            self._turns = (*self._turns, turn)[-MOST_TURNS:]
            return self._turns


class Talks:
    """`of(page)`; threads may use it at the same time."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._lock = threading.Lock()
        self._talks: OrderedDict[str, Talk] = OrderedDict()

    def of(self, page: str) -> Talk:
        """The conversation of a page, begun if it is new."""
        with self._lock:
            talk = self._talks.setdefault(page, Talk(self.stage))
            self._talks.move_to_end(page)
            while len(self._talks) > _PAGES:
                self._talks.popitem(last=False)[1].cancel()
            return talk


def _how(turn: Understood) -> str:
    """How a question was understood, where that is not plain."""
    if turn.since is None and turn.until is None:
        return "" if turn.text == turn.said else f"Understood as: {turn.text}"
    times = f"from {clock_time(turn.since or 0.0)}" + (
        " on" if turn.until is None else f" to {clock_time(turn.until)}"
    )
    return f"Understood as: {turn.text} ({times})"


def _sentence(error: UserError) -> str:
    return f"{' '.join(str(error).split()).rstrip('. ')}."
