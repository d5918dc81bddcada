"""Arms in turn, round by round, at each length: the order of measuring, and where an arm stops.

1 warm-up: each arm alone encodes and answers once. Its memory is measured here, and its seconds
  decide whether it continues.
2 rounds of encoding: the arms in turn, another one first each time. Before each round, the rate of
  matrix products is measured.
3 rounds of questions: the arms in turn at every question. All arms get the same questions, and no
  question comes twice.

Neighbours in time share the machine's other load, so ratios are taken within a round. Knows arms,
no model.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from encoders.schema import Frames
from pipeline.evaluation.speed.clocks import peak_memory, resident_bytes
from pipeline.evaluation.speed.schema import BenchArm, BenchRow, Timed

_SHAPES = ("star", "circle", "square", "triangle", "heart", "cross", "moon", "ring")
_COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black")


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an arm stops."""

    round_s: float  # a longer warm-up call is the arm's last, at this length and beyond
    memory_bytes: float  # by which an arm may grow


@dataclass
class Rounds:
    """One run; `rows` grows while it goes on."""

    rounds: int
    questions: int  # questions in each round
    limits: Limits
    rates: Callable[[], dict[str, float]] = dict  # of matrix products, operations a second
    rows: list[BenchRow] = field(default_factory=list)

    def measure(self, frames: Frames, arms: Sequence[BenchArm]) -> None:
        """Measure every arm that can still run over these frames."""
        live = [arm for arm in arms if self._warm_up(arm, frames)]
        encoders = [arm for arm in live if arm.keeps_cache]
        for number in range(self.rounds):
            self.rows.append(
                {"kind": "rate", "frames": len(frames), "round": number} | self.rates()
            )
            for arm in rotated(encoders, number):
                self._record("encode", arm, frames, number, arm.encode(frames))
        for arm in live:
            if not arm.keeps_cache:
                arm.encode(frames)
            arm.ask(question(0))  # loads what was encoded last
        for number in range(self.rounds):
            _log(f"{len(frames)} frames: questions, round {number + 1} of {self.rounds}")
            for which in range(self.questions):
                text = question(1 + number * self.questions + which)
                for arm in rotated(live, number + which):
                    self._record("ask", arm, frames, number, arm.ask(text))
        for arm in live:
            arm.drop()

    def _warm_up(self, arm: BenchArm, frames: Frames) -> bool:
        """Encode and answer once; -> whether this arm takes part in the rounds."""
        count = len(frames)
        why = self._reason_to_skip(arm, count)
        if why:
            self.rows.append({"kind": "left_out", "arm": arm.name, "frames": count, "why": why})
            return False
        _log(f"{count} frames: {arm.name}")
        try:
            row = _warm_up_row(arm, frames)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            arm.drop()
            row = {"kind": "left_out", "arm": arm.name, "frames": count, "why": "memory ran out"}
            self.rows.append(row)
            return False
        row["last"] = max(row["encode_s"], row["ask_s"]) > self.limits.round_s
        self.rows.append(row)
        # an arm that asks another arm's bank opens it again after its last encoding
        if row["last"] or not arm.keeps_cache:
            arm.drop()
        return not row["last"]

    def _reason_to_skip(self, arm: BenchArm, count: int) -> str:
        """Why not to try this arm at so many frames; "" = try.

        Judged by the length before.
        """
        skipped = next(
            (
                r
                for r in self.rows
                if r["kind"] == "left_out" and r["arm"] == arm.encoded_by and r["frames"] == count
            ),
            None,
        )
        if skipped is not None:
            return f"it asks what {arm.encoded_by} encodes, which was left out"
        before = [
            row
            for row in self.rows
            if row.get("arm") == arm.name and row["kind"] in ("warm_up", "left_out")
        ]
        if not before:
            return ""
        row, grown = before[-1], count / before[-1]["frames"]
        if grown <= 1:
            return ""
        if row["kind"] == "left_out":
            return str(row["why"])
        if row["last"]:
            longest = max(row["encode_s"], row["ask_s"])
            return (
                f"{longest:.0f} s at {row['frames']} frames, "
                f"above round_seconds={self.limits.round_s:g}"
            )
        most = grown * max(row["encode_bytes"] or 0, row["ask_bytes"] or 0)
        if most > self.limits.memory_bytes:
            return (
                f"about {most / 1e6:.0f} MB by {row['frames']} frames, "
                f"above memory_mb={self.limits.memory_bytes / 1e6:g}"
            )
        return ""

    def _record(self, kind: str, arm: BenchArm, frames: Frames, number: int, took: Timed) -> None:
        row: dict[str, Any] = {
            "kind": kind,
            "arm": arm.name,
            "frames": len(frames),
            "round": number,
            "wall_s": took.wall_s,
        }
        row |= {"cpu_s": took.cpu_s, "stages": took.stages} | took.facts
        if kind == "ask":
            row |= {"first_token_s": took.first_token_s, "per_token_s": took.per_token_s}
        self.rows.append(row)


def _warm_up_row(arm: BenchArm, frames: Frames) -> BenchRow:
    """One encoding and one question, with the memory of both."""
    before = resident_bytes()
    with peak_memory(before) as encoding:
        encoded = arm.encode(frames)
    with peak_memory(before) as asking:
        answered = arm.ask(question(0))
    return {
        "kind": "warm_up",
        "arm": arm.name,
        "frames": len(frames),
        "encode_s": encoded.wall_s,
        "ask_s": answered.wall_s,
        "encode_cpu_s": encoded.cpu_s,
        "ask_cpu_s": answered.cpu_s,
        "first_token_s": answered.first_token_s,
        "per_token_s": answered.per_token_s,
        "encode_bytes": encoding.nbytes,
        "ask_bytes": asking.nbytes,
        "last": False,
        "keeps": arm.keeps_cache,
        "encode_stages": encoded.stages,
        "ask_stages": answered.stages,
    }


def question(number: int) -> str:
    """A different text for every number, with the same number of words; all about cards, so that
    the embedded model answers it.
    """
    color, shape = _COLORS[number % len(_COLORS)], _SHAPES[(number // len(_COLORS)) % len(_SHAPES)]
    turn = number // (len(_COLORS) * len(_SHAPES))
    return f"What is the code on the card and the {color} {shape}, {turn:02d}?"


def rotated(arms: Sequence[BenchArm], number: int) -> list[BenchArm]:
    """The arms with another one first in each round."""
    start = number % len(arms) if arms else 0
    return [*arms[start:], *arms[:start]]


def _log(text: str) -> None:
    """Report progress on stderr: a run takes minutes to hours."""
    print(f"bench {time.strftime('%H:%M:%S')}: {text}", file=sys.stderr, flush=True)
