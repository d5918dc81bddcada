"""The records of the speed benchmark: a timed call, an arm, and tables of text.

Seconds are wall time unless they are called CPU seconds; those are of the whole process, all
threads together. Knows no model, no bank and no clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from encoders.schema import Frames
from pipeline.config.tasks.evaluation_settings import BenchSettings

# a row of bench.json: kind ("encode", "ask", "warm_up", "left_out", ...), arm, frames, round,
# numbers
BenchRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timed:
    """One timed call."""

    wall_s: float
    cpu_s: float
    stages: dict[str, float] = field(default_factory=dict)  # seconds of each
    first_token_s: float = 0.0  # from the question to the first token; 0 where nothing was asked
    per_token_s: float = 0.0  # of the tokens after it
    ids: tuple[int, ...] = ()  # answered token ids, where the arm hands them out
    facts: dict[str, Any] = field(default_factory=dict)  # such as how many frames were read


class BenchArm(Protocol):
    """A way to get answers about a video: encode it, then ask.

    `encode` drops what was encoded before.
    """

    @property
    def name(self) -> str: ...

    @property
    def keeps_cache(self) -> bool:
        """Whether anything is kept between questions; if not, nothing can be encoded ahead."""
        ...

    @property
    def encoded_by(self) -> str:
        """Name of the arm that encodes what this one asks; its own name if it does so itself."""
        ...

    def encode(self, frames: Frames) -> Timed: ...

    def ask(self, question: str) -> Timed:
        """Answer with exactly the agreed number of new tokens."""
        ...

    def drop(self) -> None:
        """Release what was encoded."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """A part of the report."""

    title: str
    words: str  # what was measured, in a sentence or two
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """The table as Markdown."""
        body = ["| " + " | ".join(row) + " |" for row in self.rows]
        return [
            f"## {self.title}",
            "",
            self.words,
            "",
            "| " + " | ".join(self.head) + " |",
            "|---" * len(self.head) + "|",
            *body,
        ]


BASELINES = {
    "kv_kept": "transformers, KV kept",
    "whole_prompt": "transformers, whole prompt",
}  # as plain= and as tables name them


Recompose = Callable[[list[str]], BenchSettings]
