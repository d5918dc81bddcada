"""The settings of the two tasks that an engine does, with the same bank and the same parts."""

import threading
from typing import TypeVar

from pipeline.config.compose import compose
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.config.tasks.question_settings import FindSettings

# settings that the tasks `ask` and `find` share; the others of each are its own
_SHARED = ("bank", "also_banks", "fps", "clip", "further_clips", "dense", "text", "backbone")

Kind = TypeVar("Kind", IngestSettings, FindSettings)


class EngineSettings:
    """Settings of encoder and answers, and of searches. Threads: any."""

    def __init__(self, asking: IngestSettings | None, finding: FindSettings | None) -> None:
        """asking, finding: at least one of them. The other one is composed when it is needed."""
        assert asking is not None or finding is not None
        self._asking, self._finding = asking, finding
        self._lock = threading.RLock()

    @property
    def roots(self) -> list[str]:
        """Folders of the banks."""
        settings = self._asking or self._finding
        assert settings is not None
        return [settings.bank, *settings.also_banks]

    @property
    def bank(self) -> str:
        """Folder of the bank; of several, all of them."""
        return ", ".join(self.roots)

    @property
    def asking(self) -> IngestSettings:
        """The settings of encoder and answers."""
        with self._lock:
            if self._asking is None:
                self._asking = _with_parts(compose("ingest", []), self._finding)
            return self._asking

    @property
    def finding(self) -> FindSettings:
        """The settings of searches."""
        with self._lock:
            if self._finding is None:
                self._finding = _with_parts(compose("find", []), self._asking)
            return self._finding


def _with_parts(own: Kind, other: IngestSettings | FindSettings | None) -> Kind:
    """The settings with the bank and the parts of another task."""
    values = {name: getattr(other, name) for name in _SHARED}
    # a search has a default of its own for dense=, which says nothing of how films are encoded
    if not values["dense"] or isinstance(own, FindSettings):
        del values["dense"]
    return own.changed(**{name: value for name, value in values.items() if value is not None})
