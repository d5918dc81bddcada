"""The command `reelbank TASK key=value ...`: composes the settings, runs the task, prints errors.

An error is one line; HYDRA_FULL_ERROR=1 adds the traceback. Exit codes: 0 done, 1 the bank has
damage (verify, repair) or a question failed (batch), 2 bad input, 130 interrupted, 141 the
reader of the output has gone.
Knows no part. A task is imported when it runs, so help and mistakes answer at once.
"""

import codecs
import gc
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from encoders.errors import UserError
from encoders.extras import missing_extra
from pipeline.config.compose import compose, to_yaml
from pipeline.config.settings import Settings

USAGE = """reelbank TASK key=value ...

  ask     video=FILE question="..."   encode if not yet in the bank, answer, say where in the video
  ingest  video=FILE bank=DIR         encode only; resumes where it stopped
  batch   jobs=FILE out=DIR           many questions about many videos; resumes
                                      (action=compare|join runs=[A,B])
  find    query="..." bank=DIR        moments where something is said, written or shown, without a
                                      language model (format=json|html)
  bank    action=ls|verify bank=DIR   look after a bank; with video=ID start=10 end=60, or
                                      since=ISO until=ISO, ls shows segments
  bank    action=prune bank=DIR       delete a video (video=ID) or what is old (older_than=7d,
                                      max_bytes=10GB, dry_run=true)
  bank    action=repair bank=DIR      drop what is damaged, encode it again if the video is there
  needle  preset=small out=DIR        needle benchmark: make films, ask, score, report; resumes
  serve   bank=DIR                    answer over HTTP as OpenAI's API does, with videos as content
                                      parts (port=8321)
  demo    bank=DIR                    a page to show it a file, a camera or a stream, and to ask
                                      while it runs (port=7860)
  bench   bench_preset=embedded       its speed beside transformers alone; bench_preset=store: the
                                      parts of the bank
  backbones                           the models to choose from, and what an hour of video costs

Any setting can be given as key=value; `reelbank TASK --cfg` prints them all. Parts are swapped by
name, such as backbone=llava_ov_7b, retriever=clip, reader=tokens, compressor=pool, segmenter=scene.
The embedded model understands the needle world only: cards with codes, names, shapes and icons."""


# task -> module:function; the function takes the settings of the task and returns its exit code
TASKS = {
    "ask": "pipeline.commands.ask:run",
    "ingest": "pipeline.commands.ingest:run",
    "batch": "pipeline.batch.command:run",
    "find": "pipeline.commands.find:run",
    "bank": "pipeline.commands.bank:run",
    "needle": "pipeline.evaluation.needle.command:run",
    "serve": "pipeline.server.command:run",
    "demo": "pipeline.demo.command:run",
    "bench": "pipeline.evaluation.speed.command:run",
    "backbones": "pipeline.commands.backbones:run",
}


def run(task: str, overrides: Sequence[str]) -> int:
    """Run a task; its exit code. UserError on bad input."""
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}; use one of {', '.join(TASKS)}.")
    given = [override for override in overrides if override != "--cfg"]
    if len(given) < len(overrides):
        print(to_yaml(task, given))
        return 0
    settings = compose(task, given)
    module, _, function = TASKS[task].partition(":")
    try:
        command: Callable[[Settings], int] = getattr(import_module(module), function)
        return command(settings)
    except ModuleNotFoundError as error:
        missing = missing_extra(error, f"reelbank {task}")
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
    """Help, or the task of the arguments; its exit code."""
    if arguments[:1] == ["help"] or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    if not arguments:
        raise UserError(f"No task is given; use one of {', '.join(TASKS)}, or `reelbank --help`")
    return run(arguments[0], arguments[1:])


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
    codecs.register_error("reelbank", _as_bytes_or_escapes)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="reelbank")


def _as_bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


if __name__ == "__main__":
    main()
