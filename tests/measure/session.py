"""What a session does on this machine, with the embedded model.

    python -m tests.measure.session needle --times 20
    python -m tests.measure.session askers --askers 20 --minutes 5
    python -m tests.measure.session memory --hours 2 --picture docs/assets/session.png

`needle` measures how long after a needle appears a question about it is answered. `askers` measures
the time to the first token on one running stream. `memory` measures the growth of the process.

`needle` and `askers` play in real time. Their pictures come from a sender in this process, as
MPEG-TS over TCP.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.sources.live.push_source import PushSource
from encoders.sources.live.url_source import UrlSource
from pipeline.build import build_backbone, build_qa
from pipeline.config.compose import compose
from pipeline.live.session import Session
from pipeline.needle_world import video
from pipeline.needle_world.cards import draw
from pipeline.needle_world.video import parse
from pipeline.qa import VideoQA
from tests.measure.long_stream import MB, anonymous
from tests.support import measurement_page
from tests.support.streams import Sender

CODE = "What is the code?"
SIZE = (192, 108)


@contextmanager
def embedded(*overrides: str) -> Iterator[VideoQA]:
    with tempfile.TemporaryDirectory() as folder:
        config = compose("ask", ["video=x", "question=x", f"bank={folder}/bank", *overrides])
        qa = build_qa(config, build_backbone(config))
        with qa.bank:
            yield qa


def painted(*needles: str) -> Callable[[float], np.ndarray]:
    """Pictures of made-up footage with needles such as code:4821@31."""
    placed = [parse(text, i) for i, text in enumerate(needles)]
    footage = video.procedural_footage(5, SIZE)

    def paint(seconds: float) -> np.ndarray:
        picture = footage(seconds)
        for one in placed:
            if one.start <= seconds < one.end:
                draw(picture, one.needle, one.place)
        return np.asarray(picture)

    return paint


def watching(qa: VideoQA, sender: Sender) -> UrlSource:
    width, height = qa.backbone.frame_size
    return UrlSource(sender.url, 1.0, width=width, height=height)


def needle(times: int, gap: float = 7.3) -> list[float]:
    """Seconds from each needle's first picture to the end of the first right answer. The question
    is repeated until it is right.
    """
    moments = [10 + i * gap for i in range(times)]
    codes = [str(1000 + 379 * i % 9000) for i in range(times)]
    delays: list[float] = []
    paint = painted(*(f"code:{code}@{at}" for code, at in zip(codes, moments, strict=True)))
    with (
        embedded() as qa,
        Sender(paint, SIZE) as sender,
        Session(qa, watching(qa, sender)) as session,
    ):
        session.wait_for_frame()
        for code, at in zip(codes, moments, strict=True):
            while sender.now < at:
                time.sleep(0.005)
            since = session.now - 1.0
            while sender.now < at + 20:
                with suppress(UserError):  # nothing was seen since then, so far
                    if session.ask(CODE, since=since).answer.text == code:
                        delays.append(sender.now - at)
                        break
            else:
                delays.append(float("inf"))
        print(session.status())
    return delays


def askers(count: int, minutes: float, think_s: float = 0.0) -> list[float]:
    """Seconds to the first piece of each answer."""
    waits: list[float] = []
    errors: list[BaseException] = []
    paint = painted("code:4821@4", "name:Alice@9")
    with (
        embedded() as qa,
        Sender(paint, SIZE) as sender,
        Session(qa, watching(qa, sender)) as session,
    ):
        session.wait_for_frame()
        time.sleep(12)
        until = time.monotonic() + 60 * minutes

        def ask(number: int) -> None:
            rng = np.random.default_rng(number)
            try:
                while time.monotonic() < until:
                    began = time.monotonic()
                    with session.ask((CODE, "What is the secret word?")[number % 2]) as stream:
                        first = None
                        for _ in stream:
                            first = time.monotonic() - began if first is None else first
                    waits.append(first or time.monotonic() - began)
                    time.sleep(think_s * float(rng.uniform(0.5, 1.5)))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(session.status())
    print(f"errors: {errors or 'none'}")
    return waits


def memory(hours: float, picture: Path | None, step: int = 120) -> list[tuple[float, int]]:
    """(hours of stream, bytes of this process that are in no file), with a question every two
    minutes of stream.
    """
    curve: list[tuple[float, int]] = []
    paint = painted("code:4821@31")
    with embedded("ram_mb=64") as qa:
        width, height = qa.backbone.frame_size
        source = PushSource("stream", 1.0, width=width, height=height, queue_frames=8)
        with Session(qa, source) as session:
            for second in range(round(3600 * hours)):
                pixels = paint(float(second))
                while not source.is_idle:  # as fast as it goes: nothing is dropped
                    session.check()
                    time.sleep(0.0005)
                while not source.push(pixels, at=float(second)):
                    time.sleep(0.01)
                if second % step == step - 1:
                    assert session.ask(CODE).answer.text
                    curve.append(((second + 1) / 3600, anonymous()))
            print(session.status())
    if picture is not None:
        _draw(curve, picture)
    return curve


def _draw(curve: list[tuple[float, int]], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.5), constrained_layout=True)
    axes.plot([at for at, _ in curve], [nbytes / MB for _, nbytes in curve])
    axes.set(
        xlabel="hours of stream",
        ylabel="MB of the process",
        ylim=(0, None),
        title="A session on a stream",
    )
    figure.savefig(target, dpi=110)


def report(args: argparse.Namespace) -> None:
    """Print one of the three measurements."""
    if args.what == "memory":
        began = time.perf_counter()
        curve = memory(args.hours, args.picture)
        half = curve[len(curve) // 2][1]
        grown = (curve[-1][1] - half) / MB
        print(
            f"{args.hours:g} h in {time.perf_counter() - began:.0f} s: {curve[-1][1] / MB:.0f} "
            f"MB, {grown:+.1f} MB since half"
        )
        return
    values = np.array(
        needle(args.times)
        if args.what == "needle"
        else askers(args.askers, args.minutes, args.think)
    )
    p50, p95 = np.percentile(values, (50, 95))
    print(
        f"{args.what}: n={len(values)}, p50 {p50:.2f} s, p95 {p95:.2f} s, longest "
        f"{values.max():.2f} s"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["needle", "askers", "memory"])
    parser.add_argument("--picture", type=Path, help="PNG of the curve, with memory")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--askers", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument(
        "--think",
        type=float,
        default=0.0,
        help="mean seconds between an answer and the next question",
    )
    parser.add_argument("--hours", type=float, default=2.0)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
