"""`reelbank serve` with streams: real senders over TCP, the embedded model, real HTTP."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline.server.access.key import RIGHTS, new_key
from pipeline.server.access.key_file import KeyFile
from pipeline.server.app import Service
from tests.support.serving import film, serving
from tests.support.streams import HlsSender, RtspSender, Sender
from tests.support.toys import toy_parts
from tests.support.watching import asked, is_sealed, killed_server, looped, state, stored, until


def refused(response: httpx.Response, status: int, *words: str) -> None:
    message = response.json()["error"]["message"]
    assert response.status_code == status and "\n" not in message, response.text
    assert all(word in message for word in words), message


@pytest.mark.slow
def test_what_cannot_be_watched_is_told_and_the_rest_goes_on(tmp_path: Path):
    """A stream that breaks, or that never was one, is one stream's matter."""
    with (
        Sender(looped()) as sender,
        serving(tmp_path, "hosts=[127.0.0.1]", *toy_parts()) as (address, service),
    ):
        url = f"{address}/v1/streams"

        def start(**more: object) -> httpx.Response:
            return httpx.post(url, json={"name": "door", "url": sender.url} | more, timeout=60)

        assert httpx.get(url).json() == {"object": "list", "data": []}
        assert start().status_code == 201
        refused(start(), 409, "There is a stream door already")
        refused(start(name="b", url="gopher://h/x"), 400, "is no address that can be watched")
        refused(start(name="b", url="rtsp://other/x"), 400, "does not take streams from other")
        refused(start(name="b", rate=2), 400, "The stream: rate: Extra inputs", "the keys are")
        refused(start(name="b", fps=2), 400, "has fps=2", "give the stream a bank of its own")
        refused(httpx.post(url, content=b"{"), 415)
        refused(asked(address, "nobody"), 404, "There is no stream 'nobody'")
        gone = "http://127.0.0.1:9/a.m3u8"
        assert start(name="gone", url=gone).status_code == 201
        until(lambda: bool(state(address, "gone")["error"]))
        found = state(address, "gone")
        assert not found["healthy"] and found["state"] == "waiting"
        assert found["error"].startswith(f"{gone} gives no picture")
        refused(asked(address, "gone"), 409, "has given no frame yet")
        until(lambda: state(address, "door")["healthy"])
        sender.cut.set()  # the connection breaks, and the next one is taken
        seen = state(address, "door")["seen_until"]
        figures = httpx.get(f"{address}/metrics").text
        assert 'reelbank_stream_healthy{stream="gone"} 0.0' in figures
        assert 'reelbank_stream_frames_total{stream="door"}' in figures
        until(lambda: state(address, "door")["seen_until"] > seen + 2)
        assert state(address, "door")["reconnects"] >= 1
        assert [each["name"] for each in httpx.get(url).json()["data"]] == ["door", "gone"]
        assert httpx.delete(f"{url}/gone").json()["deleted"]
        refused(httpx.delete(f"{url}/gone"), 404, "no stream")
        assert httpx.get(f"{address}/health").json()["streams"] == 1
    kept = tmp_path / "bank-streams.json"
    assert [row["name"] for row in json.loads(kept.read_text())["streams"]] == ["door"]
    assert kept.stat().st_mode & 0o77 == 0
    # the sender is at another port now: as gone as a camera can be
    with serving(tmp_path, *toy_parts()) as (address, service):
        assert isinstance(service, Service) and state(address, "door")["name"] == "door"
        assert service.qa.bank.catalog.video("door") is not None
        assert service.qa.bank.check.verify() == []


@pytest.mark.slow
def test_nothing_that_is_gone_stops_the_rest(tmp_path: Path, monkeypatch, caplog):
    """A webhook that never answers, a broker that is gone, and an address that is no video: one
    sentence each, and the stream beside them is watched and told of."""
    pytest.importorskip("paho")
    monkeypatch.setenv("REELBANK_WEBHOOK_SECRET", "secret-of-the-door")
    (tmp_path / "page.html").write_text("<p>no video</p>" * 500)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    page = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    with (
        page,
        socket.create_server(("127.0.0.1", 0)) as deaf,
        socket.create_server(("127.0.0.1", 0)) as free,
        Sender(looped("shape:red star@3", "shape:red star@5", seconds=20.0)) as sender,
    ):
        broker = free.getsockname()[1]
        free.close()
        file, url = tmp_path / "streams.yaml", f"http://127.0.0.1:{page.server_address[1]}"
        file.write_text(
            f"streams:\n  door: {{url: '{sender.url}', alerts: [a red star]}}\n"
            f"  page: {{url: '{url}/page.html'}}\n"
        )
        hook = f"http://127.0.0.1:{deaf.getsockname()[1]}/hook"
        notify = (
            "notify=[webhook,mqtt]", f"notify.webhook.url={hook}", "notify.webhook.timeout_s=1",
            "notify.mqtt.host=127.0.0.1", f"notify.mqtt.port={broker}", "notify.mqtt.timeout_s=1",
        )  # fmt: skip
        with serving(tmp_path, f"streams={file}", *notify) as (address, service):
            assert isinstance(service, Service) and service.streams is not None
            store = service.streams.alerts.store
            until(lambda: min(store.waiting("webhook"), store.waiting("mqtt")) > 0, 120)
            until(lambda: "mqtt" in caplog.text and "webhook" in caplog.text, 60)
            seen = state(address, "door")["seen_until"]
            until(lambda: state(address, "door")["seen_until"] > seen + 2)
            assert state(address, "door")["healthy"]
            error = state(address, "page")["error"]
            assert error.startswith(f"{url}/page.html gives no picture (") and "\n" not in error
            assert httpx.get(f"{address}/health", timeout=30).json()["streams"] == 2
        page.shutdown()
    lines = [record.getMessage() for record in caplog.records]
    assert all("\n" not in line and "secret" not in line for line in lines)
    for name in ("webhook", "mqtt"):
        assert len([line for line in lines if f"notify={name} to" in line]) == 1, lines


@pytest.mark.slow
def test_a_key_reaches_the_streams_of_its_banks_and_no_folder(tmp_path: Path):
    """Keys of other banks, without the right, revoked, and too fast, over real HTTP."""
    own, yard = tmp_path / "bank", tmp_path / "yard"
    file = KeyFile(tmp_path / "bank-keys.json")
    headers = {}
    for name, rights, banks, rate in (
        ("boss", RIGHTS, (), 0),
        ("door", RIGHTS, (str(own),), 0),
        ("gardener", RIGHTS, (str(yard),), 0),
        ("reader", ("ask",), (), 0),
        ("slow", ("ask",), (), 6),
    ):
        key, token = new_key(name, rights, banks, rate, 0.0)
        file.add(key)
        headers[name] = {"Authorization": f"Bearer {token}"}
    with (
        Sender(looped()) as one,
        Sender(looped()) as two,
        serving(tmp_path, *toy_parts()) as (address, _),
    ):
        url = f"{address}/v1/streams"

        def start(who: str, **body: object) -> httpx.Response:
            return httpx.post(url, json=body, headers=headers[who], timeout=60)

        def get(who: str, path: str) -> httpx.Response:
            return httpx.get(f"{address}{path}", headers=headers[who], timeout=30)

        door, garden = {"name": "door", "url": one.url}, {"name": "garden", "url": two.url}
        refused(start("reader", **door), 403, "may not manage this server")
        assert start("door", **door).status_code == 201
        refused(start("door", **garden, bank=str(yard)), 403, "may not see that bank")
        refused(start("boss", **garden, bank=str(yard), fps=99), 400, "fps")
        assert start("boss", **garden, bank=str(yard)).status_code == 201
        refused(start("door", name="cam", url=f"folder:{yard}-files"), 403, "A folder may hold")
        assert start("boss", name="cam", url=f"folder:{tmp_path}/none").status_code == 201
        until(lambda: "folder:none cannot be read" in get("boss", "/v1/streams/cam").text)
        assert str(tmp_path) not in get("boss", "/v1/streams").text
        figures = get("door", "/metrics").text
        assert 'stream="door"' in figures and "garden" not in figures
        assert 'stream="garden"' in get("boss", "/metrics").text
        refused(get("gardener", "/metrics"), 403, "may not see this bank")
        refused(get("gardener", "/v1/streams/door"), 404, "no stream")
        assert [each["name"] for each in get("gardener", "/v1/streams").json()["data"]] == [
            "garden"
        ]
        for path in ("/v1/files", "/v1/files/file-x"):
            refused(get("gardener", path), 403, "may not see this bank")
        paths = ["/v1/models", "/v1/streams", "/v1/videos", "/v1/notices", "/v1/streams/door"]
        assert get("slow", paths[0]).status_code == 200  # one at once, and six a minute
        for path in paths:
            refused(get("slow", path), 429, "6 requests a minute")
        refused(httpx.post(f"{address}/v1/embeddings", headers=headers["slow"], json={}), 429)
        file.revoke("door")
        refused(get("door", "/v1/streams/door"), 401, "missing or wrong")
        refused(start("door", name="late", url=one.url), 401, "missing or wrong")
        refused(httpx.get(f"{address}/v1/" + "x" * 9000, timeout=30), 401, "missing")
    lines = (tmp_path / "bank-audit.log").read_text().splitlines()
    assert max(map(len, lines)) < 1000 and json.loads(lines[0])["key"] == "reader"


@pytest.mark.slow
def test_a_bank_that_no_stream_uses_any_more_can_be_written_by_others(tmp_path: Path):
    """Also where clients ask about its stream and look at it while it is stopped."""
    yard, clip = tmp_path / "yard", film(tmp_path / "card.mp4", "code:4821@2", seconds=8.0)
    words = ["ingest", str(clip), "--bank", str(yard)]
    command = [sys.executable, "-m", "pipeline.cli", *words]

    def ingest() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    with Sender(looped("code:4821@2")) as sender, serving(tmp_path) as (address, _):
        body = {"name": "garden", "url": sender.url, "bank": str(yard)}
        statuses: set[int] = set()
        is_over = threading.Event()

        def look(path: str) -> None:
            while not is_over.is_set():
                statuses.add(httpx.get(f"{address}/v1/videos{path}", timeout=60).status_code)

        def ask() -> None:
            while not is_over.is_set():
                statuses.add(asked(address, "garden").status_code)

        paths = ("", "/garden", "/garden/picture?at=1")
        clients = [threading.Thread(target=look, args=(path,)) for path in paths]
        clients += [threading.Thread(target=ask) for _ in range(2)]
        for round_ in range(3):
            assert httpx.post(f"{address}/v1/streams", json=body, timeout=60).status_code == 201
            until(lambda: is_sealed(address, "garden", 0))
            if round_ == 0:
                assert asked(address, "garden").status_code == 200
                busy = ingest()
                assert busy.returncode == 2 and "is being written by another" in busy.stderr
                for client in clients:
                    client.start()
            deleted = httpx.delete(f"{address}/v1/streams/garden", timeout=60)
            assert deleted.status_code == 200
        is_over.set()
        for client in clients:
            client.join(120)
        assert statuses == {200, 404} or statuses == {200, 404, 409}  # 409: no frame yet
        done = ingest()
        assert done.returncode == 0, done.stderr
    with MemoryBank.open(yard, None, UniformRetriever(), recent_frames=0, create=False) as bank:
        assert len(bank.catalog.videos()) == 2 and bank.check.verify() == []


@pytest.mark.slow
def test_streams_are_asked_about_told_of_and_taken_up_again(tmp_path: Path):
    """Two streams in two banks, one asked by HTTP and told of by an event."""
    with (
        Sender(looped("code:4821@2", "code:4821@4")) as one,
        Sender(looped("shape:red star@3", "shape:red star@5", seconds=20.0)) as two,
    ):
        file = tmp_path / "streams.yaml"
        file.write_text(
            f"streams:\n  door: {{url: '{one.url}'}}\n"
            f"  yard: {{url: '{two.url}', fps: 2, bank: {tmp_path / 'yard'},"
            " alerts: [tell me when a red star appears]}\n"
        )
        before = 0.0
        for _ in range(2):  # the second process goes on behind the last segment of the first
            with serving(tmp_path, f"streams={file}", "source.keep=jpeg") as (address, _s):
                before = watched(address, before)


def watched(address: str, before: float) -> float:
    """One process with both streams; seconds of the first stream that were seen in the end."""
    events: list[dict] = []

    def listen() -> None:
        url = f"{address}/v1/notices"
        with contextlib.suppress(httpx.HTTPError), httpx.stream("GET", url, timeout=120) as got:
            for line in got.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))

    threading.Thread(target=listen, daemon=True).start()
    until(lambda: state(address, "door")["seen_until"] > before + 10, 120)
    answer = asked(address, "door").json()
    assert answer["choices"][0]["message"]["content"].startswith("4821"), answer
    until(lambda: bool(events), 120)
    told = {(each["stream"], each["request"]) for each in events}
    assert told == {("yard", "tell me when a red star appears")}
    figures = [state(address, name) for name in ("door", "yard")]
    assert [each["fps"] for each in figures] == [1.0, 2.0]
    assert all(each["healthy"] and not each["error"] for each in figures), figures
    assert httpx.get(f"{address}/health").json()["streams"] == 2
    return float(figures[0]["seen_until"])


@pytest.mark.slow
def test_after_kill_9_every_stream_goes_on_behind_its_last_segment(tmp_path: Path):
    """Law 4 for four streams of one process, in two banks: by TCP, RTSP and HLS, at two rates, one
    of them started by a client, one with a limit of its bytes."""
    films, yard = tmp_path / "bank", tmp_path / "yard"
    (tmp_path / "hls").mkdir()
    with (
        Sender(looped("code:4821@2")) as door,
        RtspSender(looped()) as gate,
        HlsSender(looped("shape:red star@3"), tmp_path / "hls") as http,
        Sender(looped()) as client,
    ):
        file = tmp_path / "streams.yaml"
        file.write_text(
            f"streams:\n  door: {{url: '{door.url}'}}\n  gate: {{url: '{gate.url}'}}\n"
            f"  yard: {{url: '{http.url}', fps: 2, bank: {yard}, max_bytes: 300 kB}}\n"
        )
        settings = ("segmenter.seconds=2", "prefill.window_frames=4")
        before: dict[str, list[tuple]] = {}
        rng = random.Random(7)
        for number in range(4):
            with killed_server(films, f"streams={file}", *settings) as address:
                if number == 0:
                    body = {"name": "client", "url": client.url}
                    assert httpx.post(f"{address}/v1/streams", json=body).status_code == 201
                names = ("door", "gate", "yard", "client")
                ends = {name: rows[-1][2] for name, rows in before.items()}
                for name in names:
                    until(partial(is_sealed, address, name, ends.get(name, 0.0) + 1), 120)
                answer = asked(address, "door").json()["choices"][0]["message"]["content"]
                assert answer.startswith("4821")
                time.sleep(rng.uniform(0, 2))  # anywhere in the writing of a segment
                sealed = {name: state(address, name)["sealed_until"] for name in names}
            after = {name: stored(yard if name == "yard" else films, name) for name in names}
            for name, rows in after.items():
                assert rows[-1][2] > sealed[name] - 0.01, f"{name} lost an acknowledged segment"
                numbers = [row[0] for row in rows]
                assert numbers == list(range(numbers[0], numbers[-1] + 1))
                assert (numbers[0] > 0) <= (name == "yard")  # of which the beginning is pruned
                kept = [row for row in before.get(name, []) if row[0] >= numbers[0]]
                assert rows[: len(kept)] == kept, f"{name} has other bytes"
                # a segment ends an interval behind its last frame
                assert all(a[2] < b[1] + 1 for a, b in pairwise(rows)), (name, rows)
            before = after
        assert before["yard"][0][0] > 0
