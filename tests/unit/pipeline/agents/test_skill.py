"""The skill for agents: its form, and that every command line in it can be typed."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from encoders.errors import UserError
from pipeline.agents import skill
from pipeline.cli.arguments import parse
from pipeline.cli.commands import COMMANDS
from pipeline.config.compose import compose

LINES = re.findall(r"(?:^|`)(reelbank [a-z][^`\n]*)", skill.text(), re.MULTILINE)


def test_the_front_matter_is_that_of_a_skill() -> None:
    _, head, body = skill.text().split("---\n", 2)
    front = yaml.safe_load(head)
    assert set(front) == {"name", "description"}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", front["name"]) and len(front["name"]) <= 64
    assert 0 < len(front["description"]) <= 1024
    assert body.strip().startswith("# ") and len(body.splitlines()) < 500


def test_there_are_lines() -> None:
    assert len(LINES) > 15
    assert {shlex.split(line)[1] for line in LINES} >= {"add", "ask", "find", "clip", "bank"}


@pytest.mark.parametrize("line", LINES)
def test_every_line_can_be_typed(line: str) -> None:
    _, name, *words = shlex.split(line)
    call = parse(COMMANDS[name], words)
    compose(call.command.task, list(call.overrides))


def test_it_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert skill.run((), {}) == 0
    assert capsys.readouterr().out == skill.text()
    path = tmp_path / "skills" / "reelbank" / "SKILL.md"
    assert skill.run((), {"out": str(path)}) == 0
    assert path.read_text(encoding="utf-8") == skill.text()
    with pytest.raises(UserError, match="is a folder"):
        skill.run((), {"out": str(tmp_path)})
