"""Completion in bash, as a tab would run it: the script that `reelbank` writes, in a real shell."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.cli.commands import COMMANDS
from pipeline.cli.completion import script
from tests.support.console import sentence

# the words of a line in "$@", the last one being completed; prints what a tab offers, one a line
TAB = """
source "$0"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
"$(complete -p reelbank | sed 's/.*-F \\([^ ]*\\).*/\\1/')" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of bash."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    file = tmp_path_factory.mktemp("script") / "reelbank"
    file.write_text(script("bash"))
    return file


@pytest.fixture
def offered(bash: Path, tmp_path: Path):
    """What a tab offers behind these words, in a folder with two files and a bank."""
    (tmp_path / "my talk.mp4").touch()
    (tmp_path / "jobs.csv").touch()
    (tmp_path / "films").mkdir()

    def call(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", TAB, str(bash), "reelbank", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.split("\n")[:-1]

    return call


def test_commands_options_files_and_models_are_offered(offered):
    assert set(offered("")) == set(COMMANDS)
    assert offered("fi") == ["find"]
    assert offered("ask", "my") == ["my talk.mp4"]
    assert offered("find", "my talk.mp4", "x", "--to") == ["--top"]
    assert offered("add", "my talk.mp4", "my") == ["my talk.mp4"]
    assert offered("ask", "my talk.mp4", "--bank", "f") == ["films"]
    assert "qwen3_vl_2b" in offered("ask", "my talk.mp4", "--model", "qwen3")
    assert offered("bank", "") == ["ls", "verify", "prune", "compact", "repair"]
    assert offered("needle", "sm") == ["small", "smoke"]
    assert offered("batch", "jo") == ["jobs.csv"]


@pytest.mark.parametrize(
    ("shell", "variable", "file"),
    [
        ("bash", "XDG_DATA_HOME", "bash-completion/completions/reelbank"),
        ("zsh", "XDG_DATA_HOME", "zsh/site-functions/_reelbank"),
        ("fish", "XDG_CONFIG_HOME", "fish/completions/reelbank.fish"),
    ],
)
def test_the_script_is_installed_where_the_shell_looks(
    run, tmp_path, monkeypatch, shell, variable, file
):
    monkeypatch.setenv(variable, str(tmp_path))
    code, out, err = run("--install-completion", shell)
    assert (code, out) == (0, f"{tmp_path / file}\n") and err.startswith("reelbank: ")
    assert (tmp_path / file).read_text().rstrip() == run("--show-completion", shell)[1].rstrip()
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    assert run("--install-completion")[0] == 0
    assert [os.fspath(path.relative_to(tmp_path)) for path in tmp_path.rglob("*reelbank*")] == [
        file
    ]


def test_a_shell_that_is_not_known(run):
    code, out, err = run("--install-completion", "dash")
    assert (code, out) == (2, "")
    sentence(err, "dash", "bash, zsh, fish")
