"""Arms in turn, round by round, at each length: the order of measuring, and where an arm stops.

    1 warm-up: each arm alone encodes and answers once. Its memory is looked at here, and its seconds say whether it goes on.
    2 rounds of encoding, the arms in turn, another one first each time; before each round the rate of matrix products
    3 rounds of questions, the arms in turn at every question, which all of them get and none gets twice
Neighbours in time share what the machine does beside us, so ratios are taken within a round. Knows arms, no model.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from encoders.schema import Frames
from pipeline.evaluation.speed.clocks import peak, resident
from pipeline.evaluation.speed.schema import Arm, Row, Timed

_SHAPES = ("star", "circle", "square", "triangle", "heart", "cross", "moon", "ring")
_COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black")


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an arm stops."""

    round_s: float  # a warm-up call that took longer is the arm's last at this length and beyond
    memory_bytes: float  # that an arm may grow by


@dataclass
class Rounds:
    """One run; `rows` grows while it goes on."""

    rounds: int
    asked: int  # questions in each round
    limits: Limits
    rates: Callable[[], dict[str, float]] = dict  # of matrix products, operations a second
    rows: list[Row] = field(default_factory=list)

    def at(self, frames: Frames, arms: Sequence[Arm]) -> None:
        """Measure every arm that can still go on over these frames."""
        live = [arm for arm in arms if self._warm(arm, frames)]
        encoders = [arm for arm in live if arm.keeps]
        for number in range(self.rounds):
            self.rows.append(
                {"kind": "rate", "frames": len(frames), "round": number} | self.rates()
            )
            for arm in turned(encoders, number):
                self._keep("encode", arm, frames, number, arm.encode(frames))
        for arm in live:
            if not arm.keeps:
                arm.encode(frames)
            arm.ask(question(0))  # what was encoded last is taken in
        for number in range(self.rounds):
            _say(f"{len(frames)} frames: questions, round {number + 1} of {self.rounds}")
            for which in range(self.asked):
                text = question(1 + number * self.asked + which)
                for arm in turned(live, number + which):
                    self._keep("ask", arm, frames, number, arm.ask(text))
        for arm in live:
            arm.drop()

    def _warm(self, arm: Arm, frames: Frames) -> bool:
        """Whether this arm takes part."""
        count = len(frames)
        why = self._too_much(arm, count)
        if why:
            self.rows.append({"kind": "left_out", "arm": arm.name, "frames": count, "why": why})
            return False
        _say(f"{count} frames: {arm.name}")
        before = resident()
        try:
            with peak(before) as encoding:
                encoded = arm.encode(frames)
            with peak(before) as asking:
                asked = arm.ask(question(0))
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            arm.drop()
            self.rows.append(
                {"kind": "left_out", "arm": arm.name, "frames": count, "why": "memory ran out"}
            )
            return False
        row = {
            "kind": "warm_up",
            "arm": arm.name,
            "frames": count,
            "encode_s": encoded.wall_s,
            "ask_s": asked.wall_s,
        }
        row |= {
            "encode_cpu_s": encoded.cpu_s,
            "ask_cpu_s": asked.cpu_s,
            "first_token_s": asked.first_token_s,
        }
        row |= {
            "per_token_s": asked.per_token_s,
            "encode_bytes": encoding.nbytes,
            "ask_bytes": asking.nbytes,
        }
        longest = max(encoded.wall_s, asked.wall_s)
        row["last"] = longest > self.limits.round_s
        self.rows.append(
            row | {"keeps": arm.keeps, "encode_stages": encoded.stages, "ask_stages": asked.stages}
        )
        # whoever asks another arm's bank opens it again when that is encoded last
        if row["last"] or not arm.keeps:
            arm.drop()
        return not row["last"]

    def _too_much(self, arm: Arm, count: int) -> str:
        """Why not to try this arm at so many frames, judged by the length before; "" = try."""
        gone = next(
            (
                r
                for r in self.rows
                if r["kind"] == "left_out" and r["arm"] == arm.needs and r["frames"] == count
            ),
            None,
        )
        if gone is not None:
            return f"it asks what {arm.needs} encodes, which was left out"
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
            return f"{longest:.0f} s at {row['frames']} frames, above round_seconds={self.limits.round_s:g}"
        most = grown * max(row["encode_bytes"] or 0, row["ask_bytes"] or 0)
        if most > self.limits.memory_bytes:
            return f"about {most / 1e6:.0f} MB by {row['frames']} frames, above memory_mb={self.limits.memory_bytes / 1e6:g}"
        return ""

    def _keep(self, kind: str, arm: Arm, frames: Frames, number: int, took: Timed) -> None:
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


def question(number: int) -> str:
    """Another text for every number, of the same number of words."""
    color, shape = _COLORS[number % len(_COLORS)], _SHAPES[(number // len(_COLORS)) % len(_SHAPES)]
    turn = number // (len(_COLORS) * len(_SHAPES))
    return f"What is the code on the card after the {color} {shape}, {turn:02d}?"


def turned(arms: Sequence[Arm], number: int) -> list[Arm]:
    """Another arm first in each round."""
    start = number % len(arms) if arms else 0
    return [*arms[start:], *arms[:start]]


def _say(text: str) -> None:
    """Where it is, for whoever waits: a run takes minutes to hours."""
    print(f"bench {time.strftime('%H:%M:%S')}: {text}", file=sys.stderr, flush=True)
