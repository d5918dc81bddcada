"""An answer in pieces: computed in a thread of its own, and consumed at any speed.

The thread never waits for the consumer, so a slow or absent one blocks neither the model nor other
questions. Knows no question and no model, only the `work` that computes the answer.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from pipeline.runtime.cancel import Cancelled, Emit
from pipeline.schema import Answer

Work = Callable[[Emit, threading.Event], Answer]
"""Emits the pieces and returns the answer; raises Cancelled soon after the event is set."""


class AnswerStream:
    """`for piece in stream: ...`, then `stream.answer`. Leaving a `with` block, `close` and
    `cancel` end the answer between two tokens. An error of the work, such as a UserError, is raised
    where the pieces are consumed."""

    def __init__(self, work: Work) -> None:
        """Starts the work at once."""
        self._work = work
        self._cancelled = threading.Event()
        # an answer is short: `max_new_tokens` bounds it
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[str]:
        """Pieces of text; joined they are the answer's text. For one consumer. Raises Cancelled
        after `cancel`."""
        while (piece := self._pieces.get()) is not None:
            yield piece
        self._pieces.put(None)  # a second iteration ends at once
        self._thread.join()  # it has nothing left to do: whoever saw the last piece sees `is_done`
        if self._error is not None:
            raise self._error

    @property
    def answer(self) -> Answer:
        """The whole answer; waits for it. Raises the error of the work."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    @property
    def result(self) -> Answer | None:
        """The answer if it is complete by now, else None."""
        return self._answer

    @property
    def is_done(self) -> bool:
        """Whether the answer is complete, has failed or was cancelled."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """End the answer. Returns at once; the thread ends after the current token."""
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
        except BaseException as error:  # raised in the consumer's thread
            self._error = error
        finally:
            self._pieces.put(None)


__all__ = ["AnswerStream", "Cancelled"]
