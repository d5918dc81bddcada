"""Seconds to sample films by one decoder and by several, in one process.

    python -m tests.measure.decoder_workers make CLIP FILM [--codec libx264] [--seconds 60]
    python -m tests.measure.decoder_workers [--out PAGE] time FILM... [--workers 2] [--rounds 5]

`make`: a film of 1280 x 720 and 30 pictures a second: the clip forwards and backwards, again and
again. `time`: arms take turns, and each round begins with another one. `all packets` leaves out
nothing that lies before a sampled picture; `one` and `several` are `source.workers=`;
`keyframes` is `source.sampling=keyframes`, by one worker. The program fails if two of the first
three give different bytes.

Wall seconds depend on what else the machine does. `division` does not: CPU seconds of all threads
over those of the busiest one, so the most that this division of the work can gain on idle cores.
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np

from encoders.schema import join_frames
from encoders.sources import file
from encoders.sources.container import Container, inspect
from encoders.sources.file import FileSource
from tests.support import measurement_page

_SIZE, _RATE, _SIDE = (1280, 720), 30, 384
_KEYFRAMES = "keyframes"
_MOST = 300  # pictures of a clip that are repeated


def make(clip: Path, film: Path, codec: str, options: dict[str, str], seconds: float) -> None:
    """Write the film."""
    with av.open(str(clip)) as container:
        frames = islice(container.decode(video=0), _MOST)
        pictures = [frame.reformat(*_SIZE, "yuv420p").to_ndarray() for frame in frames]
    turn = [*pictures, *pictures[-2:0:-1]]
    with av.open(str(film), "w") as container:
        stream = container.add_stream(codec, rate=_RATE, options=options)
        assert isinstance(stream, av.VideoStream)
        (stream.width, stream.height), stream.pix_fmt = _SIZE, "yuv420p"
        for number in range(round(seconds * _RATE)):
            frame = av.VideoFrame.from_ndarray(turn[number % len(turn)], format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over a film."""

    wall: float  # seconds
    cpu: float  # seconds of all threads
    division: float  # by the seconds of the busiest thread


@dataclass(slots=True)
class _Threads:
    """CPU seconds of every thread that scales pictures, at its last one."""

    seconds: dict[int, float] = field(default_factory=dict)

    def mark(self) -> None:
        self.seconds[threading.get_ident()] = time.thread_time()


def sample(film: Path, fps: float, workers: int, sampling: str = "shown") -> tuple[Pass, bytes]:
    """One pass, and the bytes of its frames and times."""
    threads, scaled = _Threads(), FileSource._scaled

    def marked(*arguments: object) -> object:
        picture = scaled(*arguments)  # type: ignore[arg-type]
        threads.mark()
        return picture

    source = FileSource(film, fps, width=_SIDE, height=_SIDE, workers=workers, sampling=sampling)
    own, cpu, wall = time.thread_time(), time.process_time(), time.perf_counter()
    with patch.object(FileSource, "_scaled", marked):
        frames = join_frames(list(source.frames()))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    threads.seconds[threading.get_ident()] = time.thread_time() - own
    busiest = max(threads.seconds.values())
    return Pass(wall, cpu, cpu / busiest), frames.pixels.tobytes() + frames.times.tobytes()


def all_packets(film: Path, fps: float) -> tuple[Pass, bytes]:
    """One pass by one worker that takes no picture for one that can be left out."""

    def needs_all(path: Path) -> Container:
        facts = inspect(path)
        needed = np.zeros_like(facts.packets.spare)
        return replace(facts, packets=replace(facts.packets, spare=needed))

    with patch.object(file, "inspect", needs_all):
        return sample(film, fps, 1)


def report(arguments: argparse.Namespace) -> None:
    """One row for each film, rate and arm."""
    workers = arguments.workers
    print("| film | codec | fps | spare | arm | wall s | CPU s | times real time, CPU | division |")
    print("|---|---|---|---|---|---|---|---|---|")
    for film, fps in ((film, fps) for film in arguments.films for fps in arguments.fps):
        arms: dict[str, Callable[[], tuple[Pass, bytes]]] = {
            "all packets": partial(all_packets, film, fps),
            "one": partial(sample, film, fps, 1),
            f"{workers} workers": partial(sample, film, fps, workers),
            _KEYFRAMES: partial(sample, film, fps, 1, "keyframes"),
        }
        facts, loads = inspect(film), [os.getloadavg()[0]]
        passes: dict[str, list[Pass]] = {name: [] for name in arms}
        first: bytes | None = None
        for number in range(arguments.rounds):
            for name in [*arms][number % len(arms) :] + [*arms][: number % len(arms)]:
                one, data = arms[name]()
                passes[name].append(one)
                first = data if first is None and name != _KEYFRAMES else first
                if name != _KEYFRAMES and data != first:
                    raise SystemExit(f"{film}: {name} gives other bytes")
        loads.append(os.getloadavg()[0])
        for name, own in passes.items():
            cpu = spread(one.cpu for one in own)
            speed = spread(facts.duration / one.cpu for one in own)
            division = f"{statistics.median(one.division for one in own):.2f}"
            print(
                f"| {film.name} | {facts.codec} | {fps:g} | {facts.packets.spare.mean():.2f} "
                f"| {name} | {spread(one.wall for one in own)} | {cpu} | {speed} | {division} |"
            )
        pairs = [*zip(passes["one"], passes[f"{workers} workers"], strict=True)]
        print(
            f"\n{film.name}, {fps:g} fps, load {min(loads):.1f} to {max(loads):.1f}, "
            f"{len(pairs)} rounds: wall seconds of one worker over those of {workers} "
            f"{spread(one.wall / several.wall for one, several in pairs)}; CPU seconds "
            f"{spread(one.cpu / several.cpu for one, several in pairs)}; "
            f"{spread(facts.duration / several.wall for _, several in pairs)} times real time.\n",
            flush=True,
        )


def spread(values: Iterable[float]) -> str:
    """The median with the least and the most of all rounds."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.2f} ({ordered[0]:.2f}-{ordered[-1]:.2f})"


def main() -> None:
    """Make a film, or time passes over films."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("clip", type=Path)
    making.add_argument("film", type=Path)
    making.add_argument("--codec", default="libx264")
    making.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    making.add_argument("--seconds", type=float, default=60.0)
    timing = commands.add_parser("time")
    timing.add_argument("films", type=Path, nargs="+")
    timing.add_argument("--fps", type=float, nargs="+", default=[1.0])
    timing.add_argument("--workers", type=int, default=2)
    timing.add_argument("--rounds", type=int, default=5)

    def act(arguments: argparse.Namespace) -> None:
        if arguments.command == "time":
            report(arguments)
        else:
            options = dict(each.split("=", 1) for each in arguments.option)
            make(arguments.clip, arguments.film, arguments.codec, options, arguments.seconds)

    measurement_page.run(parser, act)


if __name__ == "__main__":
    main()
