"""A part's settings -> the object, with mistakes told by key before anything is loaded.

Knows Hydra's `_target_` and `_partial_`, and Python's type hints; no part by name. Imports no
Hydra, which takes 0.2 s: the values are plain by now, and these words are all that conf/ uses.
"""

import functools
import inspect
import operator
from collections.abc import Callable
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, Unpack, get_args, get_origin, get_type_hints

from encoders.errors import UserError
from pipeline.config.settings import PartSettings

_WORDS = ("_target_", "_partial_", "_convert_")  # all is plain, as _convert_: all asks for

_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}


def check(group: str, node: PartSettings) -> None:
    """UserError when a part's settings have a wrong name or a wrong type, nested parts included."""
    _check(group, node)


def instantiate(group: str, node: PartSettings) -> Any:
    """The object of a group's node. UserError names the group when the values do not fit."""
    try:
        return _built(node)
    except UserError:
        raise
    except Exception as error:
        raise _misfit(group, error) from error


def get_object(path: str) -> Any:
    """What a dotted path names: a class or a function. ImportError or AttributeError if nothing."""
    names = path.split(".")
    for length in range(len(names) - 1, 0, -1):
        module = ".".join(names[:length])
        try:
            loaded = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, and something that it imports is not
            continue
        return operator.attrgetter(".".join(names[length:]))(loaded)
    raise ImportError(f"there is no {path}")


def _built(node: Any) -> Any:
    """A node with an object in place of every `_target_`, from the inside out."""
    if isinstance(node, list):
        return [_built(item) for item in node]
    if not isinstance(node, dict):
        return node
    values = {key: _built(item) for key, item in node.items() if key not in _WORDS}
    if "_target_" not in node:
        return values
    target = get_object(str(node["_target_"]))
    return functools.partial(target, **values) if node.get("_partial_") else target(**values)


def call(group: str, partial: Any, *args: Any, **kwargs: Any) -> Any:
    """The object of a partial part and its partners."""
    try:
        return partial(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise _misfit(group, error) from error


def _misfit(group: str, error: BaseException) -> UserError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"{group}= cannot be built from its settings: {reason}")


def _check(path: str, node: Any) -> None:
    if isinstance(node, list):
        for number, item in enumerate(node):
            _check(f"{path}[{number}]", item)
    if not isinstance(node, dict):
        return
    values = {key: value for key, value in node.items() if not str(key).startswith("_")}
    if "_target_" in node:
        target = get_object(str(node["_target_"]))
        hints = settings_of(target)
        for key, value in values.items():
            if key not in hints:
                raise UserError(
                    f"{path}.{key} is not a setting of {target.__name__}; it has {', '.join(hints)}"
                )
            if not _fits(value, hints[key]):
                expected = " or ".join(_TYPE_NAMES[one] for one in _members(hints[key]))
                raise UserError(f"{path}.{key}={value} does not fit; give {expected}")
    for key, value in values.items():
        _check(f"{path}.{key}", value)


def settings_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Name -> type of every setting of a part.

    The keys of the TypedDict in `**options: Unpack[Keys]` replace that parameter.
    """
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    settings: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        hint = hints.get(name, Any)
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(hint) is Unpack:
            settings |= get_type_hints(get_args(hint)[0])
        else:
            settings[name] = hint
    return settings


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """True where a plain value fits a hint; the part itself checks hints beyond plain values."""
    members = _members(hint)
    if any(one not in _TYPE_NAMES for one in members):
        return True
    if isinstance(value, int) and not isinstance(value, bool) and float in members:
        return True
    return type(value) in members
