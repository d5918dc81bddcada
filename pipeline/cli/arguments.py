"""The words behind a command -> its settings, in either grammar, and without Hydra.

A word is one of three things.

1. An option: `--top`, `--top=5`, `-k 5`. A word that begins with a dash and is no known option is
   refused where it looks like one (`--tpo`), and is a text where it does not ("-5 degrees?").
   Behind a lone `--`, every word is a text.
2. A setting: `key=value`, where the task has the key. Two exceptions: the word names a file, and
   FILM is still open; or the value holds blanks, the key takes no text, and the question is still
   open, as in "fps=2 means what?".
3. A text: the rest, given to the slots of the command from left to right, as it stands. Several
   films may stand in front of a question.

A word that is nothing of this goes to Hydra as it stands, which refuses it with a sentence.
"""

import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from encoders.errors import UserError
from pipeline.cli.command import Command, Option, Slot
from pipeline.cli.keys import known_keys
from pipeline.config.overrides import list_override

SET = Option(
    ("-o", "--set"),
    "",
    "any setting of the task, or a part by name, as key=value; may be repeated",
    metavar="KEY=VALUE",
    repeats=True,
)
QUIET = Option(("-q", "--quiet"), "messages=none", "no progress and no hints on stderr")
VERBOSE = Option(("-v", "--verbose"), "verbose", "an error comes with its traceback")
CONFIG = Option(("--cfg",), "cfg", "print every setting with its value, and do nothing")
# options of every command with a task
SHARED = (SET, QUIET, VERBOSE, CONFIG)

_ENCODING = ("ask", "find", "summary", "ingest")  # tasks that tell how encoding goes on
_SETTING = re.compile(r"\+{0,2}(?P<key>[A-Za-z_]\w*)(?P<inner>[\w.@/]*)=(?P<value>.*)", re.DOTALL)
# the name of an arm may have blanks
_DELETION = re.compile(r"~(?P<key>[A-Za-z_]\w*)(?P<inner>[\w.]*|\.[\w .,+-]*)(=.*)?", re.DOTALL)
_LOOKS_LIKE_OPTION = re.compile(r"--?[A-Za-z][\w-]*(=\S*)?")
_BRACKETS = re.compile(r"""\[.*\]|\{.*\}|'.*'|".*\"""", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A command with its settings."""

    command: Command
    overrides: tuple[str, ...] = ()  # key=value, in the order of their weight: the last one counts
    words: tuple[str, ...] = ()  # of a slot that takes many, or of a command without a task
    options: dict[str, str] = field(default_factory=dict)  # of a command without a task
    prints_config: bool = False
    is_resident: bool = False  # a process with the models stays behind
    has_words: bool = False  # the words hold more than key=value

    def value(self, key: str) -> str | None:
        """What an override gives to a key; None where none does."""
        heads = (f"{signs}{key}=" for signs in ("", "+", "++"))
        values = (
            override.removeprefix(head)
            for head in heads
            for override in reversed(self.overrides)
            if override.startswith(head)
        )
        return next(values, None)


def parse(command: Command, arguments: Sequence[str]) -> Call:
    """The call of a command. UserError on an option that it does not have, or too many words."""
    return _Parser(command).parse(arguments)


class _Parser:
    """The words of one call, sorted."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._keys = known_keys(command.task) if command.task else {}
        options = (*command.options, *(SHARED if command.task else ()))
        self._options = {name: option for option in options for name in option.names}
        self._given: list[str] = []  # overrides of options
        self._settings: list[str] = []
        self._texts: list[str] = []
        self._flags: set[str] = set()
        self._needing: dict[str, Option] = {}  # options that need another one, as they were typed
        self._lists: dict[str, list[str]] = {}  # key of a list -> values behind the first one
        self._open = list(command.slots)
        self._unquoted = 0  # texts that stand before a lone --
        self._has_raw = False  # whether texts stand behind it

    def parse(self, arguments: Sequence[str]) -> Call:
        words, raw = _parted(arguments)
        self._close_slots(words)
        rest = iter(words)
        for word in rest:
            option, value = self._option(word)
            if option is None:
                self._sort(word)
            elif option.takes_value and value is None:
                self._take(option, word, next(rest, None))
            else:
                self._take(option, word, value)
        if not any(slot.is_text for slot in self._open):
            self._hand_on(lambda text: not is_file(text) and _SETTING.fullmatch(text) is not None)
        self._unquoted, self._has_raw = len(self._texts), bool(raw)
        self._texts += raw
        words_of_slots = self._fill_slots()
        command = self._command
        self._given += [list_override(key, own) for key, own in self._lists.items()]
        given = [*self._given, *self._settings]
        self._check_needs(given)
        has_words = bool(self._given or self._flags - {"cfg"})
        if has_words and command.task in _ENCODING and "format=json" not in given:
            given.insert(0, "messages=summary")
        return Call(
            command,
            overrides=tuple(given),
            words=tuple(words_of_slots),
            options={} if command.task else dict(one.split("=", 1) for one in given),
            prints_config="cfg" in self._flags,
            is_resident="resident" in self._flags,
            has_words=has_words,
        )

    # ---- options

    def _option(self, word: str) -> tuple[Option | None, str | None]:
        """The option that a word is, and its value where the word has it; (None, None): none."""
        if not word.startswith("-"):
            return None, None
        name, equals, value = word.partition("=")
        if name in self._options:
            return self._options[name], value if equals else None
        short = self._options.get(word[:2])
        if short is not None and short.takes_value and self._is_attached(short, word[2:]):
            return short, word[2:]
        if self._is_film(word):
            return None, None
        if _LOOKS_LIKE_OPTION.fullmatch(word):
            raise UserError(self._unknown(name))
        return None, None

    def _is_attached(self, option: Option, value: str) -> bool:
        """Whether `-k5` is meant: a number, or a setting behind -o; else it is a text."""
        return self._is_setting(value) if option is SET else value.isdecimal()

    def _take(self, option: Option, word: str, value: str | None) -> None:
        name = word.partition("=")[0]
        if not option.takes_value:
            if value is not None:
                raise UserError(f"{name} takes no value; leave {'=' + value} out")
            if "=" not in option.setting:
                self._flags.add(option.setting)
            elif option is not QUIET or self._command.task in _ENCODING:
                self._given.append(option.setting)
            return
        if value is None or value in self._options:
            raise UserError(f"{name} has no value; give one, as in {name} {option.metavar}")
        if option.needs:
            self._needing[f"{name} {value}"] = option
        if option is SET:
            self._set(value)
        elif option.group and "://" in value:  # a model behind an address
            self._given += [f"{option.setting}=endpoint", f"{option.setting}.url={value}"]
        elif option.group and os.path.isdir(value):
            raise UserError(
                f"{name} {value} is a folder; say {name} NAME -o {option.setting}.path={value}, "
                "with a NAME of its family from `reelbank models`"
            )
        elif (option.more or option.once) and self._is_given(option.setting):
            if option.once:
                raise UserError(f"reelbank {self._command.name} {option.once}; give {name} once")
            self._lists.setdefault(option.more, []).append(value)
        else:
            self._given.append(f"{option.setting}={value}")

    def _is_given(self, key: str) -> bool:
        """Whether an option before has given a value to this key."""
        return any(one.startswith(f"{key}=") for one in self._given)

    def _set(self, value: str) -> None:
        """-o: a setting, or the folder of the results where the command has one."""
        has_out = "--out" in self._options
        if has_out and not self._is_setting(value):
            self._given.append(f"{self._options['--out'].setting}={value}")
        else:
            self._settings.append(value)

    def _check_needs(self, given: Sequence[str]) -> None:
        """UserError for an option without the setting that it belongs to."""
        if any(one.lstrip("+").startswith("experiment=") for one in given):
            return  # it may have any setting
        for typed, option in self._needing.items():
            key = option.needs.partition("=")[0]
            if [one for one in given if one.startswith(f"{key}=")][-1:] != [option.needs]:
                raise UserError(f"{typed} {option.remedy}")

    def _unknown(self, name: str) -> str:
        import difflib  # 5 ms, needed here alone

        near = difflib.get_close_matches(name, self._options, 1)
        hint = (
            f"use {near[0]}, or" if near else f"`reelbank {self._command.name} --help` lists all;"
        )
        return (
            f"reelbank {self._command.name} has no option {name}; {hint} put -- in front of a text "
            "that begins with a dash"
        )

    # ---- settings and texts

    def _close_slots(self, words: Sequence[str]) -> None:
        """A slot whose key is given as key=value, or by its option, takes no text."""
        matches = filter(None, map(_SETTING.fullmatch, words))
        keys = {match["key"] for match in matches if not match["inner"]}
        options = filter(None, (self._options.get(word.split("=")[0]) for word in words))
        for option in options:
            keys |= {option.setting.split("=")[0], option.closes}
        if any(slot.setting in keys for slot in self._open):
            self._open = [slot for slot in self._open if slot.setting not in keys]

    def _sort(self, word: str) -> None:
        if self._is_setting(word):
            self._settings.append(word)
        else:
            self._texts.append(word)

    def _is_setting(self, word: str) -> bool:
        match = _SETTING.fullmatch(word)
        if match is None:
            deletion = _DELETION.fullmatch(word)
            if deletion is None or deletion["key"] not in self._keys:
                return False
            return " " not in deletion["inner"] or not any(slot.is_text for slot in self._open)
        if self._is_film(word):
            return False
        key, value = match["key"], match["value"]
        if key not in self._keys:
            return False
        if match["inner"] or self._keys[key] or not re.search(r"\s", value):
            return True
        asks = any(slot.is_text for slot in self._open)
        return not asks or _BRACKETS.fullmatch(value) is not None

    def _is_film(self, word: str) -> bool:
        """Whether a word names a file, while a slot waits for one."""
        return any(slot.is_film for slot in self._open) and is_file(word)

    def _hand_on(self, is_none: Callable[[str], bool]) -> None:
        """Leave words that are no texts to Hydra, which says what is wrong with them."""
        self._settings += [text for text in self._texts if is_none(text)]
        self._texts = [text for text in self._texts if not is_none(text)]

    def _fill_slots(self) -> list[str]:
        """Texts -> settings; -> the words of a slot that takes many, or of no task."""
        self._take_more_films()
        slots, texts = self._slots(len(self._texts)), self._texts
        if slots and slots[-1].many:
            texts = texts[: len(slots) - 1] + _expanded(texts[len(slots) - 1 :])
        if not self._command.task:
            return texts
        for number, (slot, text) in enumerate(zip(slots, texts, strict=False)):
            self._fill(slot, text, is_raw=number >= self._unquoted)
        left = texts[len(slots) :]
        if slots and slots[-1].many:
            return texts[len(slots) - 1 :]
        if left and len(self._open) == len(self._command.slots) > 0:
            names = " and ".join(slot.name for slot in self._command.slots)
            raise UserError(
                f"reelbank {self._command.name} takes {names}, and {left[0]!r} is one word too "
                "many; put quotes around words that belong together"
            )
        self._settings += left  # a line of key=value: Hydra says what is wrong with the word
        return []

    def _take_more_films(self) -> None:
        """Films behind the first one -> the list of its slot: all texts in front of the last one,
        and the last one too where it is a file and need not be the question."""
        slot = next((one for one in self._open if one.is_film), None)
        if slot is None or not slot.more or len(self._texts) < 2:
            return
        asked = self._texts[-1:]
        text = next((one for one in self._open if one.is_text), None)
        is_left_out = text is None or (text.is_optional and is_file(asked[0]))
        if is_left_out and not self._has_raw:
            asked = []
        named = self._texts[: len(self._texts) - len(asked)]
        if not all(map(_looks_like_film, named[1:])):
            return  # words of a question without quotes
        # behind `--` a text is taken as it stands
        first, *others = [*_expanded(named[: self._unquoted]), *named[self._unquoted :]]
        if others:
            self._lists.setdefault(slot.more, []).extend(others)
            self._unquoted -= len(self._texts) - 1 - len(asked)
            self._texts = [first, *asked]

    def _slots(self, count: int) -> list[Slot]:
        """The slots that are filled by so many texts: optional ones as long as texts are left."""
        spare = count - sum(not slot.is_optional for slot in self._open)
        filled = []
        for slot in self._open:
            if slot.is_optional:
                spare -= 1
            if not slot.is_optional or spare >= 0:
                filled.append(slot)
        return filled[:count]

    def _fill(self, slot: Slot, text: str, is_raw: bool) -> None:
        """A text that cannot be meant goes to Hydra, which says so: nix=1 where no file has that
        name, or one word more behind key=value."""
        is_meant = is_raw or slot.is_text or _looks_like_film(text)
        is_extra = slot.is_film and slot.is_optional and len(self._open) < len(self._command.slots)
        if is_meant or not (is_extra or _SETTING.fullmatch(text)):
            self._given += filter(None, [f"{slot.setting}={text}", slot.implies])
        else:
            self._settings.append(text)


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before a lone `--`, and those behind it."""
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _expanded(words: Sequence[str]) -> list[str]:
    """The files of patterns such as "*.mp4"; a word that is a file, or fits none, as it stands."""
    found = []
    for word in words:
        fits = [] if is_file(word) else sorted(glob.glob(os.path.expanduser(word), recursive=True))
        found += fits or [word]
    return found


def _looks_like_film(word: str) -> bool:
    """Whether a word is a file, or is meant as one: a path, a name with a suffix, or a pattern."""
    path_or_pattern = r"\S*(?:/\S+|[*]\S*|\w\.[A-Za-z]\w{1,4})"
    return is_file(word) or re.fullmatch(path_or_pattern, word) is not None


def is_file(word: str | None) -> bool:
    """Whether a word is the path of a file."""
    if word is None:
        return False
    try:
        return os.path.isfile(os.path.expanduser(word))
    except ValueError:  # a zero byte
        return False
