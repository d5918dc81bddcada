"""`notify=mqtt`: a notice as a message to an MQTT broker, by paho, with quality of service 1.

A connection for each notice: they are rare, and a broker that restarts is no case of its own.
"""

import json
import os
import threading

from encoders.errors import UserError
from encoders.extras import require_extra
from pipeline.alerts.schema import DeliveryError, Notice


class Mqtt:
    """One topic of one broker."""

    def __init__(
        self,
        *,
        host: str = "",
        port: int = 1883,
        topic: str = "reelbank/alerts",
        user: str = "",
        password_env: str = "REELBANK_MQTT_PASSWORD",
        tls: bool = False,
        timeout_s: float = 10.0,
    ) -> None:
        """password_env: environment variable with the password of `user`. timeout_s: for the
        connection, and for the broker's receipt. UserError without a broker, or on a topic that
        takes no message.
        """
        require_extra("alerts", "notify=mqtt")
        if not host or not 0 < port < 65536:
            raise UserError(
                f"notify.mqtt.host={host!r} notify.mqtt.port={port} is no broker; give both, such "
                "as host=192.168.1.10 port=1883"
            )
        if not topic or set(topic) & set("+#\0"):
            raise UserError(
                f"notify.mqtt.topic={topic!r} takes no message; use one such as reelbank/alerts"
            )
        self._host, self._port, self._topic, self._tls = host, port, topic, tls
        self._user, self._password_env, self._timeout_s = user, password_env, timeout_s

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}/{self._topic}"

    def send(self, notice: Notice) -> None:
        """Publish the notice and wait for the broker's receipt. DeliveryError."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        answer, refusal = threading.Event(), list[str]()

        def on_connect(_c: object, _d: object, _f: object, reason: object, _p: object) -> None:
            if getattr(reason, "is_failure", False):
                refusal.append(str(reason))
            answer.set()

        client = Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = self._timeout_s
        client.on_connect = on_connect
        if self._user:
            client.username_pw_set(self._user, os.environ.get(self._password_env))
        if self._tls:
            client.tls_set()
        try:
            client.connect(self._host, self._port)
            client.loop_start()
            if not answer.wait(self._timeout_s):
                raise DeliveryError(f"gives no answer in {self._timeout_s:g} s")
            if refusal:
                raise DeliveryError(f"refuses the connection ({refusal[0]})")
            message = client.publish(self._topic, json.dumps(notice.body), qos=1)
            message.wait_for_publish(self._timeout_s)
            if not message.is_published():
                raise DeliveryError(f"gives no receipt in {self._timeout_s:g} s")
        except (OSError, ValueError, RuntimeError) as error:
            raise DeliveryError(f"cannot be reached ({error})") from None
        finally:
            client.disconnect()
            client.loop_stop()
