"""The records of a benchmark: what one timed call came to, what an arm is, and tables of text.

Knows no model, no bank and no clock. Seconds are seconds of wall time unless they are called CPU seconds, which are those of
the whole process, all threads together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from encoders.schema import Frames
from pipeline.config.settings import BenchSettings

# A measured row as it stands in bench.json: kind "encode", "ask", "warm_up" or "left_out", arm, frames, round and numbers.
BenchRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timed:
    """One call."""

    wall_s: float
    cpu_s: float
    stages: dict[str, float] = field(default_factory=dict)  # seconds of each
    first_token_s: float = 0.0  # from the question to the first token; 0 where nothing was asked
    per_token_s: float = 0.0  # of the tokens after it
    ids: tuple[int, ...] = ()  # answered token ids, where the arm hands them out
    facts: dict[str, Any] = field(default_factory=dict)  # such as how many frames were read


class BenchArm(Protocol):
    """A way to get answers about a video: encode it, then ask. `encode` throws away what was encoded before."""

    @property
    def name(self) -> str: ...

    @property
    def keeps_cache(self) -> bool:
        """Whether anything is kept between questions: without it there is nothing to encode ahead."""
        ...

    @property
    def encoded_by(self) -> str:
        """The arm that encodes what this one asks; its own name where it does so itself."""
        ...

    def encode(self, frames: Frames) -> Timed: ...

    def ask(self, question: str) -> Timed:
        """Answer with exactly as many new tokens as was agreed."""
        ...

    def drop(self) -> None:
        """Let go of what was encoded."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """A part of the report."""

    title: str
    words: str  # what was done, in a sentence or two
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """As Markdown."""
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
