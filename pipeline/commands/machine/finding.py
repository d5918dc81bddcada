"""One line of `reelbank doctor`, and the probes that make them.

A probe that fails is a line as well: whatever this machine lacks, the command does not crash.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """What a finding means for the user."""

    OK = "ok"
    NOTE = "note"  # a fact, neither good nor bad
    MISSING = "missing"  # a feature that is not installed, or weights that are not here
    BROKEN = "broken"  # something that Reelbank needs: exit code 1


@dataclass(frozen=True)
class Finding:
    """A fact about this machine."""

    section: str
    name: str
    status: Status
    text: str  # one line
    facts: dict[str, Any] = field(default_factory=dict)  # the same for programs; bytes, not GB


# a probe gives its findings, and may raise anything
Probe = Callable[[], Iterable[Finding]]


def collect(probes: Iterable[tuple[str, Probe]]) -> Iterator[Finding]:
    """The findings of all probes, each with its section; a failure is a note in its place."""
    for section, probe in probes:
        try:
            yield from probe()
        except Exception as error:
            lines = str(error).strip().splitlines()
            why = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
            yield Finding(section, "probe", Status.NOTE, f"could not be found out ({why})")
