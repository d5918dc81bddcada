"""The streams of a server without HTTP: names, alerts, and who waits for whom."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from encoders.errors import UserError
from encoders.sources.live.push_source import PushSource
from memory.storage.manifest import BankBusyError, WriterLock
from pipeline.alerts.alert_center import AlertCenter
from pipeline.alerts.schema import AlertRule
from pipeline.alerts.triggers import Gate
from pipeline.build import build_qa
from pipeline.config.compose import compose
from pipeline.qa import VideoQA
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import StreamSettings
from pipeline.server.streams.words.stream_words import StreamWords
from tests.support.sessions import pushed


class SlowSource(PushSource):
    """Takes its time to end."""

    def __init__(self, name: str, may_end: threading.Event) -> None:
        super().__init__(name, 1.0, width=56, height=56)
        self._may_end = may_end

    def close(self) -> None:
        self._may_end.wait(20)
        super().close()


def wait_until(is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.01)


@contextmanager
def streams_of(qa: VideoQA, folder: Path, **parts: object) -> Iterator[StreamSet]:
    """An empty set of streams; parts: in place of those of the test."""
    own = {
        "open_bank": lambda bank, fps: qa,
        "new_source": lambda settings, fps, words: pushed(qa, settings.name),
        "new_alerts": lambda: AlertCenter(
            folder / "alerts", new_trigger=Gate, rule=AlertRule(), notifiers={}
        ),
        "path": folder / "streams.json",
    }
    streams = StreamSet(qa, **(own | parts))  # type: ignore[arg-type]
    try:
        yield streams
    finally:
        streams.close()


def settings(name: str = "door", **more: object) -> StreamSettings:
    return StreamSettings(name=name, url="camera:0", **more)  # type: ignore[arg-type]


def test_a_name_is_taken_until_its_stream_has_ended(embedded, tmp_path: Path):
    """Otherwise two sessions would write the same video."""
    may_end = threading.Event()
    with (
        embedded(tmp_path / "bank") as qa,
        streams_of(
            qa, tmp_path, new_source=lambda own, fps, words: SlowSource(own.name, may_end)
        ) as streams,
    ):
        first = streams.add(settings())
        wait_until(lambda: first.state()["alerts"] == {})
        removing = threading.Thread(target=streams.remove, args=("door",))
        removing.start()
        wait_until(lambda: first.state()["state"] == "stopped")
        with pytest.raises(UserError, match="There is a stream door already"):
            streams.add(settings())
        may_end.set()
        removing.join(20)
        assert not streams.streams and json.loads((tmp_path / "streams.json").read_text()) == {
            "streams": []
        }
        assert streams.add(settings()) is not first
        with pytest.raises(KeyError):
            streams.remove("yard")


def test_a_name_that_a_client_took_is_told_of_when_the_server_starts(embedded, tmp_path: Path):
    kept = tmp_path / "streams.json"
    kept.write_text(json.dumps({"streams": [{"name": "door", "url": "camera:0"}]}))
    with (
        embedded(tmp_path / "bank") as qa,
        pytest.raises(UserError, match=r"started a stream door, which .*streams\.json keeps"),
        streams_of(qa, tmp_path, own=[settings()]),
    ):
        pass
    assert json.loads(kept.read_text())["streams"]  # nothing is lost


def test_nobody_who_reads_the_streams_waits_for_a_bank_that_opens(embedded, tmp_path: Path):
    opening, may_open = threading.Event(), threading.Event()
    with embedded(tmp_path / "bank") as qa:

        def open_bank(bank: str, fps: float) -> VideoQA:
            opening.set()
            may_open.wait(20)
            raise UserError("It is none.")

        def start() -> None:
            with pytest.raises(UserError, match="It is none"):
                streams.add(settings("yard", bank=str(tmp_path / "yard")))

        with streams_of(qa, tmp_path, open_bank=open_bank) as streams:
            starting = threading.Thread(target=start)
            starting.start()
            assert opening.wait(20)
            began = time.monotonic()
            assert streams.streams == {}
            assert time.monotonic() - began < 5
            may_open.set()
            starting.join(20)


def test_alerts_of_the_settings_are_checked_at_once_and_come_but_once(embedded, tmp_path: Path):
    """One that cannot be is refused; one that a client removed stays away in the next session and
    in the next process."""
    ends = threading.Event()

    def new_source(own: StreamSettings, fps: float, words: StreamWords | None) -> PushSource:
        source = pushed(qa, own.name)
        if not ends.is_set():
            source._fail(UserError("the camera is off"))
        return source

    with embedded(tmp_path / "bank") as qa:
        with streams_of(qa, tmp_path, new_source=new_source) as streams:
            with pytest.raises(UserError, match="does not know what"):
                streams.add(settings(alerts=["when a dog barks"]))
            stream = streams.add(settings(alerts=["a red star", "a code"]))
            wait_until(lambda: list(stream.state()["alerts"].values()) == ["a red star", "a code"])
            wait_until(lambda: stream.state()["error"] == "the camera is off")
            assert stream.alerts.remove_number(1)  # between two sessions
            assert not stream.alerts.remove_number(1)
            ends.set()
            wait_until(lambda: stream.restarts > 0 and not stream.alerts.is_closed)
            assert stream.state()["alerts"] == {2: "a code"}
        with streams_of(qa, tmp_path, new_source=new_source) as streams:
            wait_until(lambda: streams.stream("door").state()["alerts"] == {2: "a code"})


def is_written(bank: Path) -> bool:
    """Whether somebody has the right to write a bank."""
    try:
        WriterLock(bank).release()
    except BankBusyError:
        return True
    return False


def test_a_bank_is_open_while_a_stream_or_a_request_uses_it(embedded, tmp_path: Path):
    """Afterwards another process can write it, and a further stream opens it again."""
    yard = tmp_path / "yard"
    opened: list[VideoQA] = []
    with embedded(tmp_path / "bank") as qa:

        def open_bank(bank: str, fps: float) -> VideoQA:
            opened.append(
                build_qa(compose("ask", ["video=x", "question=x", f"bank={bank}"]), qa.backbone)
            )
            return opened[-1]

        with streams_of(qa, tmp_path, open_bank=open_bank) as streams:
            own = streams.add(settings())
            first = streams.add(settings("first", bank=str(yard)))
            second = streams.add(settings("second", bank=str(yard)))
            assert len(opened) == 1
            wait_until(lambda: is_written(yard))
            let_go = streams.hold(first)
            with pytest.raises(UserError, match="has fps=9"):  # takes nothing with it
                streams.add(settings("third", bank=str(yard), fps=9))
            streams.remove("first")
            streams.remove("second")
            assert opened[0].bank.catalog.videos() and is_written(yard)  # a request reads on
            let_go()
            assert not is_written(yard)
            with pytest.raises(UserError, match="closed database"):
                opened[0].bank.catalog.videos()
            for gone in (first, second):
                with pytest.raises(KeyError):
                    streams.hold(gone)
            again = streams.add(settings("second", bank=str(yard)))
            assert len(opened) == 2
            with pytest.raises(KeyError):  # of the bank that was closed
                streams.hold(second)
            streams.hold(again)()
            wait_until(lambda: is_written(yard))
            streams.remove("second")
            assert not is_written(yard)
            with pytest.raises(UserError, match="has fps=9"):
                streams.add(settings("third", bank=str(yard), fps=9))
            assert len(opened) == 3 and not is_written(yard)
            streams.hold(own)()
            streams.remove("door")
            assert qa.bank.catalog.videos()  # the server's stays open
