"""Which settings of a command belong to its call alone, and which to the parts that are kept.

Knows the tasks `ask` and `find`; no engine and no socket.
"""

import os
from dataclasses import fields
from typing import Any, TypeVar

from pipeline.config.settings import Settings
from pipeline.config.tasks.pipeline_settings import IngestSettings
from pipeline.config.tasks.question_settings import FindSettings

_OF_A_CALL = frozenset(
    "question query image like video also start end began asked_at top widen channels encode "
    "format out thumbnails messages clips exact_clips export".split()
)

_PATHS = ("path", "model")  # keys of parts

Kind = TypeVar("Kind", bound=Settings)


def parts_of(settings: Settings, kind: type[Settings] | None = None) -> dict[str, Any]:
    """The settings that parts are built of, of those that a kind of settings has. None: its own;
    those of asking are those of encoding.
    """
    if kind is None:
        kind = FindSettings if isinstance(settings, FindSettings) else IngestSettings
    names = {one.name for one in fields(kind)} - _OF_A_CALL
    return {name: value for name, value in settings.to_dict().items() if name in names}


def with_whole_paths(settings: Kind, bank: str, folder: str) -> Kind:
    """The settings with paths that hold in any folder, as the next command may come from another.

    folder: that of the command. bank: whole.
    """
    names = [one.name for one in fields(settings) if not settings.is_missing(one.name)]
    parts = {
        name: _whole(getattr(settings, name), folder)
        for name in names
        if isinstance(getattr(settings, name), dict)
    }
    others = [os.path.join(folder, other) for other in getattr(settings, "also_banks", [])]
    return settings.changed(**parts, bank=bank, also_banks=others)


def _whole(value: Any, folder: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _whole(inner, folder, name) for name, inner in value.items()}
    if isinstance(value, str) and value and key in _PATHS:
        path = os.path.join(folder, value)
        return os.path.normpath(path) if os.path.exists(path) else value  # else the id of a model
    return value
