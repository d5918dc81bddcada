"""Times on the wall clock in a search: which stretch of which video they mean.

Real banks of synthetic segments.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from pipeline import cli
from pipeline.moments.finder import Finder
from pipeline.query.wall_clock import NOWHERE, resolve
from tests.support.records import info, make_segment
from tests.support.talks import SRT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

NOW = datetime(2026, 11, 21, 14, 30).timestamp()
STARTS = {  # of two sessions of 40 s each, the second at second 40 of the video
    "door": (datetime(2026, 11, 20, 10, 0), datetime(2026, 11, 20, 12, 0)),
    "night": (datetime(2026, 11, 18, 23, 59, 40), datetime(2026, 11, 19, 0, 10)),
    "talk": (None, None),
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory):
    """Three videos of 80 s that say the same; one does not know when it was."""
    with MemoryBank.open(
        tmp_path_factory.mktemp("b") / "bank", {"model": "m"}, UniformRetriever(), recent_frames=1
    ) as held:
        for video_id, sessions in STARTS.items():
            held.record_video(replace(info(video_id), duration=80.0), 1.0, finished=False)
            for number in range(20):
                begun = sessions[number // 10]
                wall = None if begun is None else begun.timestamp() + 4.0 * (number % 10)
                held.write(replace(make_segment(video_id, number, tokens=[1] * 4), wall=wall))
            lines = tuple(
                TextLine(video_id, at, at + 2, "subtitle", "bread and salt", at + 2)
                for at in range(1, 80, 10)
            )
            held.text.write(
                TextBlock(video_id, "subtitles", "made so", 0, TextSpan(0, 80, lines, True))
            )
        yield held


@pytest.mark.parametrize(
    ("question", "door", "night"),
    [
        ("bread between 10:00:10 and 10:00:20", (10, 20), None),
        ("bread at noon", (40, 80), NOWHERE),
        ("bread yesterday between 12:00:05 and 12:00:20", (45, 60), NOWHERE),
        ("bread yesterday before 11:00", (0, 40), NOWHERE),
        ("bread today", NOWHERE, NOWHERE),
        ("bread in the morning", (0, 40), NOWHERE),
        ("bread between 23:59:50 and 0:10:10", None, (10, 50)),
        ("bread after midnight", (0, 80), (20, 80)),
        ("bread between 0:10 and 0:20", None, (40, 80)),  # of the other one, seconds 10 to 20
        # it is a Saturday
        ("bread on Friday morning", (0, 40), NOWHERE),
        ("bread on Friday at noon", (40, 80), NOWHERE),
        ("bread last Thursday", NOWHERE, (20, 80)),
        ("bread Wednesday night", NOWHERE, (0, 80)),
        ("bread on Saturday", NOWHERE, NOWHERE),
        ("bread of the Monday club", None, None),
        ("bread", None, None),
        ('"bread yesterday"', None, None),
        ("bread in the last 10 seconds", None, None),  # of the video
    ],
)
def test_stretches(bank: MemoryBank, question: str, door, night) -> None:
    found = resolve(question, bank, STARTS, NOW)
    assert found.spans.get("door") == (None if door is None else pytest.approx(door))
    assert found.spans.get("night") == (None if night is None else pytest.approx(night))


def test_a_search_keeps_to_them(bank: MemoryBank, monkeypatch) -> None:
    def starts(question: str, video_id: str | None = None) -> list[tuple[str, float]]:
        return [
            (m.video_id, m.start)
            for m in sorted(Finder(bank, ("subtitle",)).find(question, video_id), key=str)
        ]

    monkeypatch.setattr("pipeline.moments.finder.time.time", lambda: NOW)
    assert starts("bread yesterday between 12:00:05 and 12:00:20") == [("door", 51.0)]
    assert starts("bread between 10:00:10 and 10:00:20", "door") == [("door", 11.0)]
    # it was not running then
    assert starts("bread between 0:10 and 0:20", "door") == [("door", 11.0)]
    assert starts("bread between 0:10 and 0:10:20", "night") == [("night", 41.0), ("night", 51.0)]
    assert starts("bread yesterday in the second half") == [
        ("door", at) for at in (41.0, 51.0, 61.0, 71.0)
    ]
    assert starts("bread today") == [] and len(starts("bread today", "talk")) == 8


def test_parts_of_a_stream_are_of_what_came_so_far(tmp_path: Path) -> None:
    """A stream's own length is 0: nobody knows it."""
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=1
    ) as held:
        held.record_video(replace(info("v"), duration=0.0), 1.0, finished=False)
        for number in range(5):
            held.write(make_segment("v", number))
        lines = tuple(
            TextLine("v", at, at + 2, "subtitle", "bread and salt", at + 2) for at in (1.0, 11.0)
        )
        held.text.write(TextBlock("v", "subtitles", "made so", 0, TextSpan(0, 20, lines, False)))
        finder = Finder(held, ("subtitle",))
        assert [m.start for m in finder.find("bread in the last 10 seconds")] == [11.0]
        assert [m.start for m in finder.find("bread in the first half")] == [1.0]


def test_a_slide_stands_until_the_next_one(tmp_path: Path) -> None:
    """A talk whose pictures come when the slide changes, so most seconds are in no segment."""
    began = datetime(2026, 11, 20, 10, 0).timestamp()
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=1
    ) as held:
        held.record_video(replace(info("v"), duration=600.0), 1.0, finished=False)
        for number, start in enumerate((0.0, 120.4, 240.2, 360.6, 480.1)):
            segment = make_segment("v", number, start=start, frames=1)
            held.write(replace(segment, wall=began + start))

        def stretch(question: str) -> tuple[float, float]:
            return resolve(question, held, ["v"], NOW).spans["v"]

        assert stretch("topic between 10:05 and 10:06 am") == pytest.approx((300, 360))
        assert stretch("topic at 10:03 am") == pytest.approx((120, 240))
        assert stretch("topic at 10:09 am") == pytest.approx((480, 481.1))  # it may go on or not
        # no look-ahead: a question asked then does not see the next slide
        assert held.catalog.video_time("v", began + 300) == pytest.approx(300)
        held.record_video(replace(info("v"), duration=600.0), 1.0, finished=True)
        assert stretch("topic at 10:09 am") == pytest.approx((480, 600))
        assert stretch("topic at 10:12 am") == NOWHERE


def test_what_does_not_know_when_it_was_is_said(bank: MemoryBank) -> None:
    assert "leaves out 1 of 3 videos" in resolve("bread yesterday", bank, STARTS, NOW).note
    alone = resolve("bread yesterday", bank, ["talk"], NOW)
    assert "'yesterday' limits nothing here" in alone.note and (alone.text, alone.spans) == (
        "bread yesterday",
        {},
    )
    assert resolve("bread after 12:30", bank, ["talk"], NOW).note == ""


def test_the_command_finds_and_says_so(tmp_path: Path, capsys) -> None:
    film = tmp_path / "a.mp4"
    write_video(film, 20, 5)
    film.with_suffix(".srt").write_text(SRT)
    common = [f"bank={tmp_path / 'bank'}", "channels=[subtitle]"]
    options = [
        f"video={film}",
        f"bank={tmp_path / 'bank'}",
        "text=subtitles",
        "began=2026-11-20T10:00",
        *toy_parts(),
    ]
    assert cli.run("ingest", options) == 0
    capsys.readouterr()
    assert cli.run("find", [*common, "query=bread between 10:00:10 and 10:00:20"]) == 0
    assert capsys.readouterr().out.startswith("00:00:12-00:00:14")
    assert cli.run("find", [*common, "query=bread between 10:00 and 10:00:05"]) == 0
    assert capsys.readouterr().out == "nothing found\n"
