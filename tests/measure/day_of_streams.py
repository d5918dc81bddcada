"""A simulated day of several streams in one process, as fast as it goes: is all of it there, and
does memory stay flat?

    python -m tests.measure.day_of_streams --hours 24 --every 60
    python -m tests.measure.day_of_streams --hours 1 --every 1

The streams are those of a server (`StreamSet`), with one encoder and one bank. Their clock and
pictures are made up: a frame comes as soon as the stream has its turn. All else is real: the
embedded model, the bank, the supervision of the streams. Each stream shows a card with a code for
five frames an hour, at a place of its own. In the end the code of each hour is asked for, at its
last frame and about this hour alone. Memory is the process's, of no file (RssAnon): medians of the
first and of the last tenth of the second half.
"""

import argparse
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encoders.schema import Frames
from encoders.sources.live.push_source import PushSource
from memory.schema import Question
from pipeline.alerts.alert_center import AlertCenter
from pipeline.alerts.schema import AlertRule
from pipeline.alerts.triggers import Gate
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.needle_world.cards import Needle, Placement, draw, random_placement
from pipeline.needle_world.video import procedural_footage
from pipeline.qa import VideoQA
from pipeline.runtime.heap_trimmer import HeapTrimmer
from pipeline.server.streams.stream_set import StreamSet
from pipeline.server.streams.stream_settings import StreamSettings
from tests.support import measurement_page
from tests.support.sessions import SIZE

HOUR_S, SHOWN_FRAMES = 3600.0, 5


class SimulatedSource(PushSource):
    """Frames of a simulated clock, each as soon as it is taken; then it waits to be closed."""

    def __init__(
        self, name: str, number: int, hours: float, every: float, size: tuple[int, int]
    ) -> None:
        super().__init__(name, 1.0 / every, width=size[0], height=size[1])
        self._every, self._hours, self._at = every, hours, 0.0
        self._footage = procedural_footage(number, SIZE, 600.0)
        self.cards = [card(number, hour) for hour in range(int(hours))]
        self.is_through = threading.Event()

    is_idle = False  # a frame is always there

    @property
    def now(self) -> float:
        return self._at

    def start_clock(self, start: float) -> float:
        return round(time.time(), 3)

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        for number in range(int(self._hours * HOUR_S / self._every)):
            if self._closed.is_set():
                return
            self._at = number * self._every
            self.frames_sampled += 1
            yield self._frames(self._picture(self._at), self._at)
        self.is_through.set()
        self._closed.wait()

    def _picture(self, at: float) -> np.ndarray:
        picture = self._footage(at)
        hour, within = divmod(at, HOUR_S)
        needle, place, since = self.cards[int(hour)]
        if since <= within < since + SHOWN_FRAMES * self._every:
            draw(picture, needle, place)
        return np.asarray(picture)


def card(stream: int, hour: int) -> tuple[Needle, Placement, float]:
    """The card of an hour, its place, and the second of the hour in which it appears."""
    rng = np.random.default_rng((91, stream, hour))
    needle = Needle("code", str(rng.integers(1000, 9999)))
    return needle, random_placement(rng, "code"), float(rng.integers(300, 3000))


def anonymous() -> int:
    """Bytes of the process's memory of no file."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024


def growth(values: list[int]) -> tuple[float, float, float]:
    """MB at the begin of the second half, at its end, and at most."""
    half = [each / 1e6 for each in values[len(values) // 2 :]]
    tenth = max(1, len(half) // 10)
    return statistics.median(half[:tenth]), statistics.median(half[-tenth:]), max(half)


def right_codes(qa: VideoQA, sources: dict[str, SimulatedSource], every: float) -> tuple[int, int]:
    """Codes that the answers about each hour say, and how many there are."""
    right = asked = 0
    for name, source in sources.items():
        for hour, (needle, _, since) in enumerate(source.cards):
            moment = hour * HOUR_S + since + (SHOWN_FRAMES - 1) * every
            # each hour has another code, and one answer says one
            spans = {name: ((hour * HOUR_S, math.inf),)}
            question = Question("What is the code on the card?", [name], moment, spans=spans)
            right += qa.ask(question).text.startswith(needle.text)
            asked += 1
    return right, asked


def report(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name, HeapTrimmer():
        folder, every, hours = Path(name), arguments.every, arguments.hours
        config = compose(
            "serve", [f"bank={folder / 'bank'}", f"fps={1 / every}", "text=none", "ram_mb=64"]
        )
        backbone = build_backbone(config)
        qa = build_qa(config, backbone)
        sources: dict[str, SimulatedSource] = {}

        def new_source(settings: StreamSettings, fps: float, words: object) -> SimulatedSource:
            number = int(settings.name.removeprefix("cam"))
            sources[settings.name] = SimulatedSource(
                settings.name, number, hours, every, backbone.frame_size
            )
            return sources[settings.name]

        own = [StreamSettings(name=f"cam{n}", url="camera:0") for n in range(arguments.streams)]  # type: ignore[call-arg]
        began, used, memory = time.monotonic(), time.process_time(), list[int]()
        streams = StreamSet(
            qa,
            open_bank=lambda bank, fps: qa,
            new_source=new_source,
            new_alerts=lambda: AlertCenter(
                folder / "alerts", new_trigger=Gate, rule=AlertRule(), notifiers={}
            ),
            path=folder / "streams.json",
            own=own,
        )
        while len(sources) < len(own) or not all(s.is_through.is_set() for s in sources.values()):
            memory.append(anonymous())
            time.sleep(0.5)
        states = [each.state() for each in streams.streams.values()]
        streams.close()
        seconds, cpu = time.monotonic() - began, time.process_time() - used
        rows = {one.name: qa.bank.catalog.segments(one.name) for one in own}
        whole = sum(
            [row.number for row in each] == list(range(len(each)))
            and sum(row.frames for row in each) == int(hours * HOUR_S / every)
            for each in rows.values()
        )
        problems, nbytes = qa.bank.check.verify(), qa.bank.catalog.nbytes()
        right, asked = right_codes(qa, sources, every)
        qa.bank.close()
    before, after, most = growth(memory)
    print("| what | number |\n|---|---|")
    for what, number in (
        ("simulated", f"{len(own)} streams of {hours:g} h, a frame every {every:g} s"),
        ("frames encoded", f"{sum(state['frames'] for state in states)}"),
        ("streams that are whole, of all", f"{whole} of {len(own)}"),
        ("segments; damaged files", f"{sum(map(len, rows.values()))}; {len(problems)}"),
        ("streams that were started again", f"{sum(each['reconnects'] for each in states)}"),
        ("right codes, of one question for each hour of each stream", f"{right} of {asked}"),
        ("memory at half-time; in the end; at most", f"{before:.0f}; {after:.0f}; {most:.0f} MB"),
        ("growth of memory in the second half", f"{after - before:+.1f} MB"),
        ("bytes of the bank", f"{nbytes / 1e6:.0f} MB"),
        ("seconds; CPU seconds of this process", f"{seconds:.0f}; {cpu:.0f}"),
    ):
        print(f"| {what} | {number} |")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two frames")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
