"""Alerts on a running stream, with the embedded model; tests/measure/alerts.py makes the table."""

import json
import time
from dataclasses import replace

import pytest

from encoders.errors import UserError
from encoders.models.clip import NoFrameEmbedder
from pipeline.alerts.alert import Alert
from pipeline.alerts.alert_center import AlertCenter
from pipeline.alerts.alert_watcher import AlertWatcher
from pipeline.alerts.attachments import Attachments
from pipeline.alerts.check import check_for
from pipeline.alerts.notifiers.command import Command
from pipeline.alerts.schema import AlertRule
from pipeline.alerts.triggers import Gate, ModelProbability
from pipeline.answer.answerer import Answerer
from pipeline.live.session import Session
from pipeline.server.streams.picture_shelf import PictureShelf
from tests.support.sessions import feed, pushed, wait_until_seen, world


def test_it_is_told_once_soon_and_every_decision_is_logged(embedded, tmp_path):
    paint = world("shape:blue circle@3", "shape:red star@6", "shape:red star@14")
    with embedded(tmp_path / "bank") as qa:
        source, told = pushed(qa), []
        with Session(qa, source) as session:
            watcher = AlertWatcher(
                session, lambda alert, decision: told.append((alert.request, decision.time))
            )
            star, cross = (
                Alert(session, text, check_for(text, "needle_world"))
                for text in (
                    "Tell me when a red star appears",
                    "Tell me when a green cross appears",
                )
            )
            watcher.add(star)
            watcher.add(cross)
            for second in range(18):  # the requests look at each frame as it comes
                feed(source, paint, second, second + 1)
                wait_until_seen(session, second)
            watcher.close()
    # twice shown, each for two frames, and told once each
    assert [text for text, _ in told] == [star.request] * 2
    assert 6 <= told[0][1] <= 9 and 14 <= told[1][1] <= 17
    for alert in (star, cross):
        assert [d.time for d in alert.log] == [float(second) for second in range(18)]
        assert all(
            (d.score is None) == (not d.gate) and (not d.notifies or d.score > 0.6)
            for d in alert.log
        )
    assert any(not d.gate for d in cross.log)  # the gate spares the model some frames


@pytest.mark.slow  # seconds of CPU
def test_the_models_probability_of_frames_alone_is_a_trigger_too(embedded, tmp_path):
    paint = world("shape:red star@9")
    with embedded(tmp_path / "bank") as qa, Session(qa, pushed(qa)) as session:
        watcher = AlertWatcher(session)
        check = check_for("a red star", "needle_world")
        alert = Alert(session, "a red star", check, trigger=ModelProbability())
        watcher.add(alert)
        feed(session.source, paint, 0, 14)
        wait_until_seen(session, 13)
        watcher.close()
    (told,) = [one for one in alert.log if one.notifies]
    assert told.gate == "probability" and 9 <= told.time <= 11
    assert sum(one.gate == "probability" for one in alert.log) <= 5


@pytest.mark.parametrize(
    "strategy", ["retrieve", pytest.param("map_reduce", marks=pytest.mark.slow)]
)
def test_the_strategy_of_the_run_answers_and_the_log_has_its_trace(embedded, tmp_path, strategy):
    paint = world("shape:red star@3")
    with embedded(tmp_path / "bank", f"answer={strategy}") as qa:
        source = pushed(qa)
        with Session(qa, source) as session:
            alert = Alert(session, "a red star", check_for("a red star", "needle_world"))
            watcher = AlertWatcher(session, lambda alert, decision: None)
            watcher.add(alert)
            for second in range(8):
                feed(source, paint, second, second + 1)
                wait_until_seen(session, second)
            watcher.close()
    checks = [one for one in alert.log if one.score is not None]
    assert checks and all(one.trace.strategy == strategy and one.trace.calls for one in checks)
    assert [one.notifies for one in alert.log].count(True) == 1


@pytest.mark.slow  # seconds of CPU
def test_without_a_frame_embedder_it_is_said_once_and_the_clock_is_the_gate(
    embedded, tmp_path, caplog
):
    paint = world("shape:red star@3")
    with embedded(tmp_path / "bank", "retriever=kv") as qa:
        qa = replace(qa, ingester=replace(qa.ingester, clip=NoFrameEmbedder()))
        with Session(qa, pushed(qa)) as session:
            watcher = AlertWatcher(session, lambda alert, decision: None)
            for text in ("Tell me when a red star appears", "Tell me when a code appears"):
                watcher.add(Alert(session, text, check_for(text, "needle_world")))
            feed(session.source, paint, 0, 30)
            wait_until_seen(session, 29)
            watcher.close()
        late = [d for d in watcher.alerts[1].log if d.time > 10]
    said = [record.getMessage() for record in caplog.records if "alerts look" in record.message]
    assert len(said) == 1 and "by the clock" in said[0] and "clip=b32" in said[0]
    assert {d.gate for d in late} == {"", "time"}


def test_a_check_reads_the_words_of_its_seconds(embedded, tmp_path, monkeypatch):
    """What is said in the window reaches the model, as it does for any other question."""
    asked = []
    with embedded(tmp_path / "bank") as qa, Session(qa, pushed(qa)) as session:
        feed(session.source, world("shape:red star@3"), 0, 6)
        wait_until_seen(session, 5)
        ask = Answerer.ask

        def watched(self, question, **options):
            asked.append(question)
            return ask(self, question, **options)

        monkeypatch.setattr(Answerer, "ask", watched)
        text = "Tell me when a red star appears"
        alert = Alert(session, text, check_for(text, "needle_world"))
        decision = alert.observe(5.0, qa.ingester.clip.embed_text(text))
    assert decision.score is not None and decision.score > 0.5
    # the window, then single frames from the newest back, until one shows the star alone
    assert [question.asked_at for question in asked][:2] == [5.0, 5.0]
    assert alert.state.present_at == asked[-1].asked_at <= 5.0


def test_requests_become_questions_that_the_model_knows():
    assert (
        check_for("tell me when a red star appears", "needle_world").question
        == "What shape is red?"
    )
    assert check_for("tell me when a red star appears", "needle_world").yes == ("star",)
    assert check_for("is there any heart?", "needle_world").question == "What color is the heart?"
    assert check_for("a code", "needle_world").yes == ()
    assert check_for("the name alice", "needle_world").yes == ("Alice",)
    assert check_for("when someone opens the door", None).yes[0] == "yes"
    with pytest.raises(UserError, match="does not know"):
        check_for("when someone opens the door", "needle_world")
    with pytest.raises(UserError, match="is empty"):
        check_for(" ", None)


@pytest.mark.slow  # seconds of CPU
def test_a_new_process_goes_on_with_alerts_and_notifies_no_event_twice(embedded, tmp_path):
    """A program gets the notice with its picture; the event that goes on is told once."""
    paint = world(*(f"shape:red star@{at}" for at in (3, 5, 12)))  # from 3 to 7, and at 12
    out = tmp_path / "out"
    out.mkdir()
    line = f"sh -c 'cat > {out}/$REELBANK_NOTICE; cp $REELBANK_PICTURE $REELBANK_CLIP {out}'"

    def center() -> AlertCenter:
        return AlertCenter(
            tmp_path / "alerts",
            new_trigger=Gate,
            rule=AlertRule(),
            notifiers={"program": Command(line=line)},
        )

    jpegs = PictureShelf()
    for first, stop in ((0, 5), (5, 15)):
        with embedded(tmp_path / "bank") as qa, Session(qa, pushed(qa)) as session:
            alerts = center()
            own = alerts.watch(session, Attachments(lambda at: jpegs.at("door", at)), title="door")
            if not first:
                own.add(" Tell me when a red star appears ")
            assert list(own.requests.values()) == ["Tell me when a red star appears"]
            for second in range(first, stop):
                jpegs.keep("door", paint(float(second)), float(second))
                feed(session.source, paint, second, second + 1)
                wait_until_seen(session, second)
            own._watcher.close()
            rows = alerts.store.decisions(1)
            until = time.monotonic() + 20
            while alerts.store.waiting("program"):
                assert time.monotonic() < until
                time.sleep(0.02)
            own.is_closed = True
            alerts.close()
    bodies = [json.loads(path.read_text()) for path in out.iterdir() if not path.suffix]
    bodies.sort(key=lambda body: body["time"])
    assert [3 <= body["time"] <= 4 for body in bodies] == [True, False]
    assert 12 <= bodies[1]["time"] <= 14 and bodies[1]["stream"] == "door"
    assert bodies[1]["at"] is not None and bodies[0]["id"] != bodies[1]["id"]
    assert {path.suffix for path in out.iterdir()} == {"", ".jpg", ".webp"}
    assert [row["time"] for row in rows] == [float(second) for second in range(15)]
    checks = [row for row in rows if row["score"] is not None]
    assert all(row["trace"]["strategy"] == "retrieve" for row in checks)
