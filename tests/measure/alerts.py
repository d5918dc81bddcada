"""Precision, recall and delay of alerts on made streams, for every trigger of conf/trigger/.

    python -m tests.measure.alerts --streams 40 --seconds 48
    python -m tests.measure.alerts --streams 40 --seconds 48 --kinds shake crowd --seed 78

A stream shows one needle to report, once or several times, and another one beside it, in one of
these ways:
    cut     a card appears at once, over footage whose scenes change
    fade    a card fades in over eight seconds, over one scene
    motion  a card drifts in from the edge over six seconds, over one scene
    repeat  the card comes three times, with pauses of eight seconds, over one scene
    shake   as fade, and the camera jumps all the time by up to a quarter of the picture
    crowd   as repeat, and other cards come and go every two seconds

The last two change all the time without the card, so that its change does not stand out.
Each stream has two requests: for that needle, and for one that never comes. A notice is right if it
is the first one from the beginning of an event until eight seconds behind its end, which is how far
a check looks back; every other notice is false. Delays are in video time from the first trace of
the card, at one frame a second. Every trigger sees the same streams and asks the same model: a
check of the same seconds is made once. The table also counts the checks of single frames that say
when an event was last there. Intervals are 95 %, bootstrapped over streams.
"""

import argparse
import functools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from encoders.schema import Segment
from encoders.sources.live.push_source import PushSource
from pipeline.alerts.alert import Alert
from pipeline.alerts.check import check_for, frame_probability
from pipeline.alerts.schema import Check, Trigger
from pipeline.alerts.triggers import Boundary, EveryN, Gate, ModelProbability
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.live.session import Session
from pipeline.needle_world.cards import COLORS, SHAPES, Needle, Placement, draw, random_placement
from pipeline.needle_world.video import procedural_footage
from pipeline.schema import Trace
from pipeline.scoring import cell
from tests.support import measurement_page
from tests.support.sessions import SIZE

TRIGGERS: dict[str, Callable[[], Trigger]] = {
    "gate": Gate,
    "boundary": Boundary,
    "every_n, 8 s": EveryN,
    "probability": ModelProbability,
}
KINDS = ("cut", "fade", "motion", "repeat")
BUSY_KINDS = ("shake", "crowd")
LATE_S = 8.0
FADE_S, DRIFT_S = 8.0, 6.0
SHAKE = 0.25  # of the picture


@dataclass(frozen=True)
class Event:
    """A card and when it shows."""

    needle: Needle
    place: Placement
    start: float  # seconds of the first trace
    end: float


@dataclass(frozen=True)
class Stream:
    """A made stream: what it shows, and what is asked for."""

    kind: str
    footage: Callable[[float], Image.Image]
    events: tuple[Event, ...]
    wanted: Needle
    absent: Needle
    beside: tuple[Event, ...] = ()  # cards that nobody asks for, all the time

    def picture(self, second: float) -> np.ndarray:
        """[height, width, 3] uint8 RGB."""
        picture = self.footage(second)
        for one in (*self.beside, *self.events):
            if one.start <= second < one.end:
                self._show(picture, one, second - one.start)
        return np.asarray(picture)

    def _show(self, picture: Image.Image, one: Event, age: float) -> None:
        place = one.place
        if self.kind == "motion":
            left = max(0.0, 1.0 - (age + 0.5) / DRIFT_S)  # of the way
            layer = Image.new("RGB", picture.size)
            draw(layer, one.needle, place)
            box = [round(place.x * SIZE[0]), round(place.y * SIZE[1])]
            width, height = round(place.width * SIZE[0]), round(place.height * SIZE[1])
            card = layer.crop((box[0], box[1], box[0] + width, box[1] + height))
            picture.paste(card, (box[0] + round(left * (SIZE[0] - box[0])), box[1]))
            return
        whole = picture.copy()
        draw(whole, one.needle, place)
        share = min(1.0, (age + 0.5) / FADE_S) if self.kind in ("fade", "shake") else 1.0
        picture.paste(Image.blend(picture, whole, share))


def shaking(footage: Callable[[float], Image.Image], seed: int) -> Callable[[float], Image.Image]:
    """The same scene through a camera that jumps from one second to the next."""
    width, height = SIZE

    def at(second: float) -> Image.Image:
        rng = np.random.default_rng((seed, int(second)))
        x, y = rng.random(2) * SHAKE
        box = (x * width, y * height, (x + 1 - SHAKE) * width, (y + 1 - SHAKE) * height)
        return footage(second).resize(SIZE, Image.Resampling.BILINEAR, box=box)

    return at


def make_stream(number: int, seconds: int, kinds: Sequence[str], seed: int) -> Stream:
    """The stream of this number: kinds take turns."""
    rng, kind = np.random.default_rng((seed, number)), kinds[number % len(kinds)]
    shapes, colors = (rng.permutation(list(names)) for names in (SHAPES, COLORS))
    wanted, beside, absent = (
        Needle("shape", str(shapes[place]), str(colors[place])) for place in range(3)
    )
    if kind in ("repeat", "crowd"):
        shown = [wanted, wanted, wanted]
        lasts, pause = 3.0, 8.0
    else:
        shown = [wanted, beside] if rng.random() < 0.5 else [beside, wanted]
        lasts, pause = (5.0 if kind == "cut" else 12.0), 8.0
    free = seconds - len(shown) * lasts - (len(shown) - 1) * pause - LATE_S
    at, events = 4.0 + rng.random() * max(0.0, free - 4.0), []
    for needle in shown:
        events.append(Event(needle, random_placement(rng, "shape"), at, at + lasts))
        at += lasts + pause
    scene_seconds = 14.0 if kind == "cut" else 1e9
    footage = procedural_footage(number, SIZE, scene_seconds)
    if kind == "shake":
        footage = shaking(footage, number)
    others = [
        Event(
            Needle("shape", str(shapes[3 + place % 2]), str(colors[3 + place % 2])),
            random_placement(rng, "shape"),
            2.0 * place,
            2.0 * place + 1.0 + place % 2,
        )
        for place in range(seconds // 2 if kind == "crowd" else 0)
    ]
    return Stream(kind, footage, tuple(events), wanted, absent, tuple(others))


@dataclass
class Count:
    """What a trigger did on one stream."""

    right: int = 0
    notices: int = 0
    events: int = 0
    checks: int = 0
    late: int = 0  # checks of single frames that say when an event was last there
    looks: int = 0  # of the model at a frame alone
    frames: int = 0
    delays: list[float] = field(default_factory=list)


class SharedChecks(Alert):
    """An alert whose checks of the same seconds are made once for all triggers."""

    made: dict[tuple[str, float, float], tuple[float, Trace | None]]
    asked = 0  # checks, those of `_last_present` included

    def _score(self, since: float, until: float) -> tuple[float, Trace | None]:
        self.asked += 1
        key = (self.request, since, until)
        if key not in self.made:
            self.made[key] = super()._score(since, until)
        return self.made[key]


def count_events(alert: SharedChecks, stream: Stream, needle: Needle, count: Count) -> None:
    """Add what an alert did."""
    told = [one.time for one in alert.log if one.notifies]
    events = [one for one in stream.events if one.needle == needle]
    for one in events:
        inside = [at for at in told if one.start <= at < one.end + LATE_S]
        count.right += bool(inside)
        count.delays += [at - one.start for at in inside[:1]]
    count.events += len(events)
    count.notices += len(told)
    checks = sum(one.score is not None for one in alert.log)
    count.checks += checks
    count.late += alert.asked - checks
    count.frames += len(alert.log)


def watch_stream(session: Session, stream: Stream, seconds: int) -> dict[str, Count]:
    """What every trigger does on a stream."""
    qa, made = session.qa, dict[tuple[str, float, float], tuple[float, Trace | None]]()
    looks: dict[tuple[Needle, float], float] = {}
    alerts: dict[tuple[str, Needle], SharedChecks] = {}
    checks: dict[Needle, Check] = {}
    counts = {name: Count() for name in TRIGGERS}
    for needle in (stream.wanted, stream.absent):
        request = f"{needle.color} {needle.text}"
        checks[needle] = check_for(request, "needle_world")
        for name, new_trigger in TRIGGERS.items():
            alerts[name, needle] = SharedChecks(
                session, request, checks[needle], trigger=new_trigger()
            )
            alerts[name, needle].made = made
    rows: list[tuple[Segment, int, float, Tensor]] = []

    def keep(segment: Segment) -> None:
        rows.extend(
            (segment, place, at, row)
            for place, (at, row) in enumerate(
                zip(segment.times.tolist(), segment.clip, strict=True)
            )
        )

    def look(name: str, needle: Needle, segment: Segment, place: int, at: float) -> float:
        counts[name].looks += 1
        if (needle, at) not in looks:
            looks[needle, at] = frame_probability(qa, segment, place, checks[needle])
        return looks[needle, at]

    session.listen(keep)
    for second in range(seconds):
        while not session.source.push(stream.picture(float(second)), at=float(second)):  # type: ignore[attr-defined]
            time.sleep(0.01)
        while not rows or rows[-1][2] < second:
            session.check()
            time.sleep(0.002)
        segment, place, at, row = rows[-1]
        for (name, needle), alert in alerts.items():
            alert.observe(at, row, functools.partial(look, name, needle, segment, place, at))
    for (name, needle), alert in alerts.items():
        count_events(alert, stream, needle, counts[name])
    return counts


def share(counts: Sequence[Count], whole: str) -> str:
    """Right notices of all notices, or of all events: per cent, interval over streams, and n."""
    outcomes: list[tuple[str, float]] = []
    for number, one in enumerate(counts):
        every = getattr(one, whole)
        outcomes += [(str(number), float(place < one.right)) for place in range(every)]
    return cell(outcomes)


def delay(counts: Sequence[Count]) -> str:
    """Median and 95th percentile of the delays, with the interval of the median over streams."""
    own = [one.delays for one in counts if one.delays]
    if not own:
        return "–"
    rng = np.random.default_rng(0)
    medians = [
        np.median(np.concatenate([own[place] for place in rng.integers(len(own), size=len(own))]))
        for _ in range(2000)
    ]
    low, high = np.percentile(medians, (2.5, 97.5))
    every = np.concatenate(own)
    return f"{np.median(every):.1f} s ({low:.1f}–{high:.1f}), p95 {np.percentile(every, 95):.1f}"


def table(results: dict[str, list[Count]]) -> str:
    """The table of all triggers."""
    lines = [
        "| trigger | precision | recall | delay | checks, of frames | when it was last there "
        "| looks at a frame alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, counts in results.items():
        frames = sum(one.frames for one in counts)
        lines.append(
            f"| {name} | {share(counts, 'notices')} | {share(counts, 'events')} "
            f"| {delay(counts)} | {sum(one.checks for one in counts) / frames:.0%} "
            f"| {sum(one.late for one in counts) / frames:.0%} "
            f"| {sum(one.looks for one in counts) / frames:.0%} |"
        )
    return "\n".join(lines)


def report(args: argparse.Namespace) -> None:
    """Print the tables."""
    began = time.process_time()
    backbone = build_backbone(compose("ask", ["video=x", "question=x"]))
    width, height = backbone.frame_size
    results: dict[str, dict[str, list[Count]]] = defaultdict(lambda: defaultdict(list))
    rows: Path = args.rows
    rows.touch()
    done = {row["number"]: row for row in map(json.loads, rows.read_text().splitlines())}
    for number in range(args.streams):
        stream = make_stream(number, args.seconds, args.kinds, args.seed)
        if number not in done:
            with tempfile.TemporaryDirectory() as folder:
                config = compose("ask", ["video=x", "question=x", f"bank={folder}/bank"])
                qa = build_qa(config, backbone)
                source = PushSource("stream", 1.0, width=width, height=height)
                with qa.bank, Session(qa, source) as session:
                    counts = watch_stream(session, stream, args.seconds)
            row = {"number": number, "counts": {name: asdict(one) for name, one in counts.items()}}
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            done[number] = row
        for name, values in done[number]["counts"].items():
            results["all"][name].append(Count(**values))
            results[stream.kind][name].append(Count(**values))
        print(f"{number + 1} {stream.kind} {time.process_time() - began:.0f} s", flush=True)
    for kind, own in results.items():
        print(f"\n{kind}, {len(next(iter(own.values())))} streams\n\n{table(own)}")
    print(
        f"\n{args.streams} streams of {args.seconds} s, two requests each; "
        f"{time.process_time() - began:.0f} s of CPU"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=48)
    parser.add_argument("--kinds", nargs="+", choices=KINDS + BUSY_KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=77, help="of what the streams show")
    parser.add_argument(
        "--rows", type=Path, default=Path("alerts.jsonl"), help="what is done; a new run goes on"
    )
    measurement_page.run(parser, report)


if __name__ == "__main__":
    assert Path("pipeline").is_dir(), "run it from the repository root"
    main()
