"""What a command of the command line is: its words, options, help, and the task that it runs.

Knows no command; pipeline/cli/commands.py has one entry for each.
"""

from dataclasses import dataclass

MORE = "More"  # the last heading of the overview


@dataclass(frozen=True)
class Option:
    """An option such as `--top N`."""

    names: tuple[str, ...]  # ("-k", "--top")
    # the key that its value goes to, as in top=N; of an option without a value, `key=value`
    setting: str
    help: str
    metavar: str = ""  # empty: the option takes no value
    group: str = ""  # of conf/: completion offers its options
    is_path: bool = False
    repeats: bool = False
    # the key of a list that takes the values of the option after its first one; empty: the last
    # value counts
    more: str = ""
    once: str = ""  # why it cannot be given twice; empty: it can
    closes: str = ""  # the key of a slot that is not filled where the option is given
    needs: str = ""  # the key=value without which it means nothing
    remedy: str = ""  # what to do where that is missing

    @property
    def takes_value(self) -> bool:
        """Whether the next word belongs to the option."""
        return bool(self.metavar)


@dataclass(frozen=True)
class Slot:
    """A word that is told by its place, such as FILM in `reelbank ask FILM QUESTION`."""

    name: str  # FILM
    setting: str  # the key that it goes to: video
    help: str
    is_optional: bool = False  # filled from the left when more words are there than have to be
    is_film: bool = False
    is_text: bool = False  # a question or a query: taken as it stands where it holds blanks
    many: bool = False  # the last slot: takes the words that are left as well
    choices: tuple[str, ...] = ()  # that completion offers
    group: str = ""  # of conf/: completion offers its options
    implies: str = ""  # key=value that comes along where the slot is filled
    more: str = ""  # the key of a list that takes the films behind the first one


@dataclass(frozen=True)
class Command:
    """One entry of the command line."""

    name: str
    summary: str  # one line of `reelbank --help`
    example: str  # a line that works
    # Hydra's task, whose settings can be given as key=value; empty: `function` runs on its own
    task: str = ""
    # module:function of a command without a task. It gets the words of the slots, and the options
    # as key -> value: run(words: Sequence[str], options: Mapping[str, str]) -> int
    function: str = ""
    slots: tuple[Slot, ...] = ()
    options: tuple[Option, ...] = ()
    details: str = ""  # more sentences of `reelbank NAME --help`
    heading: str = MORE  # of `reelbank --help`

    @property
    def usage(self) -> str:
        """Such as `ask FILM [QUESTION]`."""
        words = (
            f"{slot.name}{'...' if slot.many or slot.more else ''}"
            if not slot.is_optional
            else f"[{slot.name}{'...' if slot.many or slot.more else ''}]"
            for slot in self.slots
        )
        return " ".join((self.name, *words))
