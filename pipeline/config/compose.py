"""Overrides of a command line -> the settings of a task, with mistakes named in one sentence."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, overload

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from encoders.errors import UserError
from pipeline.config import settings
from pipeline.config.parts import PartSettings
from pipeline.config.settings import TASK_SETTINGS, Settings

# keys of earlier versions, in the tasks that have the new key
RENAMED = {
    "at_once": "batch_size",
    "together": "batch_size",
    "asked": "queries",
    "more_frames": "appended_frames",
    "choice": "option_choice",
}


@overload
def compose(task: Literal["ask"], overrides: Sequence[str]) -> settings.AskSettings: ...
@overload
def compose(task: Literal["ingest"], overrides: Sequence[str]) -> settings.IngestSettings: ...
@overload
def compose(task: Literal["find"], overrides: Sequence[str]) -> settings.FindSettings: ...
@overload
def compose(
    task: Literal["bank"], overrides: Sequence[str]
) -> settings.BankSettings | settings.RepairSettings: ...
@overload
def compose(task: Literal["backbones"], overrides: Sequence[str]) -> settings.BackbonesSettings: ...
@overload
def compose(task: Literal["needle"], overrides: Sequence[str]) -> settings.NeedleSettings: ...
@overload
def compose(task: Literal["batch"], overrides: Sequence[str]) -> settings.BatchSettings: ...
@overload
def compose(task: Literal["serve"], overrides: Sequence[str]) -> settings.ServeSettings: ...
@overload
def compose(task: Literal["demo"], overrides: Sequence[str]) -> settings.DemoSettings: ...
@overload
def compose(task: Literal["bench"], overrides: Sequence[str]) -> settings.BenchSettings: ...
@overload
def compose(task: str, overrides: Sequence[str]) -> Settings: ...
def compose(task: str, overrides: Sequence[str]) -> Settings:
    """The settings of a task. UserError names the wrong key, value or option."""
    config = _composed(task, overrides)
    values: Any = OmegaConf.to_container(config, resolve=True)
    kind = TASK_SETTINGS[_schema(task, overrides)]
    for key in values.keys() - {one.name for one in fields(kind)}:
        raise UserError(f"{key}= is no setting of `reelbank {task}`")  # +key=value adds any
    return kind(**values)


def to_yaml(task: str, overrides: Sequence[str]) -> str:
    """Every key of a task with its value, references as they stand in conf/: what --cfg prints."""
    return OmegaConf.to_yaml(_composed(task, overrides))


def options(group: str, values: Mapping[str, Any]) -> dict[str, PartSettings]:
    """Every option of a group by name. values: what its files may refer to, such as fps."""
    settings.register()  # ${weights:...}
    folder = Path(conf.__file__).parent / group
    nodes: dict[str, PartSettings] = {}
    for file in sorted(folder.glob("*.yaml")):
        config = OmegaConf.create({**values, "node": OmegaConf.load(file)})
        resolved: Any = OmegaConf.to_container(config, resolve=True)
        nodes[file.stem] = resolved["node"]
    return nodes


def _schema(task: str, overrides: Sequence[str]) -> str:
    """The name of conf/NAME.yaml: only repair needs the parts with which a bank was made."""
    return "repair" if task == "bank" and "action=repair" in overrides else task


def _composed(task: str, overrides: Sequence[str]) -> DictConfig:
    settings.register()
    name = _schema(task, overrides)
    _refuse_renamed(name, overrides)
    try:
        with hydra.initialize_config_module("conf", version_base="1.3"):
            config = hydra.compose(name, overrides=[_literal(override) for override in overrides])
        OmegaConf.to_container(config, resolve=True)  # refuses a value that refers to nothing
    except ValueError as error:  # of Hydra, about a group; it does not name the override
        raise UserError(
            "A part is chosen by name, as in reader=kv, and a setting as key=value; "
            f"look at {' '.join(overrides)}"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            f"{_sentence(error, task)}; `reelbank {task} --cfg` prints every key"
        ) from error
    if "given" in config:  # arms are composed on top of it
        config.given = list(overrides)
    return config


def _refuse_renamed(name: str, overrides: Sequence[str]) -> None:
    """UserError on a key of an earlier version."""
    keys = {one.name for one in fields(TASK_SETTINGS[name])}
    for override in overrides:
        key = re.split(r"[.=]", override.lstrip("+~"))[0]
        new = RENAMED.get(key)
        if new in keys and key not in keys:
            raise UserError(
                f"{key}= has a new name in reelbank {name}; "
                f"write {override.replace(key, str(new), 1)}"
            )


def _literal(override: str) -> str:
    """An override in the form that Hydra must get.

    A question or a path is taken as it stands, also with commas, brackets, quotes or ${...} in it,
    which Hydra's grammar would read as something else.
    """
    texts = {one.name for kind in TASK_SETTINGS.values() for one in fields(kind) if one.type is str}
    key, equals, value = override.partition("=")
    if (
        not equals
        or key not in texts
        or re.fullmatch(r"""(['"])((?!\1)[^\\]|\\.)*\1""", value, re.DOTALL)
    ):
        return override
    value = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def _sentence(error: Exception, task: str) -> str:
    """The line of a Hydra or OmegaConf error that says most, with what to do about it."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, MissingConfigException) and cause.missing_cfg_file and cause.options:
        group, _, option = cause.missing_cfg_file.rpartition("/")
        return f"{group}={option} is not there; use one of {', '.join(cause.options)}"
    if isinstance(cause, OverrideParseException):
        return (
            f"{cause.override} cannot be read as key=value; "
            "put quotes around a value with blanks, commas or brackets"
        )
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    first = (lines[0] if lines else type(error).__name__).rstrip(".")
    if first.startswith("Ambiguous value"):
        return f"{first} with several values; give one, or put quotes around it"
    key = getattr(cause, "full_key", None)
    option_of = re.fullmatch(r"Invalid value '(.*)', expected one of \[(.*)\]", first)
    if option_of:
        *others, last = option_of[2].split(", ")
        return f"{key}={option_of[1]} is not known; use {', '.join(others)} or {last}"
    if re.fullmatch(r"Key '.*' not in '\w+'", first):
        return f"{key}= is no setting of `reelbank {task}`"
    return f"{key}: {first}" if key and f"'{key}'" not in first else first
