"""Events of alerts without a model: one notice each, whatever the trigger is; and the triggers."""

import inspect

import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from encoders.errors import UserError
from pipeline.alerts.alert import AlertState
from pipeline.alerts.alert_center import build_notifiers
from pipeline.alerts.schema import Trigger, WatchedFrame
from pipeline.alerts.triggers import Boundary, EveryN, Gate, ModelProbability
from pipeline.config.compose import compose
from pipeline.config.parts import call, check, instantiate
from tests.support.paths import ROOT
from tests.support.stub_alerts import ROW, StubAlert, StubTrigger

SECONDS = 120
TRIGGERS = sorted(path.stem for path in (ROOT / "conf/trigger").glob("*.yaml"))


@st.composite
def events(draw) -> list[tuple[float, float]]:
    """Events with pauses of which each has a check that reads nothing else."""
    spans, at = [], draw(st.integers(0, 20))
    while at < SECONDS:
        end = at + draw(st.integers(1, 30))
        spans.append((float(at), float(end)))
        at = end + draw(st.integers(8, 30))
    return spans


@settings(max_examples=60, deadline=None)
@example([(0.0, 1.0), (9.0, 10.0), (18.0, 30.0)], {18, 14})  # found late, and another one soon
@example([(9.0, 10.0), (18.0, 30.0)], {17, 18})
@given(events(), st.sets(st.integers(0, SECONDS - 1)))
def test_an_event_notifies_once_whatever_the_trigger_does(spans, moments):
    alert = StubAlert(spans, StubTrigger(lambda time: time in moments))
    told = [one.time for time in range(SECONDS) if (one := alert.observe(time, ROW)).notifies]
    for start, end in spans:
        inside = [at for at in told if start <= at < end + 8]  # a check reads 8 s
        assert len(inside) <= 1
        opened = any(start <= at < end for at in moments)
        assert not opened or len(inside) == 1
    assert len(alert.log) == SECONDS and len(told) <= len(spans)


@pytest.mark.parametrize("killed_at", [12, 16, 21, 24, 40])
def test_a_new_process_goes_on_in_the_middle_of_an_event(killed_at: int):
    spans = [(10.0, 20.0), (35.0, 38.0)]
    first = StubAlert(spans, StubTrigger(lambda time: True))
    told = [time for time in range(killed_at) if first.observe(time, ROW).notifies]
    state = AlertState.of(first.state.to_dict())
    second = StubAlert(spans, StubTrigger(lambda time: True), state=state)
    told += [time for time in range(killed_at, 60) if second.observe(time, ROW).notifies]
    assert told == [10, 35]


def test_a_long_event_is_followed_ever_more_rarely():
    alert = StubAlert([(10.0, 3600.0)], StubTrigger(lambda time: time == 10))
    for time in range(3000):
        alert.observe(time, ROW)
    assert 900 < len(alert.reads) < 1020  # a check every three seconds, of one frame
    assert all(since == until for since, until in alert.reads[1:])


def frame(time: float, row: list[float], since_check: float = 1.0, likely: float = 0.0):
    return WatchedFrame(time, torch.tensor(row), ROW, since_check, lambda: likely)


def test_what_each_trigger_fires_at():
    boundary, gate = Boundary(warm_up=2), Gate(warm_up=2, seconds=100)
    for time in range(10):
        boundary.fires(frame(time, [0.0, 1.0]))
        gate.fires(frame(time, [0.0, 1.0]))
    assert boundary.fires(frame(10, [0.0, 1.0])) == "" == gate.fires(frame(10, [0.0, 1.0]))
    assert boundary.fires(frame(11, [1.0, 0.0])) == "change" == gate.fires(frame(11, [1.0, 0.0]))
    slowly = Gate(warm_up=2, spread=3.0, seconds=100)
    for time in range(10):
        slowly.fires(frame(time, [0.0, 1.0]))
    assert Gate(warm_up=0, seconds=8).fires(frame(0, [0.0, -1.0], since_check=9)) != ""
    every = EveryN(seconds=8)
    assert every.fires(frame(1, [0.0, 1.0], 7.9)) == "" and every.fires(frame(2, [0.0, 1.0], 8.0))
    likely = ModelProbability(least=0.5, seconds=2)
    assert likely.fires(frame(0, [0.0, 1.0], likely=0.6)) == "probability"
    assert likely.fires(frame(1, [0.0, 1.0], likely=0.9)) == ""  # two seconds have not passed
    assert likely.fires(frame(2, [0.0, 1.0], likely=0.4)) == ""


@pytest.mark.parametrize("name", TRIGGERS)
def test_every_trigger_composes_and_has_the_one_method_of_its_role(name: str):
    node = yaml.safe_load((ROOT / f"conf/trigger/{name}.yaml").read_text())
    check("trigger", node)
    trigger: Trigger = call("trigger", instantiate("trigger", node))
    own = {each for each, _ in inspect.getmembers(type(trigger), inspect.isfunction)}
    assert {each for each in own if not each.startswith("_")} == {"fires"}
    words = [trigger.fires(frame(time, [0.0, 1.0], 100.0, 1.0)) for time in range(3)]
    assert all(isinstance(each, str) for each in words) and any(words)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("webhook", {}, "is no address; write one such as"),
        ("webhook", {"url": "https://h/x"}, "REELBANK_WEBHOOK_SECRET"),
        ("mqtt", {}, "is no broker"),
        ("mqtt", {"host": "h", "topic": "a/#"}, "takes no message"),
        ("command", {"line": "no-such-program -x"}, "names no program"),
    ],
)
def test_a_notifier_that_cannot_work_is_refused_at_once(monkeypatch, name, values, sentence):
    monkeypatch.delenv("REELBANK_WEBHOOK_SECRET", raising=False)
    nodes = yaml.safe_load((ROOT / f"conf/notify/{name}.yaml").read_text())
    with pytest.raises(UserError, match=sentence):
        build_notifiers({name: nodes[name] | values})


def test_several_notifiers_are_one_setting():
    config = compose("demo", ["notify=[webhook,mqtt]", "notify.mqtt.port=8883"])
    assert set(config.notify) == {"webhook", "mqtt"} and config.notify["mqtt"]["port"] == 8883
    assert compose("demo", ["notify=[]"]).notify == {}
