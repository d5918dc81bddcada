"""The alerts of all streams of a bank: triggers, what is kept, and what brings notices out.

One object per process. Knows no HTTP and no page.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from encoders.errors import UserError
from pipeline.alerts.alert_list import AlertList
from pipeline.alerts.alert_store import AlertStore
from pipeline.alerts.attachments import Attachments
from pipeline.alerts.outbox import Outbox, Patience
from pipeline.alerts.schema import AlertRule, Notifier, Trigger
from pipeline.config.parts import PartSettings, call, check, instantiate
from pipeline.config.tasks.server_settings import AlertSettings
from pipeline.live.session import Session


class AlertCenter:
    """`alerts = center.watch(session)` for each stream."""

    def __init__(
        self,
        folder: Path,
        *,
        new_trigger: Callable[[], Trigger],
        rule: AlertRule,
        notifiers: Mapping[str, Notifier],
        patience: Patience | None = None,
    ) -> None:
        """folder: of alerts, notices and dead letters. UserError where it cannot be used."""
        self.store = AlertStore(folder)
        self.outbox = Outbox(self.store, notifiers, patience)
        self._new_trigger, self._rule = new_trigger, rule
        self._lock = threading.Lock()
        self._lists: list[AlertList] = []

    @classmethod
    def of(cls, settings: AlertSettings) -> "AlertCenter":
        """From the settings of a command. UserError on a part that does not fit."""
        trigger = instantiate("trigger", settings.trigger)
        return cls(
            Path(settings.alerts or f"{Path(settings.bank)}-alerts"),
            new_trigger=lambda: call("trigger", trigger),
            rule=AlertRule(
                settings.alert_window, settings.alert_sure, settings.alert_fair, settings.alert_rest
            ),
            notifiers=build_notifiers(settings.notify),
            patience=Patience(expires_s=settings.notify_hours * 3600),
        )

    def watch(
        self, session: Session, attachments: Attachments | None = None, *, title: str = ""
    ) -> AlertList:
        """The alerts of a stream: those that an earlier process left, and further ones. title: of
        the stream in notices; "": its address."""
        alerts = AlertList(
            session,
            self.store,
            self.outbox,
            new_trigger=self._new_trigger,
            rule=self._rule,
            attachments=attachments or Attachments(),
            title=title,
        )
        with self._lock:
            self._lists = [*(each for each in self._lists if not each.is_closed), alerts]
        return alerts

    def close(self) -> None:
        """Stop watching and delivering. What waits is delivered by the next process."""
        with self._lock:
            for each in self._lists:
                each.close()
        self.outbox.close()
        self.store.close()


def build_notifiers(nodes: dict[str, PartSettings]) -> dict[str, Notifier]:
    """The notifiers of notify=, by name. UserError on one that cannot work."""
    check("notify", nodes)
    return {name: instantiate(f"notify.{name}", node) for name, node in nodes.items()}


def check_alerts(settings: AlertSettings) -> None:
    """UserError where settings of alerts are out of range or do not fit, before a model loads."""
    check("trigger", settings.trigger)
    call("trigger", instantiate("trigger", settings.trigger))
    build_notifiers(settings.notify)
    if not 0 <= settings.alert_fair <= settings.alert_sure <= 1:
        raise UserError(
            f"alert_fair={settings.alert_fair:g} alert_sure={settings.alert_sure:g} are no two "
            "probabilities, the lower one first"
        )
    for name in ("alert_window", "alert_rest", "notify_hours"):
        if not getattr(settings, name) > 0:
            raise UserError(f"{name}={getattr(settings, name):g} is too small; use more than 0.")
