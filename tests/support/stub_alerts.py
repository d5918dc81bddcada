"""Alerts without a model: what is there is said by spans of seconds."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch

from pipeline.alerts.alert import Alert, AlertState
from pipeline.alerts.schema import AlertRule, Check, Notice, Trigger

CHECK = Check("Is it there?", ("yes",), ("no",))
ROW = torch.tensor([1.0, 0.0])


class StubAlert(Alert):
    """The check says 1 where a span shows in the frames that it reads, else 0."""

    def __init__(
        self,
        spans: Sequence[tuple[float, float]],
        trigger: Trigger,
        rule: AlertRule | None = None,
        state: AlertState | None = None,
    ) -> None:
        clip = SimpleNamespace(embed_text=lambda text: ROW)
        ingester = SimpleNamespace(clip=clip, interval=1.0)
        session = SimpleNamespace(qa=SimpleNamespace(ingester=ingester))
        super().__init__(cast(Any, session), "it", CHECK, rule, trigger, state)
        self.spans, self.reads = spans, list[tuple[float, float]]()

    def _score(self, since: float, until: float) -> tuple[float, None]:
        self.reads.append((since, until))
        return float(any(a < until + 1 and b > since for a, b in self.spans)), None


class StubTrigger:
    """Fires where a function says so."""

    def __init__(self, fires: Callable[[float], bool]) -> None:
        self._fires = fires

    def fires(self, frame: Any) -> str:
        return "stub" if self._fires(frame.time) else ""


def notice(name: str = "n1") -> Notice:
    return Notice(0, {"id": name, "type": "alert", "request": "it", "time": 3.0})
