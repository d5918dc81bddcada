"""The keys that a task knows, read from its settings and the folders of conf/; without Hydra."""

import os
from dataclasses import fields
from pathlib import Path

import conf
from pipeline.config.task_settings import RENAMED, TASK_SETTINGS


def known_keys(task: str) -> dict[str, bool]:
    """Key -> whether its value is a text, in which blanks are usual.

    Groups of parts and Hydra's own key count, and so do keys of earlier versions: Hydra's sentence
    says what to do about these.
    """
    names = ("bank", "repair") if task == "bank" else (task,)
    keys = dict.fromkeys(("hydra", *RENAMED, *_groups()), False)
    for name in names:
        for one in fields(TASK_SETTINGS[name]):
            keys[one.name] = one.type is str
    return keys


def _groups() -> list[str]:
    with os.scandir(Path(conf.__file__).parent) as entries:
        return [entry.name for entry in entries if entry.is_dir() and entry.name[0] != "_"]


def options_of(group: str) -> list[str]:
    """The options of a group of conf/, by name."""
    return sorted(file.stem for file in (Path(conf.__file__).parent / group).glob("*.yaml"))
