"""Completion in a shell: shtab writes a script from the commands, so that a tab starts nothing.

Changes no file of the user's but the script itself.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import shtab

from encoders.errors import UserError
from pipeline.cli.command import Command
from pipeline.cli.commands import COMMANDS
from pipeline.cli.help import fill
from pipeline.cli.keys import options_of

# shell -> file of the script, under the user's data or configuration folder
_FILES = {
    "bash": ("XDG_DATA_HOME", ".local/share", "bash-completion/completions/reelbank"),
    "zsh": ("XDG_DATA_HOME", ".local/share", "zsh/site-functions/_reelbank"),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/reelbank.fish"),
}
_NEXT = {
    "bash": "new shells complete where bash-completion is installed; elsewhere, put this into "
    "~/.bashrc: source {file}",
    "zsh": "put this into ~/.zshrc, before compinit: fpath=({folder} $fpath)",
    "fish": "new shells complete",
}


def shell_of(words: Sequence[str]) -> str:
    """The shell that is named, else the user's own. UserError on one that is not known."""
    name = words[0] if words else Path(os.environ.get("SHELL", "bash")).name
    if name not in _FILES:
        raise UserError(f"There is no completion for {name}; use {', '.join(_FILES)}")
    return name


def script(shell: str) -> str:
    """The script of a shell."""
    parser = argparse.ArgumentParser(prog="reelbank", add_help=False)
    for option in ("--help", "--version", "--install-completion", "--show-completion"):
        parser.add_argument(option, action="store_true")
    commands = parser.add_subparsers()
    for command in COMMANDS.values():
        own = commands.add_parser(command.name, help=command.summary, add_help=False)
        _offer(own, command)
    return str(shtab.complete(parser, shell))


def _offer(parser: argparse.ArgumentParser, command: Command) -> None:
    """Tell shtab what stands behind an option or in a slot."""
    actions = fill(parser, command)
    for slot in command.slots:
        _complete(actions[slot.name], slot.group, shtab.FILE if slot.is_film else None)
    for option in command.options:
        path = shtab.FILE if option.metavar == "FILM" else shtab.DIRECTORY
        _complete(actions[option.names[-1]], option.group, path if option.is_path else None)


def _complete(action: argparse.Action, group: str, path: object) -> None:
    if group:
        action.choices = options_of(group)
    elif path is not None:
        setattr(action, "complete", path)  # noqa: B010 - an attribute of shtab


def install(shell: str) -> str:
    """Write the script where the shell looks for it; -> what to tell the user."""
    variable, folder, name = _FILES[shell]
    base = os.environ.get(variable, "")
    file = (Path(base) if os.path.isabs(base) else Path.home() / folder) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script(shell) + "\n", encoding="utf-8")
    print(f"reelbank: {_NEXT[shell].format(file=file, folder=file.parent)}.", file=sys.stderr)
    return str(file)
