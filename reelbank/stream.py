"""A live stream from Python: encoded while questions about it are answered."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from encoders.errors import UserError
from reelbank.records import Answer

if TYPE_CHECKING:
    from pipeline.engine import Engine
    from pipeline.live.session import Session


class Stream:
    """`with bank.stream(address) as stream: stream.ask("...")`. It runs inside of the block; when
    the block ends, everything that arrived is on the disk."""

    def __init__(self, engine: "Engine", address: str, speed: float, name: str | None) -> None:
        """Only for `Bank.stream`."""
        self._engine, self._address, self._speed, self._name = engine, address, speed, name
        self._stack = ExitStack()
        self._session: Session | None = None

    @property
    def address(self) -> str:
        """What is streamed."""
        return self._address

    @property
    def now(self) -> float:
        """Seconds of video time of a question that is asked now."""
        return self._running.now

    @property
    def seen_until(self) -> float:
        """Seconds of the newest frame that a question can see."""
        return self._running.status().seen_until

    @property
    def state(self) -> str:
        """waiting (for the first frame), running, ended, stopped or failed."""
        return self._running.status().state

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until questions can see a first frame. timeout: seconds. Error when the source
        cannot be reached or gives none in that time."""
        self._running.wait_for_frame(timeout)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the source ends, as a film does. timeout: seconds. True when it has ended.
        Error when the stream broke."""
        return self._running.join(timeout) is not None

    def ask(
        self,
        question: str,
        *,
        since: float | None = None,
        until: float | None = None,
        on_token: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer from what has arrived by now. since, until: seconds of video time. Error on an
        empty question, and before the first frame."""
        from reelbank.conversion import to_answer

        with self._running.ask(question, since=since, until=until) as pieces:
            for piece in pieces:
                if on_token is not None:
                    on_token(piece)
            return to_answer(self._engine, pieces.answer)

    def __enter__(self) -> "Stream":
        if self._session is not None:
            raise UserError("this stream has run already; make another one with bank.stream")
        opening = self._engine.stream(self._address, speed=self._speed, name=self._name)
        self._session = self._stack.enter_context(opening)
        return self

    def __exit__(self, *error: object) -> None:
        kind, value, trace = error
        self._stack.__exit__(kind, value, trace)  # type: ignore[arg-type]

    @property
    def _running(self) -> "Session":
        if self._session is None:
            raise UserError("this stream does not run yet; use it in `with bank.stream(...)`")
        return self._session
