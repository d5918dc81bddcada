"""The engines that a resident process keeps, and a command that runs with one of them.

Knows the tasks `ask` and `find`, and which settings belong to a single call; no socket.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from encoders.errors import UserError
from pipeline.config.compose import compose
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.config.tasks.question_settings import AskSettings, FindSettings
from pipeline.resident.call_settings import parts_of, with_whole_paths

# what loads parts, and warns about them once
_BUILDERS = ("pipeline.build", "pipeline.frame_embedder")

Identity = tuple[int, int] | None


class CannotServeError(Exception):
    """The command runs in a process of its own instead."""


@dataclass
class _WarmEngine:
    """An engine, with what it was built of."""

    engine: Any  # pipeline.engine.Engine, which is imported with the first question
    identity: Identity  # of the bank
    warnings: list[logging.LogRecord] = field(default_factory=list)  # of its parts


class WarmEngines:
    """At most one engine of each task; two tasks with the same parts share one."""

    def __init__(self, bank: str) -> None:
        """bank: absolute path of its folder."""
        self._bank = bank
        self._engines: dict[str, _WarmEngine] = {}

    def run(self, task: str, overrides: Sequence[str]) -> int:
        """Run a command in the current folder, with the current stdout; its exit code.

        Raises what the command raises; CannotServeError where its own process has to say it.
        """
        settings = cast(AskSettings | FindSettings, compose(task, overrides))
        warm = self._engine(task, settings)
        for record in warm.warnings:
            logging.getLogger(record.name).handle(record)
        heard = _Heard()
        loggers = [logging.getLogger(name) for name in _BUILDERS]
        for logger in loggers:
            logger.addHandler(heard)
        try:
            return self._command(task)(settings, warm.engine)
        except UserError as error:
            if settings.bank != self._bank and self._bank in str(error):
                raise CannotServeError("an error that names the bank as nobody typed it") from error
            raise
        finally:
            for logger in loggers:
                logger.removeHandler(heard)
            warm.warnings += heard.records
            warm.identity = identity(self._bank)  # a first question may have made the bank

    def drop(self) -> None:
        """Close every engine, such as after a command that was interrupted."""
        for warm in {id(one): one for one in self._engines.values()}.values():
            warm.engine.close()
        self._engines.clear()

    @staticmethod
    def _command(task: str) -> Callable[[Any, Any], int]:
        if task == "ask":
            from pipeline.commands import ask

            return ask.run
        from pipeline.commands import find

        return find.run

    def _engine(self, task: str, settings: AskSettings | FindSettings) -> _WarmEngine:
        """The engine for these settings: one that is there, or a new one in its place."""
        from pipeline.engine import Engine

        settings = with_whole_paths(settings, self._bank, os.getcwd())
        if any(one.identity != identity(self._bank) for one in self._engines.values()):
            self.drop()  # the bank was deleted, or another one is in its place
        for warm in self._engines.values():
            engine = warm.engine
            own = (
                engine.settings if isinstance(settings, IngestSettings) else engine.search_settings
            )
            if parts_of(own) == parts_of(settings):
                self._engines[task] = warm
                return warm
        old = self._engines.pop(task, None)
        if old is not None and old not in self._engines.values():
            old.engine.close()
        warm = _WarmEngine(Engine.of(settings), identity(self._bank))
        self._engines[task] = warm
        return warm


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def identity(bank: str) -> Identity:
    """Device and number of a bank's manifest; None without a bank."""
    try:
        about = os.stat(os.path.join(bank, "bank.json"))
    except OSError:
        return None
    return about.st_dev, about.st_ino
