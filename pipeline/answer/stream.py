"""An answer in pieces: read in a thread of its own, taken by whoever wants it as fast as he likes.

The thread never waits for the taker, so somebody who takes slowly, or no more, holds neither the model nor other questions up.
Knows no question and no model: `work` is handed in.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from pipeline.runtime.cancel import Cancelled, Emit
from pipeline.schema import Answer

Work = Callable[[Emit, threading.Event], Answer]
"""Gives out the pieces, and returns the answer; raises Cancelled soon after the event is set."""


class AnswerStream:
    """`for piece in stream: ...`, then `stream.answer`. Leaving a `with` block, closing or cancelling ends it between two
    tokens. What the work raises, such as a UserError, is raised here where the pieces are taken."""

    def __init__(self, work: Work) -> None:
        """Begins at once."""
        self._work = work
        self._cancelled = threading.Event()
        # an answer is short: `max_new_tokens` bounds it
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[str]:
        """Pieces of text; joined they are the answer's text. For one taker. Cancelled when it was."""
        while (piece := self._pieces.get()) is not None:
            yield piece
        self._pieces.put(None)  # whoever takes again finds the end
        if self._error is not None:
            raise self._error

    @property
    def answer(self) -> Answer:
        """The whole answer, once it is there; waits for it. Raises what the work raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    @property
    def result(self) -> Answer | None:
        """The answer if it was given to its end by now, else None."""
        return self._answer

    @property
    def is_done(self) -> bool:
        """Whether the answer is whole, has failed or was cancelled."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """No more is wanted. Returns at once; the thread ends after the token in hand."""
        self._cancelled.set()

    def close(self) -> None:
        """Cancel, and wait until the model is free."""
        self.cancel()
        self._thread.join()

    def __enter__(self) -> "AnswerStream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._answer = self._work(self._pieces.put, self._cancelled)
        except BaseException as error:  # handed to the taker
            self._error = error
        finally:
            self._pieces.put(None)


__all__ = ["AnswerStream", "Cancelled"]
