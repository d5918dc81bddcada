"""What a setting is: a typed field with a remark, and the record of a task that holds them.

Hydra's structured configs: conf/TASK.yaml begins with the dataclass of the task. Every field has a
remark with its meaning and unit; the reference page of the docs prints these remarks under their
headings. Knows no task and no part: a part is a node of conf/, such as conf/reader/kv.yaml.
"""

import copy
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from encoders.errors import UserError

# A node of conf/: `_target_` names the class, `_partial_: true` leaves partners to build.py, and
# every other key is a parameter of the class. Plain values; parts may be nested.
PartSettings = dict[str, Any]

MISSING = "???"  # Hydra's mark for a setting that has no value yet


class MissingSettingError(UserError, AttributeError):
    """A setting without a default is read, and nobody gave it a value."""


@dataclass(repr=False)
class Settings:
    """What the settings of all tasks have in common.

    A setting without a default that was not given is no attribute: to read it is a
    MissingSettingError, so a task needs no list of the settings that it reads.
    """

    task: ClassVar[str]  # the word behind `reelbank`
    answers_questions: ClassVar[bool] = False  # False: the task only encodes, or reads no frames
    reads_several_banks: ClassVar[bool] = False  # False: the task writes to its bank
    # True: the films are the user's own, so that clip=auto adds an embedder that knows the world
    encodes_the_world: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, str) and value == MISSING:
                delattr(self, name)

    if not TYPE_CHECKING:  # mypy would believe that there is every attribute

        def __getattr__(self, name: str) -> Any:
            if any(name == one.name for one in fields(self)):
                raise MissingSettingError(
                    f"{name}= is missing; say `reelbank {self.task} {name}=...`"
                )
            raise AttributeError(f"{type(self).__name__} has no setting {name!r}")

    def is_missing(self, name: str) -> bool:
        """True for a setting without a default that was not given."""
        return name not in vars(self)

    def changed(self, **values: Any) -> Self:
        """A deep copy with other values; what was missing may stay so."""
        own = copy.deepcopy(self)
        for name, value in values.items():
            assert any(name == one.name for one in fields(self)), name
            setattr(own, name, value)
        return own

    def to_dict(self) -> dict[str, Any]:
        """Plain values in the order of the fields, "???" where missing: for JSON and digests."""
        every = {one.name: vars(self).get(one.name, MISSING) for one in fields(self)}
        return {name: _plain(value) for name, value in every.items()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Enum) else copy.deepcopy(value)


def revived(kind: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    """Values of JSON as those of the settings' types."""
    enums = {
        one.name: one.type
        for one in fields(kind)
        if isinstance(one.type, type) and issubclass(one.type, Enum)
    }
    return {name: enums[name](value) if name in enums else value for name, value in values.items()}


class Form(Enum):
    """What the text behind `key=` means, where its type does not say it."""

    PLAIN = "as the type says"
    PATH = "a file or folder, or a list of them: ~ is the home folder"
    SECONDS = "a time in a video: seconds, mm:ss or hh:mm:ss"


def setting(default: Any, help: str, *, heading: str = "", form: Form = Form.PLAIN) -> Any:
    """A field with a default. heading: the title of the group that begins with this field."""
    metadata = {"help": help, "heading": heading, "form": form}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def mandatory(help: str, *, heading: str = "", form: Form = Form.PLAIN) -> Any:
    """A field without a default: the user gives it, or a preset or a group of conf/ does."""
    # a factory leaves no attribute on the class, see Settings
    metadata = {"help": help, "heading": heading, "form": form}
    return field(default_factory=lambda: MISSING, metadata=metadata)
