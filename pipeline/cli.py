"""The command `reelbank TASK key=value ...`: composes the settings, runs the task, prints errors.

An error is one line; HYDRA_FULL_ERROR=1 adds the traceback. Exit codes: 0 done, 1 the bank has
damage (verify, repair) or a question failed (batch), 2 bad input, 130 interrupted.
Knows no part. A task is imported when it runs, so help and mistakes answer at once.
"""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from encoders.errors import UserError
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
    command: Callable[[Settings], int] = getattr(import_module(module), function)
    return command(settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # importing torch and transformers allocates millions of objects that stay; a collection on the
    # way finds nothing and costs 0.9 s of 4.2 (docs/measurements/LOG.md)
    gc.disable()
    if arguments[:1] == ["help"] or {"-h", "--help"} & set(arguments):
        print(USAGE)
        sys.exit(0)
    try:
        if not arguments:
            raise UserError(
                f"No task is given; use one of {', '.join(TASKS)}, or `reelbank --help`"
            )
        code = run(arguments[0], arguments[1:])
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        line = " ".join(str(error).splitlines()).rstrip(". ")
        print(f"reelbank: {line}.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(
            "reelbank: stopped; what was written stays, and the same command goes on from there.",
            file=sys.stderr,
        )
        code = 130
    finally:
        gc.enable()
    sys.exit(code)


if __name__ == "__main__":
    main()
