"""Notices leave the process: real HTTP servers, a real MQTT broker, real programs."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.alerts.alert import AlertState
from pipeline.alerts.alert_store import AlertStore, Delivery
from pipeline.alerts.notice_events import notice_events
from pipeline.alerts.notifiers.command import Command
from pipeline.alerts.notifiers.mqtt import Mqtt
from pipeline.alerts.notifiers.webhook import Webhook
from pipeline.alerts.outbox import DEAD_LETTERS, Outbox, Patience
from pipeline.alerts.schema import Decision, DeliveryError, Notice
from tests.support.stub_alerts import notice

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef").decode()
QUICK = Patience(first_s=0.05, longest_s=0.1, expires_s=60)


class Receiver(ThreadingHTTPServer):
    """Answers with these statuses in turn, then 200; None: never."""

    daemon_threads = True

    def __init__(self, *statuses: int | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses, self.posts = list(statuses), list[tuple[dict[str, str], bytes]]()
        self.ends = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posts.append(({k.lower(): v for k, v in self.headers.items()}, body))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status is None:
            self.server.ends.wait(20)
            return
        self.send_response(status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def receiver(*statuses: int | None) -> Iterator[Receiver]:
    server = Receiver(*statuses)
    try:
        yield server
    finally:
        server.ends.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELBANK_WEBHOOK_SECRET", SECRET)


def put(store: AlertStore, one: Notice, *names: str) -> int:
    decision = Decision(3.0, "change", 0.9, True, "told")
    return store.record(store.add("cam", "it"), decision, None, AlertState(), one, names)


def wait_until(is_so, timeout: float = 20.0) -> None:
    until = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_webhook_is_signed_and_tried_until_it_takes_the_notice(tmp_path: Path, caplog):
    store = AlertStore(tmp_path / "alerts")
    with receiver(500, 503) as server:
        put(store, notice("n1"), "hook")
        outbox = Outbox(store, {"hook": Webhook(url=server.url, timeout_s=5)}, QUICK)
        wait_until(lambda: store.waiting("hook") == 0)
        outbox.close()
    assert len(server.posts) == 3 and len({body for _, body in server.posts}) == 1
    headers, body = server.posts[-1]
    signed = f"n1.{headers['webhook-timestamp']}.".encode() + body
    code = hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(code).decode()
    assert headers["webhook-id"] == "n1" and json.loads(body)["request"] == "it"
    said = [record.getMessage() for record in caplog.records]
    assert [text.count("answers 50") for text in said] == [1, 1]  # one for each reason
    assert not any("secret" in text for text in said) and "127.0.0.1" in said[0]


def test_a_webhook_that_never_answers_holds_up_nothing_else(tmp_path: Path, caplog):
    """The other place gets its notices, and a new process delivers what waited."""
    caplog.set_level(logging.WARNING)
    store = AlertStore(tmp_path / "alerts")
    out = tmp_path / "out"
    line = (
        f'{sys.executable} -c \'import sys; open("{out}", "a").write(sys.stdin.read() + chr(10))\''
    )
    with receiver(*[None] * 50) as server:
        hook = Webhook(url=server.url, timeout_s=0.5)
        outbox = Outbox(store, {"hook": hook, "program": Command(line=line)}, QUICK)
        for name in ("n1", "n2"):
            put(store, notice(name), "hook", "program")
            outbox.wake()
        wait_until(lambda: store.waiting("program") == 0 and "gives no answer" in caplog.text)
        assert [json.loads(each)["id"] for each in out.read_text().splitlines()] == ["n1", "n2"]
        assert store.waiting("hook") == 2 and outbox.problems["hook"]
        began = time.monotonic()
        outbox.close()
        store.close()
        assert time.monotonic() - began < 3
    assert caplog.text.count("gives no answer in 0.5 s; is tried again") == 1
    again = AlertStore(tmp_path / "alerts")
    with receiver() as server:
        outbox = Outbox(again, {"hook": Webhook(url=server.url)}, QUICK)
        wait_until(lambda: again.waiting("hook") == 0)
        outbox.close()
    assert [headers["webhook-id"] for headers, _ in server.posts] == ["n1", "n2"]


def test_what_is_refused_for_good_or_too_old_is_in_the_dead_letter_file(tmp_path: Path):
    store = AlertStore(tmp_path / "alerts")
    with receiver(410) as server:
        put(store, notice("n1"), "hook", "gone")
        gone = Webhook(url="http://127.0.0.1:9/x", timeout_s=1)
        brief = Patience(first_s=0.05, longest_s=0.1, expires_s=0.5)
        outboxes = [
            Outbox(store, {"hook": Webhook(url=server.url)}, QUICK),
            Outbox(store, {"gone": gone}, brief),
        ]
        wait_until(lambda: store.waiting("hook") + store.waiting("gone") == 0)
        for outbox in outboxes:
            outbox.close()
    rows = [json.loads(line) for line in (store.folder / DEAD_LETTERS).read_text().splitlines()]
    old, refused = sorted(rows, key=lambda row: row["notifier"])
    assert [(row["notifier"], row["notice"]["id"]) for row in (old, refused)] == [
        ("gone", "n1"),
        ("hook", "n1"),
    ]
    assert refused["problem"] == "answers 410" and refused["tries"] == 1
    assert old["problem"].startswith("cannot be reached") and old["tries"] >= 2
    assert "secret" not in json.dumps(rows)


def test_a_broker_gets_the_notice_and_one_that_is_gone_is_told_in_a_sentence(tmp_path: Path):
    pytest.importorskip("amqtt")
    from amqtt.broker import Broker
    from amqtt.client import MQTTClient

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mqtt = Mqtt(host="127.0.0.1", port=port, topic="house/door", timeout_s=5)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        mqtt.send(notice())

    async def deliver() -> bytes:
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                },
            }
        )
        await broker.start()
        try:
            client = MQTTClient()
            await client.connect(f"mqtt://127.0.0.1:{port}/")
            await client.subscribe([("house/#", 1)])
            await asyncio.to_thread(mqtt.send, notice("n7"))
            message = await client.deliver_message(10)
            await client.disconnect()
            assert message is not None
            return bytes(message.data)
        finally:
            await broker.shutdown()

    assert json.loads(asyncio.run(deliver()))["id"] == "n7"


def test_a_program_that_fails_or_hangs_is_told():
    with pytest.raises(DeliveryError, match=r"ends with 3 \(no lamp\)"):
        Command(line="sh -c 'echo no lamp >&2; exit 3'").send(notice())
    began = time.monotonic()
    with pytest.raises(DeliveryError, match=r"does not end in 0\.3 s"):
        Command(line="sleep 30", timeout_s=0.3).send(notice())
    assert time.monotonic() - began < 10


class Notes:
    """A notifier that keeps what it gets."""

    address = "here"

    def __init__(self) -> None:
        self.ids: list[str] = []

    def send(self, one: Notice) -> None:
        self.ids.append(one.id)


class UnluckyStore(AlertStore):
    """The first look fails; a notice comes right behind the second one, which finds nothing."""

    outbox: Outbox
    looks = 0

    def next_delivery(self, notifier: str) -> Delivery | None:
        self.looks += 1
        if self.looks == 1:
            raise sqlite3.OperationalError("database or disk is full")
        found = super().next_delivery(notifier)
        if self.looks == 2:
            assert found is None
            put(self, notice("n1"), "notes")
            self.outbox.wake()
        return found


def test_a_look_that_fails_or_comes_too_early_holds_up_no_notice(tmp_path: Path, caplog):
    store, notes = UnluckyStore(tmp_path / "alerts"), Notes()
    store.outbox = Outbox(store, {"notes": notes}, Patience(first_s=0.2))
    wait_until(lambda: notes.ids == ["n1"], 10)
    store.outbox.close()
    assert "disk is full" in caplog.text


def test_events_go_on_where_a_client_stopped_reading(tmp_path: Path):
    store = AlertStore(tmp_path / "alerts")
    for name in ("n1", "n2", "n3"):
        put(store, notice(name))

    async def read(after: int | None, count: int) -> list[str]:
        async def has_gone() -> bool:
            return False

        events = notice_events(store, after, has_gone)
        assert (await anext(events)).startswith("retry:")
        pieces = []
        if after is None:
            asyncio.get_running_loop().call_later(0.1, put, store, notice("n4"))
        for _ in range(count):
            pieces.append(await anext(events))
        await events.aclose()
        return pieces

    behind = asyncio.run(read(1, 2))
    assert [piece.splitlines()[0] for piece in behind] == ["id: 2", "id: 3"]
    assert json.loads(behind[0].splitlines()[2].removeprefix("data: "))["id"] == "n2"
    (new,) = asyncio.run(read(None, 1))
    assert new.startswith("id: 4\nevent: alert\n")


def test_a_notice_remembers_its_bank_also_in_a_file_of_an_earlier_version(tmp_path: Path):
    store = AlertStore(tmp_path / "alerts")
    put(store, notice("n1"))
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "alerts" / "alerts.sqlite")) as file:
        file.execute("ALTER TABLE notices DROP COLUMN bank")
    store = AlertStore(tmp_path / "alerts")
    put(store, replace(notice("n2"), bank="/films"), "notes")
    assert [one.bank for one in store.notices()] == ["", "/films"]
    delivery = store.next_delivery("notes")
    assert delivery is not None and delivery.notice.bank == "/films"
    assert "/films" not in json.dumps(delivery.notice.body)  # which leaves the process
