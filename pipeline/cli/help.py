"""Help: the overview of `reelbank --help`, and a page for each command, made by argparse.

argparse lays the page out, and shtab reads the same parser for shell completion. The words of a
call go through pipeline/cli/arguments.py instead: argparse finds no question in
`FILM --json QUESTION`, and knows no key=value between the words.
"""

import argparse
import textwrap
from collections.abc import Iterator

from pipeline.cli.arguments import SHARED
from pipeline.cli.command import MORE, Command, Option
from pipeline.cli.commands import COMMANDS, TASKS

_WIDTH = 96
_HEAD = """usage: reelbank COMMAND [WORDS] [OPTIONS] [KEY=VALUE ...]

Ask films questions, and find moments in them. In a terminal, `reelbank` alone opens a prompt about
the bank, and `reelbank FILM` one about a film.
"""
_TAIL = """`reelbank COMMAND --help` shows the options of a command, with an example.
`reelbank --version` prints the version; `reelbank --install-completion` completes in your shell.

Any setting can be given as key=value, behind -o or as it is: reelbank TASK key=value ...
`reelbank TASK --cfg` prints them all. Parts are swapped by name, such as -m llava_ov_7b,
retriever=clip, reader=tokens, compressor=pool, segmenter=scene.
The embedded model understands the needle world only: cards with codes, names, shapes and icons.
"""


def overview() -> str:
    """What `reelbank --help` prints."""
    headings = dict.fromkeys(command.heading for command in COMMANDS.values())
    headings.pop(MORE, None)
    lines = [_HEAD]
    for heading in (*headings, MORE):
        lines.append(f"{heading}:")
        for command in COMMANDS.values():
            if command.heading == heading:
                lines.append(f"  {command.usage:<24} {command.summary}")
        lines.append("")
    return "\n".join(lines) + "\n" + _TAIL.rstrip()


def page(command: Command) -> str:
    """What `reelbank NAME --help` prints."""
    parser = argparse.ArgumentParser(
        prog=f"reelbank {command.name}",
        usage=f"reelbank {command.usage} [OPTIONS] [KEY=VALUE ...]",
        formatter_class=_Layout,
        description=_sentence(command),
        epilog="\n".join(_epilog(command)),
        add_help=False,
    )
    fill(parser, command)
    return parser.format_help().rstrip()


def fill(parser: argparse.ArgumentParser, command: Command) -> dict[str, argparse.Action]:
    """Give a parser the slots and options of a command; -> its actions, by name."""
    actions: dict[str, argparse.Action] = {}
    words = parser.add_argument_group("words") if command.slots else None
    for slot in command.slots if words else ():
        assert words is not None
        actions[slot.name] = words.add_argument(
            slot.name.lower(),
            metavar=slot.name,
            nargs="*" if slot.many else None,
            help=_escaped(slot.help),
            choices=slot.choices or None,
        )
    options = parser.add_argument_group("options")
    for option in (*command.options, *(SHARED if command.task else ())):
        actions[option.names[-1]] = _add(options, option)
    options.add_argument("-h", "--help", action="store_true", help="print this page")
    return actions


def _add(group: "argparse._ArgumentGroup", option: Option) -> argparse.Action:
    if not option.takes_value:
        return group.add_argument(*option.names, action="store_true", help=_escaped(option.help))
    return group.add_argument(
        *option.names,
        metavar=option.metavar,
        action="append" if option.repeats else "store",
        help=_escaped(option.help),
    )


def _sentence(command: Command) -> str:
    text = f"{command.summary[:1].upper()}{command.summary[1:]}."
    return textwrap.fill(f"{text} {command.details}".rstrip(), _WIDTH)


def _epilog(command: Command) -> Iterator[str]:
    yield f"example: {command.example}"
    if command.task:
        yield ""
        yield "A text that begins with a dash stands behind a lone --."
        yield "Settings work as key=value as well (reelbank TASK key=value ...), for the tasks"
        yield from textwrap.wrap(f"{', '.join(TASKS)}.", _WIDTH)


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


class _Layout(argparse.RawDescriptionHelpFormatter):
    """The same width everywhere, so that a page of the docs is what the terminal shows."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_WIDTH)
