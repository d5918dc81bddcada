"""The contract of every option in conf/line_scan/ that reads lines; a new YAML file is tested
without more work. The model's attention is set by hand (tests/support/matching_model.py).
"""

import weakref
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.text.bm25 import LineFilter
from pipeline.answer.line_scan.line_stream import stream
from pipeline.answer.line_scan.schema import LineScan
from pipeline.answer.text_evidence import prompt_line
from pipeline.build import build_line_scan
from tests.support.banks import opened
from tests.support.matching_model import matching_backbone
from tests.support.paths import CONF
from tests.support.records import make_video, write_video

NODES = {
    file.stem: yaml.safe_load(file.read_text()) for file in (CONF / "line_scan").glob("*.yaml")
}
NAMES = sorted(name for name, node in NODES.items() if node)
SMALL = {"window_tokens": 64, "keep_tokens": 32}
QUESTION = "who is Quentin and where is the umbrella"
NEEDLE = "Quentin has the umbrella"
# each shares words with the question, and none shares as many as the needle
OTHERS = [
    f"{who} has the {what}"
    for who in ("Alice", "Bob", "Grace", "Tom", "Wendy", "Zach")
    for what in ("umbrella", "diamond", "boat", "house", "star", "cup", "key")
]


class WeakLine(TextLine):
    """A line that can be referred to weakly."""


def lines_of(count: int, needle: int | None) -> Iterator[TextLine]:
    """So many lines, a second each; one of them is the needle."""
    rng = np.random.default_rng(0)
    for at in range(count):
        text = NEEDLE if at == needle else str(rng.choice(OTHERS))
        yield TextLine("v", float(at), at + 1.0, "subtitle", text, at + 1.0)


def scan_of(name: str, **settings: int) -> LineScan:
    scan = build_line_scan(NODES[name] | settings, matching_backbone())
    assert scan is not None
    return scan


def tokens_of(count: int) -> int:
    return sum(len(matching_backbone().prompt.ids(one.text)) for one in lines_of(count, None))


def test_no_scan_is_built_without_one() -> None:
    assert NODES["none"] == {} and build_line_scan({}, matching_backbone()) is None


@pytest.mark.parametrize("needle", [0, 77, 149])
@pytest.mark.parametrize("name", NAMES)
def test_a_needle_line_in_ten_windows_is_found(name: str, needle: int) -> None:
    """At the beginning, in the middle and at the end of text ten times as long as a window."""
    assert tokens_of(150) > 10 * SMALL["window_tokens"]
    found = scan_of(name, **SMALL).rank(QUESTION, lines_of(150, needle), 3)
    assert found[0].line.text == NEEDLE and found[0].line.start == needle
    assert len(found) <= 3 and found[0].score > found[1].score >= found[-1].score
    assert all(0 < one.coverage <= 1 for one in found)
    # without the needle the same lines have no such winner
    assert scan_of(name, **SMALL).rank(QUESTION, lines_of(150, None), 3)[0].score < found[0].score


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_lines(name: str, monkeypatch) -> None:
    """Neither the longest pass of the model, nor the lines that something still refers to."""
    scan, model = scan_of(name, **SMALL), matching_backbone().language_model
    forward, longest, most = model.forward, [0], [0]

    def counted(embeds, cache, listener=None):
        longest[-1] = max(longest[-1], len(embeds))
        return forward(embeds, cache, listener)

    def watched(count: int) -> Iterator[TextLine]:
        alive: set[weakref.ref[TextLine]] = set()
        for line in lines_of(count, 7):
            own = WeakLine(*(getattr(line, one.name) for one in fields(line)))
            alive.add(weakref.ref(own, alive.discard))
            most[-1] = max(most[-1], len(alive))
            yield own

    monkeypatch.setattr(model, "forward", counted)
    for count in (60, 600):
        longest.append(0)
        most.append(0)
        (first, *_) = scan.rank(QUESTION, watched(count), 3)
        assert first.line.text == NEEDLE
    prompt = matching_backbone().prompt
    around = len(prompt.preamble_ids()) + len(prompt.suffix_ids(QUESTION))
    assert longest[1] > 0 and longest[2] <= sum(SMALL.values()) + around
    shortest = min(len(prompt.ids(prompt_line(one))) for one in lines_of(600, 7))
    # a window, what was kept, and the line that the window had no room for
    assert most[1] > 3 and most[2] <= sum(SMALL.values()) // shortest + 2


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_read_or_ranked_nothing(name: str) -> None:
    assert scan_of(name).rank(QUESTION, iter(()), 3) == []
    (only,) = scan_of(name).rank(QUESTION, lines_of(1, None), 3)
    assert only.coverage == pytest.approx(1.0)


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_later_change_nothing(name: str, tmp_path: Path) -> None:
    """Law 3: at second 60 the same lines with the same scores, whether or not the film goes on."""
    found = []
    for folder, count in (("short", 60), ("long", 120)):
        with opened(tmp_path / folder) as bank:
            write_video(bank, make_video("v", 1))
            lines = tuple(lines_of(count, 100))
            bank.text.write(TextBlock("v", "s", "m", 0, TextSpan(0, float(count), lines, True)))
            every = stream(bank.text, LineFilter("v", asked_at=60.0))
            found.append(scan_of(name, **SMALL).rank(QUESTION, every, 5))
    assert found[0] == found[1] and NEEDLE not in {one.line.text for one in found[1]}
