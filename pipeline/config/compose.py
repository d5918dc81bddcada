"""Overrides of a command line -> the settings of a task, with mistakes named in one sentence.

Hydra composes; what it would read otherwise than a user means is put into its grammar first. Texts
and paths are taken as they stand, ~ is the home folder, and a time in a video is seconds, mm:ss or
hh:mm:ss.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, overload

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from encoders.errors import UserError
from pipeline.config import settings, units
from pipeline.config.default_bank import default_bank
from pipeline.config.settings import RENAMED, TASK_SETTINGS, Form, PartSettings, Settings

_OVERRIDE = re.compile(r"(?P<signs>\+{0,2})(?P<key>[\w.]+)=(?P<value>.*)", re.DOTALL)
_PLAIN_LIST = re.compile(r"""\[[^][{}'"\\]+\]""")
# keys of parts whose values are texts, which may hold what Hydra's grammar gives a meaning
_PART_TEXTS = ("path", "prompt", "model")
_LOCAL_MODEL = "local-dir:"  # before a path in clip.model


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
def compose(task: Literal["doctor"], overrides: Sequence[str]) -> settings.DoctorSettings: ...
@overload
def compose(task: Literal["pull"], overrides: Sequence[str]) -> settings.PullSettings: ...
@overload
def compose(task: str, overrides: Sequence[str]) -> Settings: ...
def compose(task: str, overrides: Sequence[str]) -> Settings:
    """The settings of a task. UserError names the wrong key, value or option."""
    config = _composed(task, overrides)
    values: Any = OmegaConf.to_container(config, resolve=True)
    kind = TASK_SETTINGS[_schema(task, overrides)]
    for key in values.keys() - {one.name for one in fields(kind)}:
        raise UserError(f"{key}= is no setting of `reelbank {task}`")  # +key=value adds any
    own = kind(**values)
    for key, text in _texts(kind, overrides).items():
        setattr(own, key, text)  # also "???", which OmegaConf takes for a missing value
    if getattr(own, "bank", None) == "":
        setattr(own, "bank", default_bank())  # noqa: B010 - not every task has one
    for one in fields(kind):
        if not own.is_missing(one.name):
            is_path = one.metadata["form"] is Form.PATH
            setattr(own, one.name, _at_home(getattr(own, one.name), is_path))
    return own


def to_yaml(task: str, overrides: Sequence[str]) -> str:
    """Every key of a task with its value, references as they stand in conf/: what --cfg prints."""
    config = _composed(task, overrides)
    if config.get("bank") == "":
        config.bank = default_bank()
    return OmegaConf.to_yaml(config)


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
    _refuse_hydras_own(task, overrides)
    literal = [_literal(TASK_SETTINGS[name], override) for override in overrides]
    try:
        with hydra.initialize_config_module("conf", version_base="1.3"):
            config = hydra.compose(name, overrides=literal)
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


def _refuse_hydras_own(task: str, overrides: Sequence[str]) -> None:
    """UserError on what means something to Hydra and nothing here: ~key takes a setting away that
    the task reads, hydra.key sets up Hydra, and ??? is its mark for a missing value.
    """
    texts = {one.name for one in fields(TASK_SETTINGS[_schema(task, overrides)]) if one.type is str}
    for override in overrides:
        name, _, value = override.lstrip("+~").partition("=")
        if re.match(r"hydra\b", name):
            raise UserError(f"{name}= is no setting of `reelbank {task}`")
        if value == "???" and name not in texts:
            raise UserError(f"{override} gives no value; write one, or leave it out")
        key = override[1:].partition("=")[0]
        if override.startswith("~") and key and "." not in key:
            raise UserError(
                f"{override} takes {key} away, and `reelbank {task}` reads it; give a value, as in "
                f"{key}=VALUE"
            )


def _texts(kind: type[Settings], overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value of the overrides whose values are taken as they stand."""
    matches = [match for match in map(_OVERRIDE.fullmatch, overrides) if match is not None]
    texts = {one.name for one in fields(kind) if one.type is str}
    return {match["key"]: match["value"] for match in matches if match["key"] in texts}


def _literal(kind: type[Settings], override: str) -> str:
    """An override in the form that Hydra must get.

    A text or a path is taken as it stands, also with commas, brackets, quotes or ${...} in it,
    which Hydra's grammar would read as something else. UserError on what is no text or no time.
    """
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    signs, key, value = match.groups()
    field: Field[Any] | None = next((one for one in fields(kind) if one.name == key), None)
    if field is None:
        is_text = "." in key and key.rpartition(".")[2] in _PART_TEXTS
        if not is_text or value == "null" or "${" in value or _is_quoted(value):
            return override
        return f"{signs}{key}={_quoted(key, value, Form.PATH)}"
    form = field.metadata["form"]
    if field.type is str:
        return f"{signs}{key}={_quoted(key, value, form)}"
    if field.type == list[str] and _PLAIN_LIST.fullmatch(value):
        items = [_quoted(key, item.strip(), form) for item in value[1:-1].split(",")]
        return f"{signs}{key}=[{','.join(items)}]"
    if form is Form.SECONDS:
        return f"{signs}{key}={_seconds(key, value)}"
    return override


def _is_quoted(value: str) -> bool:
    return bool(re.fullmatch(r"""(['"])((?!\1)[^\\]|\\.)*\1""", value, re.DOTALL))


def _quoted(key: str, text: str, form: Form) -> str:
    """The text in quotes of Hydra's grammar.

    UserError on bytes that are not UTF-8, which may stand in the name of a file alone.
    """
    try:
        os.fsencode(text) if form is Form.PATH else text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{key}= has a byte that is not UTF-8 behind {text[: error.start]!r}; write it in UTF-8"
        ) from error
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", text)
    return str(QuotedString(text, Quote.single).with_quotes())


def _seconds(key: str, value: str) -> str:
    """A time in a video as Hydra must get it; numbers, null and ${...} as they are."""
    if value == "null" or "${" in value:
        return value
    try:
        float(value)
    except ValueError:
        return repr(units.parse_seconds(key, value))
    return value


def _at_home(value: Any, is_path: bool) -> Any:
    """A setting's value with the home folder in place of ~, also in the paths of its parts."""
    if isinstance(value, dict):
        return {key: _at_home(inner, key in ("path", "model")) for key, inner in value.items()}
    if isinstance(value, list):
        return [_at_home(inner, is_path) for inner in value]
    if is_path and isinstance(value, str):
        prefix = _LOCAL_MODEL if value.startswith(_LOCAL_MODEL) else ""
        return prefix + os.path.expanduser(value.removeprefix(prefix))
    return value


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
