"""What stderr tells while films are encoded: in a terminal, outside one, and at the end."""

import io
import logging
import time

import pytest
from rich.console import Console

from encoders.schema import VideoInfo
from pipeline.commands.output import encoding_messages
from pipeline.commands.output.encoding_messages import EncodingMessages
from pipeline.config.compose import compose
from pipeline.config.units import format_duration, format_size

INFO = VideoInfo("id", "/films/talk.mp4", 100.0, "shown:pyav")


def encode(messages: str, *, begin: float = 0.0) -> EncodingMessages:
    """A film of 100 s, in four steps."""
    settings = compose("ingest", [f"messages={messages}", "bank=films"])
    own = EncodingMessages(settings)
    with own(INFO) as report:
        report(begin, 0)
        time.sleep(0.05)
        for second in (25.0, 50.0, 75.0, 100.0):
            report(second, round(1e6 * second))
    return own


def test_the_summary_counts_what_this_pass_encoded(capfd):
    encode("summary", begin=20.0).suggest("ask", "talk.mp4", "What's up?")
    out, err = capfd.readouterr()
    first, second = err.splitlines()
    assert out == "" and first.startswith("talk.mp4: 1.3 min in 0.1 s, ")
    assert first.endswith("x real time, 100 MB")
    assert second == """next: reelbank ask talk.mp4 'What'"'"'s up?' --bank films"""


@pytest.mark.parametrize("messages", ["none", "progress"])
def test_nothing_is_told_where_nobody_wants_it(capfd, messages):
    encode(messages).suggest("ask", "talk.mp4", "x")
    assert capfd.readouterr() == ("", "")


def test_words_that_are_extracted_are_told_unless_nobody_wants_it(caplog):
    log = logging.getLogger("pipeline.ingest.text")
    for messages, told in (("progress", 1), ("none", 0), ("summary", 1)):
        caplog.clear()
        with EncodingMessages(compose("ingest", [f"messages={messages}"]))(INFO):
            log.warning("words")
        assert len(caplog.records) == told


def test_nothing_is_suggested_where_nothing_was_encoded(capfd):
    EncodingMessages(compose("ingest", ["messages=summary"])).suggest("ask", "talk.mp4", "x")
    assert capfd.readouterr() == ("", "")


def test_outside_a_terminal_a_line_now_and_then_has_the_time_left(capfd, monkeypatch):
    monkeypatch.setattr(encoding_messages, "_INTERVAL", 0.0)
    encode("progress")
    lines = capfd.readouterr().err.splitlines()
    assert lines[1].startswith("encoding talk.mp4: 00:25 / 01:40, ") and lines[1].endswith(" left")
    assert "25 MB, 0." in lines[1] and lines[-1].endswith("100 MB, 0.0 s left")


def test_the_bar_of_a_terminal_has_the_time_left(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console",
        lambda **_: Console(file=screen, force_terminal=True, width=120),
    )
    encode("progress")
    assert "encoding talk.mp4" in screen.getvalue() and " left" in screen.getvalue()
    assert "100%" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (12.3, "12 s"), (162, "2.7 min"), (16236, "4.51 h"), (90000, "25.0 h")],
)
def test_lengths_of_time(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"), [(3e5, "0.3 MB"), (1.1e7, "11 MB"), (1.44e9, "1.4 GB"), (2.5e10, "25 GB")]
)
def test_sizes(nbytes, text):
    assert format_size(nbytes) == text
