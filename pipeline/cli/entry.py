"""The command `reelbank`: help, or a command with its settings; prints errors.

An error is one line; HYDRA_FULL_ERROR=1 or -v adds the traceback. Exit codes: 0 done, 1 the bank
has damage (verify, repair) or a question failed (batch), 2 bad input, 130 interrupted, 141 the
reader of the output has gone.

Light until the task is known: words are parsed, and a resident process is asked
(pipeline/resident), before Hydra, numpy or torch is imported.

The prompt is entered as `pipeline.cli.prompt:run(video, overrides)`: video is the film's path or
None for the whole bank, and overrides are key=value of the task `ask`, bank= and backbone= among
them. It returns the exit code. Three lines lead there, in a terminal alone (stdin and stdout):
`reelbank`, `reelbank FILM`, and `reelbank ask FILM` without a question.
"""

import gc
import io
import os
import select
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from encoders.errors import UserError
from pipeline.cli.arguments import Call, is_file, parse
from pipeline.cli.commands import COMMANDS, TASKS
from pipeline.config.default_bank import default_bank, former_bank, is_users_bank
from pipeline.runtime import output_errors

# commands whose bank= is one bank of the user's
_BANKED = (
    "ask",
    "find",
    "summary",
    "add",
    "ingest",
    "watch",
    "import",
    "bank",
    "batch",
    "serve",
    "mcp",
    "demo",
)


def run(task: str, overrides: Sequence[str]) -> int:
    """Run a task with settings as key=value; its exit code. UserError on bad input."""
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}; use one of {_names()}.")
    given = [override for override in overrides if override != "--cfg"]
    if len(given) < len(overrides):
        from pipeline.config.compose import to_yaml

        print(to_yaml(task, given))
        return 0
    from pipeline.config.compose import compose

    settings = compose(task, given)
    _settle_logging()
    with _named_extras(f"reelbank {task}"):
        return _function(TASKS[task])(settings)


def _settle_logging() -> None:
    """Messages come as they are. Without a handler, the first one of open_clip would add one that
    puts level and module before each.
    """
    import logging

    if not logging.root.handlers and logging.lastResort is not None:
        logging.root.addHandler(logging.lastResort)


@contextmanager
def _named_extras(command: str) -> Iterator[None]:
    """A missing extra is a UserError with its install line."""
    try:
        yield
    except ModuleNotFoundError as error:
        from encoders.extras import missing_extra

        missing = missing_extra(error, command)
        if missing is None:
            raise
        raise missing from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # importing torch and transformers allocates millions of objects that stay; a collection on the
    # way finds nothing and costs 0.9 s of 4.2 (docs/measurements/LOG.md)
    gc.disable()
    _prepare_output()
    try:
        code = _run(arguments)
        sys.stdout.flush()  # so that a full disk or a closed pipe is reported here
    except UserError as error:
        _trace(error, arguments)
        code = _refuse(str(error), error)
    except BrokenPipeError:
        if not _is_unread():
            raise
        code = 141  # as shells know a command whose reader has gone
    except OSError as error:  # such as a full disk, or a folder that may not be read
        where = f"{error.filename} " if error.filename else ""
        code = _refuse(f"{where}cannot be used: {error.strerror or error}", error)
    except KeyboardInterrupt:
        print(
            "reelbank: stopped; what was written stays, and the same command goes on from there.",
            file=sys.stderr,
        )
        code = 130
    finally:
        gc.enable()
    _drop_unwritten()
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    """Help, or the command of the arguments; its exit code."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    name, *rest = arguments or [""]
    if name == "help" or {"-h", "--help"} & set(words):
        return _print_help(next((one for one in words if one in COMMANDS), ""))
    if name == "--version":
        return _print_version()
    if name in ("--install-completion", "--show-completion"):
        return _complete(name, rest)
    if not arguments:
        if _is_terminal():
            return _prompt(Call(COMMANDS["ask"]))
        raise UserError(f"No task is given; use one of {_names()}, or `reelbank --help`")
    if name not in COMMANDS and is_file(name):
        name, rest = "ask", list(arguments)
    if name not in COMMANDS and name.startswith("-"):
        raise UserError(f"{name} stands where the command has to; put options behind it")
    if name not in COMMANDS:
        raise UserError(f"There is no task {name!r}; use one of {_names()}.")
    return _call(parse(COMMANDS[name], rest))


def _call(call: Call) -> int:
    """Run a command; its exit code."""
    command = call.command
    if not command.task:
        with _named_extras(f"reelbank {command.name}"):
            return _function(command.function)(call.words, call.options)
    if call.prints_config:
        return run(command.task, [*call.overrides, "--cfg"])
    if command.name == "ask" and call.has_words and call.value("question") is None:
        return _prompt(call)
    if command.name == "find" and call.value("video") is None and is_file(call.value("query")):
        film = shlex.quote(str(call.value("query")))
        raise UserError(f'There is nothing to find in {film}; say `reelbank find {film} "QUERY"`')
    with _told_bank(call):
        if len(call.words) > 1:
            return _run_all(call)
        code = _ask_resident(call)
        return run(command.task, call.overrides) if code is None else code


def _prompt(call: Call) -> int:
    """reelbank ask FILM, or reelbank alone: questions are typed. UserError outside a terminal."""
    video = call.value("video")
    if _is_terminal() and call.value("also") is None:  # a prompt is about one film, or all
        overrides = [one for one in call.overrides if not one.startswith(("video=", "messages="))]
        with _told_bank(call):
            return _function("pipeline.cli.prompt:run")(video, overrides)
    film = shlex.quote(video) if video else "FILM"
    if call.value("also") is not None:
        film += " ..."
    raise UserError(
        f'There is no question about {film}; say `reelbank ask {film} "QUESTION"`, or leave it out '
        "in a terminal, where a prompt about one film opens"
    )


def _run_all(call: Call) -> int:
    """reelbank add FILM FILM...; the parts are built once."""
    from pipeline.config.compose import compose

    settings = compose("ingest", call.overrides)
    return _function("pipeline.commands.ingest:run_all")(settings, call.words)


@contextmanager
def _told_bank(call: Call) -> Iterator[None]:
    """Say where the bank is, once: when it is first made, or when an earlier default is here."""
    if call.command.name not in _BANKED or call.value("bank") is not None:
        yield
        return
    bank, former = default_bank(), former_bank()
    if former is not None:
        print(
            f"reelbank: the bank is {bank}; {former} here was the default of earlier versions, use "
            f"it with --bank {former}.",
            file=sys.stderr,
        )
    is_new = is_users_bank(bank) and not os.path.exists(bank)
    try:
        yield
    finally:
        if is_new and os.path.exists(bank):
            print(
                f"reelbank: the bank is {bank}; --bank DIR or REELBANK_BANK chooses another.",
                file=sys.stderr,
            )


def _ask_resident(call: Call) -> int | None:
    """The exit code of a resident process of the bank; None where there is none."""
    from pipeline.resident import ask_resident

    bank = call.value("bank") or default_bank()
    if call.value("also_banks") is not None:  # a resident process has one bank
        if call.is_resident:
            raise UserError("--resident works with one bank; leave it out, or give --bank once")
        return None
    return ask_resident(call.command.task, call.overrides, bank, start=call.is_resident)


def _function(path: str) -> Callable[..., int]:
    """The function of `module:function`."""
    module, _, name = path.partition(":")
    function: Callable[..., int] = getattr(import_module(module), name)
    return function


def _names() -> str:
    """The commands, those of all versions first."""
    return ", ".join(dict.fromkeys([*TASKS, *COMMANDS]))


def _print_help(name: str) -> int:
    from pipeline.cli.help import overview, page

    print(page(COMMANDS[name]) if name else overview())
    return 0


def _complete(option: str, words: Sequence[str]) -> int:
    """--install-completion [SHELL], --show-completion [SHELL]."""
    from pipeline.cli import completion

    shell = completion.shell_of(words)
    print(completion.script(shell) if option == "--show-completion" else completion.install(shell))
    return 0


def _print_version() -> int:
    from importlib.metadata import version

    print(f"reelbank {version('reelbank')}")
    return 0


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _trace(error: Exception, arguments: Sequence[str]) -> None:
    """Print the traceback where -v asks for it."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if {"-v", "--verbose"} & set(words):
        import traceback

        traceback.print_exception(error)


def _refuse(message: str, error: Exception) -> int:
    """One line on stderr; exit code 2. Raises the error where a traceback is wanted."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error
    line = " ".join(message.splitlines()).rstrip(". ")
    print(f"reelbank: {line}.", file=sys.stderr)
    return 2


def _is_unread() -> bool:
    """True where the reader of stdout or stderr has gone, as in `reelbank ask ... | head -1`."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _drop_unwritten() -> None:
    """Let Python end without a complaint about text that nobody takes any more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_output() -> None:
    """Let stdout print what its encoding lacks: a file name's bytes as they are, else escapes.

    A stream that was closed before the start (`>&-`) takes text to nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    output_errors.register()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=output_errors.NAME)
