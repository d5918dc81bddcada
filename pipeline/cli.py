"""The command `reelbank TASK key=value ...`: composes the configuration, runs the task, tells errors in one line.

Exit codes: 0 done, 1 the bank has damage (verify, repair) or a question failed (batch), 2 bad input; a traceback only with
HYDRA_FULL_ERROR=1.
Knows no part; heavy imports happen inside a task, so that help and mistakes answer at once.
"""

import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields

from hydra import compose, initialize_config_module
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from encoders.errors import UserError
from pipeline.config import settings

USAGE = """reelbank TASK key=value ...

  ask     video=FILE question="..."   encode if not yet in the bank, answer, say where in the video (format=json)
  ingest  video=FILE bank=DIR         encode only; resumes where it stopped
  batch   jobs=FILE out=DIR           many questions about many videos; resumes (action=compare|join runs=[A,B])
  find    query="..." bank=DIR        moments where something is said, written or shown; no language model (format=json|html)
  bank    action=ls|verify bank=DIR   look after a bank; ls video=ID start=10 end=60, or since=ISO until=ISO: its segments
  bank    action=prune bank=DIR       delete a video (video=ID) or what is old (older_than=7d, max_bytes=10GB, dry_run=true)
  bank    action=repair bank=DIR      drop what is damaged and encode it again where the video is still there
  needle  preset=small out=DIR        needle benchmark: make films and questions, ask, score, report; resumes
  serve   bank=DIR                    answer over HTTP as OpenAI's API does, with videos as content parts (port=8321)
  demo    bank=DIR                    a page to show it a file, a camera or a stream, and to ask while it runs (port=7860)
  bench   bench_preset=embedded       how fast it is, beside transformers alone; bench_preset=store: the bank's parts
  backbones                           the models that can be chosen, and what an hour of video costs with each

Any setting can be given as key=value; `reelbank TASK --cfg` prints them all. Parts are swapped by name, such as
backbone=llava_ov_7b, retriever=clip, reader=tokens, compressor=pool, segmenter=scene.
The embedded model understands the needle world only: cards with codes, names, shapes and icons."""


def _ask(config: DictConfig) -> int:
    from pipeline.commands.ask import ask

    return ask(config)


def _ingest(config: DictConfig) -> int:
    from pipeline.commands.ask import ingest

    return ingest(config)


def _batch(config: DictConfig) -> int:
    from pipeline.batch.command import batch

    return batch(config)


def _find(config: DictConfig) -> int:
    from pipeline.commands.find import find

    return find(config)


def _bank(config: DictConfig) -> int:
    from pipeline.commands.ask import bank

    return bank(config)


def _backbones(config: DictConfig) -> int:
    from pipeline.commands.ask import backbones

    return backbones(config)


def _needle(config: DictConfig) -> int:
    from pipeline.evaluation.needle.command import needle

    return needle(config)


def _serve(config: DictConfig) -> int:
    from pipeline.server.command import serve

    return serve(config)


def _demo(config: DictConfig) -> int:
    from pipeline.demo.command import demo

    return demo(config)


def _bench(config: DictConfig) -> int:
    from pipeline.evaluation.speed.command import bench

    return bench(config)


TASKS: dict[str, Callable[[DictConfig], int]] = {
    "ask": _ask,
    "ingest": _ingest,
    "batch": _batch,
    "find": _find,
    "bank": _bank,
    "needle": _needle,
    "serve": _serve,
    "demo": _demo,
    "bench": _bench,
    "backbones": _backbones,
}


def configure(task: str, overrides: Sequence[str]) -> DictConfig:
    """The resolved configuration of a task. UserError names the wrong key, value or option."""
    settings.register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            # only mending a bank needs the parts that it was made with
            name = "repair" if task == "bank" and "action=repair" in overrides else task
            config = compose(name, overrides=[_literal(override) for override in overrides])
            # a value that refers to nothing is told here
            OmegaConf.to_container(config, resolve=True)
            return config
    except ValueError as error:  # Hydra's own, about a group; it does not name the override
        given = " ".join(overrides)
        raise UserError(
            f"A part is chosen by name, as in reader=kv, and a setting as key=value; look at {given}"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{_sentence(error)}; `reelbank {task} --cfg` prints every key") from error


def run(task: str, overrides: Sequence[str]) -> int:
    """Run a task; its exit code. UserError on bad input."""
    if task not in TASKS:
        raise UserError(f"There is no task {task!r}; use one of {', '.join(TASKS)}.")
    config = configure(task, [o for o in overrides if o != "--cfg"])
    if "given" in config:  # arms are composed on top of it
        config.given = [o for o in overrides if o != "--cfg"]
    if "--cfg" in overrides:
        print(OmegaConf.to_yaml(config))
        return 0
    try:
        return TASKS[task](config)
    except MissingMandatoryValue as error:
        raise UserError(
            f"{error.full_key}= is missing; say `reelbank {task} {error.full_key}=...`"
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console command."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Importing torch and transformers allocates millions of objects that stay: collecting in between costs 0.9 s of 4.2.
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


def _literal(override: str) -> str:
    """An override as Hydra has to be given it: a question or a path is taken as it stands, also with commas, brackets,
    quotes or ${...} in it, which Hydra's grammar would read as something else."""
    tasks = (
        settings.Ask,
        settings.Bank,
        settings.Batch,
        settings.Find,
        settings.Needle,
        settings.Bench,
        settings.Serve,
        settings.Demo,
    )
    texts = {field.name for task in tasks for field in fields(task) if field.type is str}
    key, equals, value = override.partition("=")
    if (
        not equals
        or key not in texts
        or re.fullmatch(r"""(['"])((?!\1)[^\\]|\\.)*\1""", value, re.DOTALL)
    ):
        return override
    value = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def _sentence(error: Exception) -> str:
    """The telling line of a Hydra or OmegaConf error, with what to do about it."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, MissingConfigException) and cause.missing_cfg_file and cause.options:
        group, _, option = cause.missing_cfg_file.rpartition("/")
        return f"{group}={option} is not there; use one of {', '.join(cause.options)}"
    if isinstance(cause, OverrideParseException):
        return f"{cause.override} cannot be read as key=value; put quotes around a value with blanks, commas or brackets"
    if str(cause).startswith("Ambiguous value"):
        return (
            str(cause).splitlines()[0] + " with several values; give one, or put quotes around it"
        )
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    first = (lines[0] if lines else type(error).__name__).rstrip(".")
    key = getattr(cause, "full_key", None)
    return f"{key}: {first}" if key and f"'{key}'" not in first else first


if __name__ == "__main__":
    main()
