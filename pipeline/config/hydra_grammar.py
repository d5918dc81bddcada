"""Overrides of a command line -> a configuration of Hydra, with its errors in one sentence.

What Hydra would read otherwise than a user means is put into its grammar first. Importing this
loads Hydra, which takes 0.2 s; pipeline/config/compose.py imports it where it has to.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import conf
from encoders.errors import UserError
from pipeline.config import units
from pipeline.config.overrides import OVERRIDE, refuse_other_bytes
from pipeline.config.settings import Form, PartSettings, Settings
from pipeline.config.task_settings import TASK_SETTINGS, register, register_schema

# ~arms.mean key: a name that Hydra's grammar has no form for
_NAMED_DELETION = re.compile(r"~(?P<key>\w+(?:\.\w+)*)\.(?P<name>[\w ,+-]*[ ,+-][\w ,+-]*)")
# ~arms.kv of the needle benchmark, whichever form its name has
_ARM_DELETION = re.compile(r"~arms\.(?P<name>[^=]+)(?:=.*)?", re.DOTALL)
_NAMED_BY_ARM = ("dials", "papers")  # settings whose keys are names of arms
_PLAIN_LIST = re.compile(r"""\[[^][{}'"\\]+\]""")
# keys of parts whose values are texts, which may hold what Hydra's grammar gives a meaning
_PART_TEXTS = ("path", "prompt", "model")


def config_of(
    task: str, schema: str, overrides: Sequence[str], line: Sequence[str] = ()
) -> DictConfig:
    """The configuration of conf/SCHEMA.yaml. UserError names the wrong key, value or option.

    line: the whole command line for that sentence, where overrides leave texts out.
    """
    register()
    register_schema(schema)
    deletions = [match for match in map(_NAMED_DELETION.fullmatch, overrides) if match]
    others = [one for one in overrides if not _NAMED_DELETION.fullmatch(one)]
    literal = [_literal(TASK_SETTINGS[schema], override) for override in others]
    try:
        with hydra.initialize_config_module("conf", version_base="1.3"):
            config = hydra.compose(schema, overrides=literal)
        for deletion in deletions:
            _delete(config, deletion["key"], deletion["name"])
        for match in filter(None, map(_ARM_DELETION.fullmatch, overrides)):
            _forget_arm(config, match["name"])
        OmegaConf.to_container(config, resolve=True)  # refuses a value that refers to nothing
    except ValueError as error:  # of Hydra, about a group; it does not name the override
        raise UserError(
            "A part is chosen by name, as in reader=kv, and a setting as key=value; "
            f"look at {' '.join(line or overrides)}"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            f"{_sentence(error, task)}; `reelbank {task} --cfg` prints every key"
        ) from error
    return config


def _delete(config: DictConfig, key: str, name: str) -> None:
    """Take a name out of a mapping. UserError if it is not there."""
    node = OmegaConf.select(config, key)
    if not isinstance(node, DictConfig) or name not in node:
        there = ", ".join(map(repr, node)) if isinstance(node, DictConfig) else "no names"
        raise UserError(f"~{key}.{name} takes nothing away: {key} has {there}.")
    with open_dict(node):
        del node[name]


def _forget_arm(config: DictConfig, name: str) -> None:
    """Take what a preset says of a deleted arm out of the settings that arms name."""
    for key in _NAMED_BY_ARM:
        node = OmegaConf.select(config, key)
        if isinstance(node, DictConfig) and name in node:
            with open_dict(node):
                del node[name]


def plain(config: DictConfig) -> dict[str, Any]:
    """Its values, with references resolved."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return dict(values)


def options_of(group: str, values: Mapping[str, Any]) -> dict[str, PartSettings]:
    """Every option of a group by name. values: what its files may refer to, such as fps."""
    register()  # ${weights:...}
    nodes: dict[str, PartSettings] = {}
    for file in sorted((Path(conf.__file__).parent / group).glob("*.yaml")):
        node = OmegaConf.create({**values, "node": OmegaConf.load(file)})
        nodes[file.stem] = plain(node)["node"]
    return nodes


def _literal(kind: type[Settings], override: str) -> str:
    """An override in the form that Hydra must get.

    A text or a path is taken as it stands, also with commas, brackets, quotes or ${...} in it,
    which Hydra's grammar would read as something else. UserError on what is no text or no time.
    """
    match = OVERRIDE.fullmatch(override)
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
    """The text in quotes of Hydra's grammar. UserError as `refuse_other_bytes`."""
    refuse_other_bytes(key, text, form)
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
    missing = re.fullmatch(r"In '.*': Could not load '(\w+)/(\w+)'", first)
    if missing is not None:  # one of a list
        files = (Path(conf.__file__).parent / missing[1]).glob("*.yaml")
        names = ", ".join(sorted(file.stem for file in files))
        return f"{missing[1]}={missing[2]} is not there; use one of {names}"
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
