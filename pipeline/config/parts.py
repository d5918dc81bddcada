"""A part of the configuration -> an object, with mistakes told by key before anything is loaded.

Knows Hydra's `_target_` and Python's type hints; no part by name.
"""

import inspect
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}


def check(config: DictConfig, group: str) -> None:
    """UserError when a group's settings have a wrong name or a wrong type, nested parts included."""
    _check(group, OmegaConf.to_container(config[group], resolve=True))


def part(config: DictConfig, group: str) -> Any:
    """Instantiate a group's node. UserError names the group when its values do not fit."""
    try:
        return instantiate(config[group])
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        raise _unfit(group, cause or error) from error


def call(group: str, partial: Any, *args: Any, **kwargs: Any) -> Any:
    """Finish a partial part with its partners."""
    try:
        return partial(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise _unfit(group, error) from error


def _unfit(group: str, error: BaseException) -> UserError:
    return UserError(f"{group}= cannot be built from its settings: {str(error).splitlines()[0]}")


def _check(path: str, node: Any) -> None:
    if isinstance(node, list):
        for number, item in enumerate(node):
            _check(f"{path}[{number}]", item)
    if not isinstance(node, dict):
        return
    values = {key: value for key, value in node.items() if not str(key).startswith("_")}
    if "_target_" in node:
        target = get_object(str(node["_target_"]))
        known = inspect.signature(target).parameters
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
        for key, value in values.items():
            if key not in known:
                raise UserError(
                    f"{path}.{key} is not a setting of {target.__name__}; it has {', '.join(known)}"
                )
            if not _fits(value, hints.get(key, Any)):
                raise UserError(f"{path}.{key}={value} does not fit; give {_words(hints[key])}")
    for key, value in values.items():
        _check(f"{path}.{key}", value)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value fits a hint; hints beyond plain values are the part's own affair."""
    choices = _choices(hint)
    if any(choice not in _WORDS for choice in choices):
        return True
    if isinstance(value, int) and not isinstance(value, bool) and float in choices:
        return True
    return type(value) in choices


def _words(hint: Any) -> str:
    return " or ".join(_WORDS[choice] for choice in _choices(hint))
