"""Conversations, one for each open page, all about the current feed.

Knows feeds and answers; no page component. A new question of a page cancels its running answer.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace

from encoders.errors import UserError
from pipeline.answer.stream import AnswerStream
from pipeline.config.units import format_time
from pipeline.demo.answer_html import MAX_EXCHANGES, Exchange
from pipeline.demo.feeds import Feeds
from pipeline.live.dialogue import Dialogue, Turn
from pipeline.live.session import Session
from pipeline.runtime.cancel import Cancelled
from pipeline.server.errors import as_sentence

NewDialogue = Callable[[Session], Dialogue]
_MAX_PAGES = 256  # conversations kept; the least recently used one is dropped first


class Conversation:
    """The conversation of one page."""

    def __init__(self, feeds: Feeds, new_dialogue: NewDialogue = Dialogue) -> None:
        """new_dialogue: makes the dialogue about a session, with its bounds of the history."""
        self._feeds, self._new_dialogue = feeds, new_dialogue
        self._lock = threading.Lock()
        self._exchanges: tuple[Exchange, ...] = ()
        self._dialogue: Dialogue | None = None
        self._count = 0

    def ask(self, text: str) -> Iterator[tuple[Exchange, ...]]:
        """Yield all exchanges each time the answer grows."""
        with self._lock:
            self._count += 1
            exchange = Exchange(" ".join(text.split()), self._count)
        try:
            session = self._feeds.require_current().session
            with self._lock:  # concurrent questions enter the dialogue one after the other
                turn = self._dialogue_about(session).ask(text)  # cancels the previous answer
        except UserError as error:
            yield self._append(replace(exchange, state="failed", text=as_sentence(str(error))))
            return
        with turn.stream as stream:
            yield from self._follow(exchange, stream, _interpretation(turn))

    def cancel(self) -> None:
        """Cancel the running answer."""
        with self._lock:
            if self._dialogue is not None:
                self._dialogue.cancel()

    def _dialogue_about(self, session: Session) -> Dialogue:
        """The dialogue about this session, a new one when the feed has changed.

        Call it with the lock held.
        """
        if self._dialogue is None or self._dialogue.session is not session:
            if self._dialogue is not None:
                self._dialogue.cancel()
            # citations of another feed would lead nowhere, so its exchanges are cleared
            self._dialogue, self._exchanges = self._new_dialogue(session), ()
        return self._dialogue

    def _follow(
        self, exchange: Exchange, stream: AnswerStream, interpretation: str
    ) -> Iterator[tuple[Exchange, ...]]:
        yield self._append(exchange)
        try:
            for piece in stream:
                exchange = replace(exchange, text=exchange.text + piece)
                yield self._update(exchange)
            yield self._update(exchange.with_answer(stream.answer, interpretation))
        except Cancelled:
            yield self._update(replace(exchange, state="cancelled", note="Stopped."))
        except UserError as error:
            yield self._update(replace(exchange, state="failed", text=as_sentence(str(error))))

    def _update(self, new: Exchange) -> tuple[Exchange, ...]:
        with self._lock:
            self._exchanges = tuple(new if old.id == new.id else old for old in self._exchanges)
            return self._exchanges

    def _append(self, exchange: Exchange) -> tuple[Exchange, ...]:
        with self._lock:
            self._exchanges = (*self._exchanges, exchange)[-MAX_EXCHANGES:]
            return self._exchanges


class Conversations:
    """`get(page)` gives a page's conversation. Safe to use from several threads."""

    def __init__(self, feeds: Feeds, new_dialogue: NewDialogue = Dialogue) -> None:
        self._feeds, self._new_dialogue = feeds, new_dialogue
        self._lock = threading.Lock()
        self._by_page: OrderedDict[str, Conversation] = OrderedDict()

    def get(self, page: str) -> Conversation:
        """The conversation of a page, a new one at its first call."""
        with self._lock:
            new = Conversation(self._feeds, self._new_dialogue)
            conversation = self._by_page.setdefault(page, new)
            self._by_page.move_to_end(page)
            while len(self._by_page) > _MAX_PAGES:
                self._by_page.popitem(last=False)[1].cancel()
            return conversation


def _interpretation(turn: Turn) -> str:
    """How a question was understood, if that differs from its text; else ""."""
    if turn.since is None and turn.until is None:
        return "" if turn.text == turn.utterance else f"Understood as: {turn.text}"
    times = f"from {format_time(turn.since or 0.0)}" + (
        " on" if turn.until is None else f" to {format_time(turn.until)}"
    )
    return f"Understood as: {turn.text} ({times})"
