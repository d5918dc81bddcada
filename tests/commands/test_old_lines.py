"""Lines of `reelbank TASK key=value ...` from before the options: they mean what they meant.

tests/data/lines_of_8cbf667.tsv has every reelbank command of README.md and docs/ at that commit:
page, tab, line.
"""

import shlex

import pytest

from pipeline.cli.arguments import parse
from pipeline.cli.commands import COMMANDS, TASKS
from pipeline.config.compose import compose
from tests.support.paths import ROOT

LINES = [
    line.split("\t")
    for line in (ROOT / "tests/data/lines_of_8cbf667.tsv").read_text("utf-8").splitlines()
]
README = [line for page, line in LINES if page == "README.md"]


def words_of(line: str) -> tuple[str, list[str]]:
    """(task, words behind it) as a shell parts them."""
    _, task, *words = shlex.split(line, comments=True)
    return task, words


def test_the_lines_are_there() -> None:
    assert len(README) >= 6 and len(LINES) > 90
    tasks = {words_of(line)[0] for _, line in LINES}
    assert len(tasks) == 10 and tasks <= set(TASKS)


@pytest.mark.parametrize("line", dict.fromkeys(line for _, line in LINES))
def test_a_line_gives_the_settings_that_it_gave(line: str) -> None:
    task, words = words_of(line)
    call = parse(COMMANDS[task], words)
    assert call.command.task == task
    assert list(call.overrides) == [word for word in words if word != "--cfg"]
    assert call.prints_config == ("--cfg" in words)
    assert (call.words, call.has_words) == ((), False)  # so that nothing new goes to stderr


@pytest.mark.parametrize("line", README)
def test_a_line_of_the_readme_composes_to_the_same_settings(line: str) -> None:
    task, words = words_of(line)
    call = parse(COMMANDS[task], words)
    assert compose(call.command.task, call.overrides).to_dict() == compose(task, words).to_dict()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ask video=a.mp4 question=x foo", ["video=a.mp4", "question=x", "foo"]),
        ("ask video=a.mp4 question=x =3", ["video=a.mp4", "question=x", "=3"]),
        ("ask nix=1", ["nix=1"]),
        ("ask video=a.mp4 question=x fps=[1", ["video=a.mp4", "question=x", "fps=[1"]),
        ("ask video=a.mp4 question=x ~reader", ["video=a.mp4", "question=x", "~reader"]),
        ("ask +prefill.nix=1 question=x", ["+prefill.nix=1", "question=x"]),
        ("find query=x foo", ["query=x", "foo"]),
        ("ingest foo=1", ["foo=1"]),
        ("bank fps=1", ["fps=1"]),
        ("bank nix=1", ["nix=1"]),
        ("serve foo", ["foo"]),
        ("ask hydra.run.dir=x question=y", ["hydra.run.dir=x", "question=y"]),
        ("needle at_once=2", ["at_once=2"]),
    ],
)
def test_a_mistake_in_a_line_reaches_the_settings_as_it_did(line: str, words: list[str]) -> None:
    """They are what says the sentence."""
    task, *given = shlex.split(line)
    assert list(parse(COMMANDS[task], given).overrides) == words
