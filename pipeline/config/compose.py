"""Overrides of a command line -> the settings of a task, with mistakes named in one sentence.

Texts and paths are taken as they stand, ~ is the home folder, and a time in a video is seconds,
mm:ss or hh:mm:ss. Hydra composes the rest (pipeline/config/hydra_grammar.py); what it composed
before is read from the user's cache folder.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, overload

from encoders.errors import UserError
from pipeline.config.compose_cache import ComposeCache
from pipeline.config.default_bank import default_bank
from pipeline.config.overrides import (
    refuse,
    schema_of,
    texts_of,
    with_further_clips,
    without_texts,
)
from pipeline.config.settings import Form, PartSettings, Settings, revived
from pipeline.config.task_settings import TASK_SETTINGS
from pipeline.config.tasks.bank_settings import (
    BackbonesSettings,
    BankSettings,
    DoctorSettings,
    PullSettings,
    RepairSettings,
)
from pipeline.config.tasks.evaluation_settings import BatchSettings, BenchSettings, NeedleSettings
from pipeline.config.tasks.file_settings import (
    ClipSettings,
    ExportSettings,
    ImportSettings,
    SheetSettings,
    WatchSettings,
)
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.config.tasks.question_settings import AskSettings, FindSettings, SummarySettings
from pipeline.config.tasks.server_settings import DemoSettings, McpSettings, ServeSettings

_LOCAL_MODEL = "local-dir:"  # before a path in clip.model


@overload
def compose(task: Literal["ask"], overrides: Sequence[str]) -> AskSettings: ...
@overload
def compose(task: Literal["ingest"], overrides: Sequence[str]) -> IngestSettings: ...
@overload
def compose(task: Literal["find"], overrides: Sequence[str]) -> FindSettings: ...
@overload
def compose(task: Literal["summary"], overrides: Sequence[str]) -> SummarySettings: ...
@overload
def compose(task: Literal["watch"], overrides: Sequence[str]) -> WatchSettings: ...
@overload
def compose(task: Literal["mcp"], overrides: Sequence[str]) -> McpSettings: ...
@overload
def compose(task: Literal["import"], overrides: Sequence[str]) -> ImportSettings: ...
@overload
def compose(task: Literal["clip"], overrides: Sequence[str]) -> ClipSettings: ...
@overload
def compose(task: Literal["export"], overrides: Sequence[str]) -> ExportSettings: ...
@overload
def compose(task: Literal["sheet"], overrides: Sequence[str]) -> SheetSettings: ...
@overload
def compose(task: Literal["bank"], overrides: Sequence[str]) -> BankSettings | RepairSettings: ...
@overload
def compose(task: Literal["backbones"], overrides: Sequence[str]) -> BackbonesSettings: ...
@overload
def compose(task: Literal["needle"], overrides: Sequence[str]) -> NeedleSettings: ...
@overload
def compose(task: Literal["batch"], overrides: Sequence[str]) -> BatchSettings: ...
@overload
def compose(task: Literal["serve"], overrides: Sequence[str]) -> ServeSettings: ...
@overload
def compose(task: Literal["demo"], overrides: Sequence[str]) -> DemoSettings: ...
@overload
def compose(task: Literal["bench"], overrides: Sequence[str]) -> BenchSettings: ...
@overload
def compose(task: Literal["doctor"], overrides: Sequence[str]) -> DoctorSettings: ...
@overload
def compose(task: Literal["pull"], overrides: Sequence[str]) -> PullSettings: ...
@overload
def compose(task: str, overrides: Sequence[str]) -> Settings: ...
def compose(task: str, overrides: Sequence[str]) -> Settings:
    """The settings of a task. UserError names the wrong key, value or option."""
    given, overrides = list(overrides), with_further_clips(overrides)
    refuse(task, overrides)
    kind = TASK_SETTINGS[schema_of(task, overrides)]
    own = kind(**_values(task, overrides))
    for key, text in texts_of(kind, overrides).items():
        setattr(own, key, text)  # also "???", which OmegaConf takes for a missing value
    if getattr(own, "bank", None) == "":
        setattr(own, "bank", default_bank())  # noqa: B010 - not every task has one
    for group in (
        "text",
        "score",
        "notify",
    ):  # to Hydra, a list without options is no choice at all
        if _lists_nothing(group, overrides):
            setattr(own, group, {})
    if hasattr(own, "given"):
        own.given = given  # arms are composed on top of it
    for one in fields(kind):
        if not own.is_missing(one.name):
            is_path = one.metadata["form"] is Form.PATH
            setattr(own, one.name, _at_home(getattr(own, one.name), is_path))
    if getattr(own, "also_banks", []) and not kind.reads_several_banks:
        raise UserError(f"reelbank {task} works with one bank; leave also_banks= out")
    return own


def to_yaml(task: str, overrides: Sequence[str]) -> str:
    """Every key of a task with its value, references as they stand in conf/: what --cfg prints."""
    given, overrides = list(overrides), with_further_clips(overrides)
    refuse(task, overrides)
    from omegaconf import OmegaConf

    from pipeline.config.hydra_grammar import config_of

    config = config_of(task, schema_of(task, overrides), overrides)
    if config.get("bank") == "":
        config.bank = default_bank()
    if "given" in config:
        config.given = given
    return OmegaConf.to_yaml(config)


def options(group: str, values: Mapping[str, Any]) -> dict[str, PartSettings]:
    """Every option of a group by name. values: what its files may refer to, such as fps."""
    cache, key = ComposeCache(), ["options", group, values]
    nodes: dict[str, PartSettings] | None = cache.get(key)
    if nodes is None:
        from pipeline.config.hydra_grammar import options_of

        nodes = options_of(group, values)
        cache.put(key, nodes)
    return nodes


def _values(task: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Key -> value of every setting but those that a text gives. UserError as `compose`."""
    schema = schema_of(task, overrides)
    kind = TASK_SETTINGS[schema]
    rest = without_texts(kind, overrides)
    is_fixed = not any("${" in override for override in rest)  # else it may name a variable
    cache, key = ComposeCache(), [schema, rest]
    values: dict[str, Any] | None = cache.get(key) if is_fixed else None
    if values is not None:
        return revived(kind, values)
    from pipeline.config.hydra_grammar import config_of, plain

    values = plain(config_of(task, schema, rest, line=overrides))
    for name in values.keys() - {one.name for one in fields(kind)}:
        raise UserError(f"{name}= is no setting of `reelbank {task}`")  # +key=value adds any
    if is_fixed:
        cache.put(key, values)
    return values


def _lists_nothing(group: str, overrides: Sequence[str]) -> bool:
    """Whether the last choice of a group is an empty list."""
    choices = [one.partition("=")[2] for one in overrides if one.startswith(f"{group}=")]
    return bool(choices) and choices[-1].replace(" ", "") == "[]"


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
