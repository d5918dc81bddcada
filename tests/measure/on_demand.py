"""Seconds and bytes of adding a film to be searched alone, beside encoding it at once.

    python -m tests.measure.on_demand [--out PAGE] FILM [--rounds 3] [--first 3]
        [--alone NUMBER ...] [--modes on_demand on_demand_blocks] [--set key=value ...]

`on demand` is `visual_tokens=on_demand`: frame embeddings and times, every segment durable. `at
once` also encodes every frame for the embedded model. `decoding` samples the film and drops the
frames. The arms take turns in one process, models are loaded before, and each pass writes a new
bank.

Wall seconds depend on what else the machine does. CPU seconds of all threads do not: on two idle
cores a pass takes at least half of them. Behind the passes: a search, a first question, whose
segments are encoded, and a second one, for which nothing is. `--rounds 0` leaves all of that out.
Then first questions alone, `--first` of each mode, in turn, each in a copy of a bank that has
encoded nothing. `--alone 8 9`: CPU seconds of encoding each of these segments and nothing else.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from encoders.sources.container import inspect
from memory.schema import Question
from pipeline.build import build_local, build_qa, open_video
from pipeline.config.compose import compose
from pipeline.config.tasks.pipeline_settings import PipelineSettings
from pipeline.engine import Engine
from pipeline.frame_embedder import build_clip
from pipeline.qa import VideoQA
from tests.support import measurement_page

_TEXT = "What is the code on the card?"


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over a film."""

    wall: float  # seconds
    cpu: float  # seconds of all threads
    nbytes: int  # of the bank


def timed(call: Callable[[], int]) -> Pass:
    """What a call took; it returns bytes."""
    cpu, wall = time.process_time(), time.perf_counter()
    nbytes = call()
    return Pass(time.perf_counter() - wall, time.process_time() - cpu, nbytes)


class Arms:
    """The three ways to pass over a film, with the models loaded once."""

    def __init__(self, film: Path, folder: Path, overrides: list[str]) -> None:
        self._film, self.bank = film, folder / "bank"
        self._settings: PipelineSettings = compose(
            "ask", [f"video={film}", f"bank={self.bank}", "question=x", *overrides]
        )
        self._model, self._clip = build_local(self._settings), build_clip(self._settings)

    def decoding(self) -> int:
        source = open_video(self._settings, self._model, str(self._film))
        sum(len(batch) for batch in source.frames())
        return 0

    def add(self, encode: str) -> int:
        """A new bank of the film."""
        shutil.rmtree(self.bank, ignore_errors=True)
        settings = self._settings.changed(visual_tokens=encode)
        source = open_video(settings, self._model, str(self._film))
        ingester = build_qa(settings, self._model, self._clip).ingester
        with ingester.bank:
            ingester.ingest(source)
            return ingester.bank.catalog.nbytes()

    def first_question(self, encode: str) -> tuple[Pass, int, int]:
        """A first question in a new bank; segments that were encoded for it, and all of them."""
        qa = self._unasked(encode)
        with qa.bank:
            video_id = qa.bank.catalog.videos()[0].info.video_id

            def ask() -> int:
                qa.ask(Question(_TEXT, video_id))
                return qa.bank.encoding.nbytes(video_id)

            took = timed(ask)
            total = len(qa.bank.catalog.segments(video_id))
            return took, total - len(qa.bank.encoding.missing(video_id)), total

    def alone(self, encode: str, number: int) -> Pass:
        """One segment, and nothing else, encoded in a new bank."""
        qa = self._unasked(encode)
        with qa.bank:
            video_id = qa.bank.catalog.videos()[0].info.video_id

            def one() -> int:
                assert qa.bank.encoding.encode is not None
                qa.bank.encoding.encode(video_id, [number], lambda done, of: None)
                return qa.bank.encoding.nbytes(video_id)

            return timed(one)

    def _unasked(self, encode: str) -> VideoQA:
        """The parts over a copy of a bank that has encoded nothing."""
        unasked = self.bank.with_name(encode)
        if not unasked.exists():
            self.add(encode)
            shutil.copytree(self.bank, unasked)
        shutil.rmtree(self.bank, ignore_errors=True)
        shutil.copytree(unasked, self.bank)
        return build_qa(self._settings, self._model, self._clip)

    def questions(self) -> list[tuple[str, float, str]]:
        """What a search and two questions took in the bank of the last pass."""
        rows = []
        with Engine.compose([f"bank={self.bank}"]) as engine:
            for name in ("a search, with what it loads", "the next search"):
                began = time.perf_counter()
                engine.find("a card with a code", channels=["picture"])
                rows.append((name, time.perf_counter() - began, ""))
        qa = build_qa(self._settings, self._model, self._clip)
        with qa.bank:
            video_id = qa.bank.catalog.videos()[0].info.video_id
            for name in ("the first question", "the second question"):
                before, cpu = qa.bank.catalog.nbytes(), time.process_time()
                began = time.perf_counter()
                answer = qa.ask(Question(_TEXT, video_id))
                took, cpu = time.perf_counter() - began, time.process_time() - cpu
                missing = len(qa.bank.encoding.missing(video_id))
                note = (
                    f"{cpu:.2f} CPU s, encoding {answer.seconds.get('encode', 0):.2f} s, "
                    f"{(qa.bank.catalog.nbytes() - before) / 1e6:.2f} MB, "
                    f"{missing} segments are still to be encoded"
                )
                rows.append((name, took, note))
        return rows


def report(arguments: argparse.Namespace) -> None:
    """Tables of passes and of questions."""
    duration = inspect(arguments.film).duration
    print(f"\n{arguments.film.name}, {duration:.0f} s.\n")
    with tempfile.TemporaryDirectory(prefix="on-demand-") as folder:
        arms = Arms(arguments.film, Path(folder), arguments.set)
        if arguments.rounds:
            _passes(arms, arguments.rounds, duration)
        if arguments.first:
            _first_questions(arms, arguments.modes, arguments.first)
        if arguments.alone:
            _segments_alone(arms, arguments.modes, arguments.alone)


def _passes(arms: Arms, rounds: int, duration: float) -> None:
    calls: dict[str, Callable[[], int]] = {
        "decoding": arms.decoding,
        "at once": partial(arms.add, "at_once"),
        "on demand": partial(arms.add, "on_demand"),
    }
    for call in calls.values():
        call()
    passes: dict[str, list[Pass]] = {name: [] for name in calls}
    loads, names = [os.getloadavg()[0]], list(calls)
    for number in range(rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            passes[name].append(timed(calls[name]))
    loads.append(os.getloadavg()[0])
    calls["on demand"]()
    rows = arms.questions()
    print(f"{rounds} rounds, load {min(loads):.1f} to {max(loads):.1f}.\n")
    print("| arm | wall s | CPU s | times real time by wall | by CPU | by half of the CPU | MB/h |")
    print("|---|---|---|---|---|---|---|")
    for name, own in passes.items():
        size = f"{own[-1].nbytes / 1e6 / duration * 3600:.1f}" if own[-1].nbytes else ""
        print(
            f"| {name} | {spread(one.wall for one in own)} | {spread(one.cpu for one in own)} "
            f"| {spread(duration / one.wall for one in own)} "
            f"| {spread(duration / one.cpu for one in own)} "
            f"| {spread(2 * duration / one.cpu for one in own)} | {size} |"
        )
    pairs = zip(passes["at once"], passes["on demand"], strict=True)
    print(f"\nCPU seconds at once over on demand: {spread(a.cpu / b.cpu for a, b in pairs)}\n")
    print("| then | s | |\n|---|---|---|")
    for name, seconds, note in rows:
        print(f"| {name} | {seconds:.2f} | {note} |")


def _segments_alone(arms: Arms, modes: list[str], numbers: list[int]) -> None:
    arms.alone(modes[0], numbers[0])  # warms up
    print("\n| a segment alone, CPU s | " + " | ".join(map(str, numbers)) + " | mean |")
    print("|---" * (2 + len(numbers)) + "|")
    for name in modes:
        took = [arms.alone(name, number).cpu for number in numbers]
        cells = " | ".join(f"{one:.2f}" for one in [*took, statistics.mean(took)])
        print(f"| {name} | {cells} |", flush=True)


def _first_questions(arms: Arms, modes: list[str], count: int) -> None:
    load, tries = os.getloadavg()[0], {name: list[tuple[Pass, int, int]]() for name in modes}
    for _ in range(count):
        for name, own in tries.items():
            own.append(arms.first_question(name))
    print(f"\n{count} first questions of each, load {load:.1f} to {os.getloadavg()[0]:.1f}.\n")
    print("| first question in a bank | CPU s | wall s | segments encoded, of | MB |")
    print("|---|---|---|---|---|")
    for name, own in tries.items():
        took, done, total = zip(*own, strict=True)
        print(
            f"| {name} | {spread(one.cpu for one in took)} | {spread(one.wall for one in took)} "
            f"| {done[0]}, {total[0]} | {took[0].nbytes / 1e6:.1f} |"
        )
    first, *others = modes
    for name in others:
        ratio = spread(
            a.cpu / b.cpu for (a, *_), (b, *_) in zip(tries[first], tries[name], strict=True)
        )
        print(f"\nCPU seconds, {first} over {name}: {ratio}")


def spread(values: Iterable[float]) -> str:
    """The median with the least and the most of all rounds."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.2f} ({ordered[0]:.2f}-{ordered[-1]:.2f})"


def main() -> None:
    """Measure one film."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("film", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first", type=int, default=3, help="first questions of each mode")
    parser.add_argument("--alone", type=int, nargs="+", default=[], help="numbers of segments")
    parser.add_argument("--modes", nargs="+", default=["on_demand", "on_demand_blocks"])
    parser.add_argument("--set", nargs="*", default=["text=none", "clip=embedded"])
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
