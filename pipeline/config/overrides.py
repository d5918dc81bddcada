"""What stands in the overrides of a command line, and what is refused before Hydra reads them.

Knows the settings of tasks; imports no Hydra.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import fields

from encoders.errors import UserError
from pipeline.config.settings import Form, Settings
from pipeline.config.task_settings import REMOVED, RENAMED, TASK_SETTINGS

# an override whose value a user may write as it stands
OVERRIDE = re.compile(r"(?P<signs>\+{0,2})(?P<key>[\w.]+)=(?P<value>.*)", re.DOTALL)


# clip=[NAME,NAME...]
_SEVERAL_CLIPS = re.compile(r"clip=\[(?P<names>[\w\s,]*)\]")


def schema_of(task: str, overrides: Sequence[str]) -> str:
    """The name of conf/NAME.yaml: only repair needs the parts with which a bank was made."""
    return "repair" if task == "bank" and "action=repair" in overrides else task


def refuse(task: str, overrides: Sequence[str]) -> None:
    """UserError on a key of an earlier version, on what means something to Hydra alone, and on a
    text with bytes that are not UTF-8.
    """
    kind = TASK_SETTINGS[schema_of(task, overrides)]
    _refuse_renamed(schema_of(task, overrides), overrides)
    _refuse_hydras_own(task, overrides)
    forms = {one.name: one.metadata["form"] for one in fields(kind)}
    for key, text in texts_of(kind, overrides).items():
        refuse_other_bytes(key, text, forms[key])


def _refuse_renamed(name: str, overrides: Sequence[str]) -> None:
    """UserError on a key of an earlier version."""
    keys = {one.name for one in fields(TASK_SETTINGS[name])}
    for override in overrides:
        key = re.split(r"[.=]", override.lstrip("+~"))[0]
        if (name, key) in REMOVED:
            raise UserError(f"{key}= is no more in reelbank {name}; {REMOVED[name, key]}")
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
    texts = {
        one.name for one in fields(TASK_SETTINGS[schema_of(task, overrides)]) if one.type is str
    }
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


def with_further_clips(overrides: Sequence[str]) -> list[str]:
    """The overrides with clip=[A,B] as Hydra must get it: clip=A, and B as a further embedder.

    Only the last clip= counts. UserError on a list that names none, or one of them twice.
    """
    choices = [number for number, one in enumerate(overrides) if one.startswith("clip=")]
    several = {number: _SEVERAL_CLIPS.fullmatch(overrides[number]) for number in choices}
    found = list[str]()
    for number, override in enumerate(overrides):
        match = several.get(number)
        if match is None:
            found.append(override)
        elif number == choices[-1]:
            names = [name.strip() for name in match["names"].split(",")]
            if not all(names) or len(set(names)) < len(names) or "auto" in names[1:]:
                raise UserError(
                    f"{override} does not fit; give names of frame embedders, each once and auto "
                    "only as the first, such as clip=[embedded,conse]"
                )
            found.append(f"clip={names[0]}")
            found += [f"+clip@further_clips.{name}={name}" for name in names[1:]]
    return found


def list_override(key: str, texts: Sequence[str]) -> str:
    """An override that gives texts as they stand to a list."""
    if all(re.fullmatch(r"""[^][{},'"\\$\s]+""", text) for text in texts):
        return f"{key}=[{','.join(texts)}]"
    return f"{key}=[{','.join(map(_in_quotes, texts))}]"


def _in_quotes(text: str) -> str:
    """A text in single quotes of Hydra's grammar: backslashes count in front of a quote alone."""
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", text)
    text = re.sub(r"(\\*)'", lambda match: 2 * match[1] + r"\'", text)
    text = re.sub(r"(\\+)$", lambda match: 2 * match[1], text)
    return f"'{text}'"


def texts_of(kind: type[Settings], overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value of the overrides whose values are taken as they stand."""
    matches = [match for match in map(OVERRIDE.fullmatch, overrides) if match is not None]
    texts = {one.name for one in fields(kind) if one.type is str}
    return {match["key"]: match["value"] for match in matches if match["key"] in texts}


def without_texts(kind: type[Settings], overrides: Sequence[str]) -> list[str]:
    """The overrides but those that give a text, such as a question or a path."""
    texts = {one.name for one in fields(kind) if one.type is str}
    parts = [(override, *override.partition("=")) for override in overrides]
    return [override for override, key, sign, _ in parts if not (sign and key in texts)]


def refuse_other_bytes(key: str, text: str, form: Form) -> None:
    """UserError on bytes that are not UTF-8, which may stand in the name of a file alone."""
    try:
        os.fsencode(text) if form is Form.PATH else text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{key}= has a byte that is not UTF-8 behind {text[: error.start]!r}; write it in UTF-8"
        ) from error
