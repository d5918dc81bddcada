"""The command `reelbank TASK key=value ...`: composes the configuration, runs the task, tells errors in one line.

Exit codes: 0 done, 1 the bank has damage (verify), 2 bad input; a traceback only with HYDRA_FULL_ERROR=1. Knows no part;
heavy imports happen inside a task, so that help and mistakes answer at once.
"""

import os
import sys
from collections.abc import Callable, Sequence

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from encoders.errors import UserError
from pipeline import settings

USAGE = """reelbank TASK key=value ...

  ask     video=FILE question="..."   encode if not yet in the bank, answer, say where in the video (format=json)
  ingest  video=FILE bank=DIR         encode only; resumes where it stopped
  bank    action=ls|verify bank=DIR   look after a bank

Any setting can be given as key=value; `reelbank TASK --cfg` prints them all. Parts are swapped by name, such as
backbone=llava_ov_7b, retriever=clip, reader=tokens, compressor=pool, segmenter=scene.
The embedded model understands the needle world only: cards with codes, names, shapes and icons."""


def _ask(config: DictConfig) -> int:
    from pipeline.commands import ask

    return ask(config)


def _ingest(config: DictConfig) -> int:
    from pipeline.commands import ingest

    return ingest(config)


def _bank(config: DictConfig) -> int:
    from pipeline.commands import bank

    return bank(config)


TASKS: dict[str, Callable[[DictConfig], int]] = {"ask": _ask, "ingest": _ingest, "bank": _bank}


def configure(task: str, overrides: Sequence[str]) -> DictConfig:
    """The resolved configuration of a task. UserError names the wrong key, value or option."""
    settings.register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            return compose(task, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{_sentence(error)} `reelbank {task} --cfg` prints every key.") from error


def run(task: str, overrides: Sequence[str]) -> int:
    """Run a task; its exit code. UserError on bad input."""
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}; use one of {', '.join(TASKS)}.")
    config = configure(task, [o for o in overrides if o != "--cfg"])
    if "--cfg" in overrides:
        print(OmegaConf.to_yaml(config))
        return 0
    try:
        return TASKS[task](config)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}= is missing: say `reelbank {task} {error.full_key}=...`.") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        sys.exit(0 if arguments else 2)
    try:
        code = run(arguments[0], arguments[1:])
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"reelbank: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("reelbank: stopped; what was written stays, and the same command goes on from there.", file=sys.stderr)
        code = 130
    sys.exit(code)


def _sentence(error: Exception) -> str:
    """The telling line of a Hydra or OmegaConf error as a sentence."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    key = getattr(cause, "full_key", None)
    if key and f"'{key}'" not in first:
        first = f"{key}: {first}"
    return first if first.endswith(".") else first + "."


if __name__ == "__main__":
    main()
