"""Overrides of a command line -> the configuration of a task, with mistakes named in one sentence."""

import re
from collections.abc import Sequence
from dataclasses import fields

from hydra import compose, initialize_config_module
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from encoders.errors import UserError
from pipeline.config import settings


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
