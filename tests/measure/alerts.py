"""Precision, recall and delay of alerts on needle streams, for the gate and two baselines.

    python -m tests.measure.alerts --films 6 --seconds 120

Each stream shows six needles. One request is for one of them, the other for a needle that never
comes. An alert is right during the needle's seconds and up to three seconds later; any other alert
is false. Delays are in video time, at one frame a second.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from encoders.schema import Segment
from encoders.sources.live.push_source import PushSource
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.live.alerts import Alert, AlertRule, check_for
from pipeline.live.session import Session
from pipeline.needle_world import video
from pipeline.needle_world.cards import COLORS, SHAPES, Needle, draw
from tests.support import measurement_page

RULES = {
    "gate": AlertRule(),
    "every boundary": AlertRule("boundary"),
    "every 8 s": AlertRule("every"),
    "every frame": AlertRule("every", every_s=0.0),
}
LATE_S = 3.0


@dataclass
class Count:
    """Alerts of one rule, counted over all streams."""

    right: int = 0
    false: int = 0
    missed: int = 0
    checks: int = 0
    frames: int = 0
    delays: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        alerts, due = self.right + self.false, self.right + self.missed
        share = 100 * self.checks / max(self.frames, 1)
        delay = (
            f"{np.mean(self.delays):.1f} s (longest {max(self.delays):.1f})" if self.delays else "-"
        )
        return f"| {name} | {self.right}/{alerts} | {self.right}/{due} | {delay} | {share:.0f} % |"


def scene(rng: np.random.Generator, count: int) -> list[Needle]:
    """Shapes of different colors and forms."""
    shapes, colors = (rng.permutation(list(names))[:count] for names in (SHAPES, COLORS))
    return [
        Needle("shape", str(shape), str(color)) for shape, color in zip(shapes, colors, strict=True)
    ]


def measure(films: int, seconds: int, needles: int = 6) -> dict[str, Count]:
    config = compose("ask", ["video=x", "question=x"])
    backbone = build_backbone(config)
    counts = {name: Count() for name in RULES}
    width, height = backbone.frame_size
    for number in range(films):
        rng = np.random.default_rng((77, number))
        all_needles = scene(rng, needles + 1)
        placed = video.plan(rng, all_needles[:needles], seconds)
        footage = video.procedural_footage(number, (192, 108))
        with tempfile.TemporaryDirectory() as folder:
            qa = build_qa(
                compose("ask", ["video=x", "question=x", f"bank={folder}/bank"]), backbone
            )
            source = PushSource("stream", 1.0, width=width, height=height)
            with qa.bank, Session(qa, source) as session:
                # there, and not there
                targets = [placed[int(rng.integers(needles))].needle, all_needles[needles]]
                alerts = {
                    (name, needle): Alert(
                        session,
                        "x",
                        check_for(f"{needle.color} {needle.text}", "needle_world"),
                        rule,
                    )
                    for name, rule in RULES.items()
                    for needle in targets
                }
                rows: list[tuple[float, torch.Tensor]] = []

                def keep(segment: Segment, rows: list[tuple[float, torch.Tensor]] = rows) -> None:
                    rows.extend(zip(segment.times.tolist(), segment.clip, strict=True))

                session.listen(keep)
                for second in range(seconds):
                    picture = footage(float(second))
                    for one in placed:
                        if one.start <= second < one.end:
                            draw(picture, one.needle, one.place)
                    while not source.push(np.asarray(picture), at=float(second)):
                        time.sleep(0.01)
                    while not rows or rows[-1][0] < second:
                        session.check()
                        time.sleep(0.002)
                    for each in alerts.values():
                        each.observe(*rows[-1])
        for (name, needle), each in alerts.items():
            spans = [(one.start, one.end + LATE_S) for one in placed if one.needle == needle]
            times = [d.time for d in each.log if d.notifies]
            hits = [[at for at in times if a <= at <= b] for a, b in spans]
            count = counts[name]
            count.right += sum(map(bool, hits))
            count.missed += sum(not inside for inside in hits)
            count.false += len(times) - sum(map(bool, hits))
            count.delays += [
                inside[0] - a for inside, (a, _) in zip(hits, spans, strict=True) if inside
            ]
            count.checks += sum(bool(d.gate) for d in each.log)
            count.frames += len(each.log)
    return counts


def report(args: argparse.Namespace) -> None:
    """Print the table of all rules."""
    began = time.perf_counter()
    counts = measure(args.films, args.seconds)
    print(
        "| the model is asked | right alerts / alerts | right alerts / needles | delay | "
        "frames asked about |\n|---|---|---|---|---|"
    )
    print("\n".join(count.row(name) for name, count in counts.items()))
    print(
        f"{args.films} streams of {args.seconds} s, two requests each; "
        f"{time.perf_counter() - began:.0f} s"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=120)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    assert Path("pipeline").is_dir(), "run it from the repository root"
    main()
